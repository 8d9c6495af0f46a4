"""A headless Chromium that opens the page and records its requests and console messages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

__all__ = ["Visit", "contrast", "launched", "visiting"]

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 60_000
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass
class Visit:
    """An open page, with its requests and console messages."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def upload(self, name: str, content: bytes, media_type: str = "image/jpeg") -> None:
        """Choose a file as a person would."""
        self.page.set_input_files("#file", {"name": name, "mimeType": media_type, "buffer": content})

    def settled(self) -> None:
        """Wait for an answer and for the lines of the place chosen."""
        self.page.wait_for_selector("#headline", state="visible")
        self.page.wait_for_selector("main:not(.waiting)")
        self.page.wait_for_selector("#floor:enabled")

    def until(self, condition: str) -> None:
        """Wait for a JavaScript expression; Playwright's own wait needs eval, which the page forbids."""
        for _ in range(WAIT_MS // 50):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never came true: {condition}")

    def text(self, selector: str) -> str:
        """The visible text of one element."""
        return self.page.locator(selector).inner_text()

    def chosen(self) -> list[str]:
        """The image ids of the selected options."""
        selected: list[str] = self.page.eval_on_selector_all(
            "#places [aria-selected=true]", "all => all.map(one => one.dataset.imageId)"
        )
        return selected

    def drawn(self) -> list[dict[str, float]]:
        """The lines drawn, their ends in 0..1 of the image that they should end in."""
        lines: list[dict[str, float]] = self.page.evaluate(
            """() => {
              const boxes = ["pair-photo", "pair-stored"].map((id) =>
                document.getElementById(id).getBoundingClientRect());
              const ground = document.getElementById("lines").getBoundingClientRect();
              return [...document.querySelectorAll("#lines line")].map((line) => {
                const at = (name) => Number(line.getAttribute(name));
                return {
                  x1: (at("x1") + ground.left - boxes[0].left) / boxes[0].width,
                  y1: (at("y1") + ground.top - boxes[0].top) / boxes[0].height,
                  x2: (at("x2") + ground.left - boxes[1].left) / boxes[1].width,
                  y2: (at("y2") + ground.top - boxes[1].top) / boxes[1].height,
                };
              });
            }"""
        )
        return lines

    def strangers(self, tile_origin_host: str | None) -> set[str]:
        """Requested hosts other than this machine and the tile server."""
        return self.hosts - LOOPBACK - {tile_origin_host or ""}


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium, or skip the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on the PATH: install it to test the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: Browser,
    *,
    width: int = 1280,
    height: int = 900,
    tile_host: str | None = None,
    **context_options: Any,
) -> Iterator[Visit]:
    """Open an empty page in a context of its own; console messages about the tile server are ignored."""
    context = browser.new_context(viewport={"width": width, "height": height}, **context_options)
    context.set_default_timeout(WAIT_MS)
    visit = Visit(context.new_page())

    def record_complaint(message: ConsoleMessage) -> None:
        host = urlsplit(message.location.get("url", "")).hostname
        if message.type in ("error", "warning") and (tile_host is None or host != tile_host):
            visit.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def record_host(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss"):
            visit.hosts.add(parts.hostname or "")

    visit.page.on("console", record_complaint)
    visit.page.on("pageerror", lambda error: visit.complaints.append(f"exception: {error}"))
    visit.page.on("request", lambda request: record_host(request.url))
    try:
        yield visit
    finally:
        context.close()


def contrast(page: Page, selector: str) -> float:
    """WCAG 2 contrast of an element's text against the nearest opaque ground behind it (section 1.4.3)."""
    ratio: float = page.eval_on_selector(
        selector,
        """(one) => {
          const channels = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
          const luminance = (rgb) => {
            const [r, g, b] = rgb.map((c) => {
              const s = c / 255;
              return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          let ground = [255, 255, 255];
          for (let at = one; at; at = at.parentElement) {
            const colour = channels(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) {
              ground = colour.slice(0, 3);
              break;
            }
          }
          const lights = [luminance(channels(getComputedStyle(one).color).slice(0, 3)), luminance(ground)];
          return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
        }""",
    )
    return ratio
