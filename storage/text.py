"""Text from stores, listings and services, made safe to print in a terminal or to open in a spreadsheet."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["MAX_TERMINAL_LENGTH", "plain", "spreadsheet_safe"]

MAX_TERMINAL_LENGTH = 2000

# Cc: control characters, with them ESC and the C1 range; Cf: bidi overrides and other invisible characters;
# Cs: lone surrogates, which no terminal encoding has; Zl, Zp: line and paragraph separators.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # spelling of Persian and of Indian scripts, and emoji, need them
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def plain(text: object, max_length: int = MAX_TERMINAL_LENGTH) -> str:
    r"""Return `text` in one line without anything that a terminal would act on.

    Control characters, escape sequences, invisible and bidirectional formatting characters and lone
    surrogates are shown as Python writes them (`\x1b`, `\u202e`); long text is cut in its middle.

    Args:
        text: Any object; `str()` of it is used.
        max_length: Number of characters of the result at most.
    """
    value = str(text)
    if len(value) > max_length:  # before the work: a hostile text may be huge
        value = _shorten(value, max_length)
    if not value.isprintable() or not value.isascii():
        value = "".join(map(_visible, value))
    return _shorten(value, max_length)


def spreadsheet_safe(cell: object) -> str:
    """Return a CSV cell that spreadsheets show instead of running it as a formula.

    A cell that begins with `=`, `+`, `-`, `@`, a tab or a line break gets a leading apostrophe unless it is a
    plain number; control characters are replaced by U+FFFD. None is an empty cell.
    """
    if cell is None:
        return ""
    text = str(cell)
    if text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text):
        text = "'" + text
    if text.isprintable():
        return text
    return "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") else character for character in text
    )


def _visible(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _UNPRINTABLE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _shorten(text: str, max_length: int) -> str:
    if len(text) <= max_length:
        return text
    if max_length < 8:
        return text[:max_length]
    tail = (max_length - 3) // 3
    return f"{text[: max_length - 3 - tail]}...{text[-tail:]}"
