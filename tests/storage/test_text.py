"""What a terminal or a spreadsheet would act on, taken out of text of foreign origin."""

import pytest

from storage.text import plain, spreadsheet_safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("street 12/北京.jpg", "street 12/北京.jpg"),
        ("crème brûlée", "crème brûlée"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\nb\tc\x00\x7f", r"a\r\nb\tc\x00\x7f"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("\u2066isolated\u2069\u200b\ufeff", r"\u2066isolated\u2069\u200b\ufeff"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
        ("lone \ud800 surrogate", r"lone \ud800 surrogate"),
        (Ellipsis, "Ellipsis"),
    ],
)
def test_plain_text_has_nothing_that_a_terminal_acts_on(text: object, shown: str) -> None:
    assert plain(text) == shown


def test_scripts_and_emoji_that_need_joiners_are_shown_as_they_are() -> None:
    assert plain("می‌خواهم 👩‍🚀") == "می‌خواهم 👩‍🚀"


@pytest.mark.parametrize("text", ["x" * 5000, "\x1b" * 5000, "/a" * 10_000_000])
@pytest.mark.parametrize("length", [1, 20, 2000])
def test_plain_text_is_bounded(text: str, length: int) -> None:
    assert len(plain(text, max_length=length)) == length


def test_a_long_path_keeps_its_beginning_and_its_end() -> None:
    shown = plain("/mnt/photos/" + "x" * 5000 + "/last.jpg", max_length=60)
    assert shown.startswith("/mnt/photos/")
    assert shown.endswith("/last.jpg")


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\ufffd=1"),
        ("\r=1", "'\ufffd=1"),
        ("＝1+1", "'＝1+1"),
        ("-12.5", "-12.5"),
        ("+1e-3", "+1e-3"),
        ("-１２", "'-１２"),
        (-3, "-3"),
        (None, ""),
        ("a=b", "a=b"),
        ("esc \x1b[0m", "esc \ufffd[0m"),
        ("photos/a-b.jpg", "photos/a-b.jpg"),
    ],
)
def test_a_spreadsheet_shows_cells_instead_of_running_them(cell: object, written: str) -> None:
    assert spreadsheet_safe(cell) == written
