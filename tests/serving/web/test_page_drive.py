"""The page with a drive, in a headless Chromium with canned answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.canned_service import CannedService, drawn_photo
from tests.support.page_browser import Visit, visiting

pytestmark = pytest.mark.slow

FRAMES = 6


@pytest.fixture
def canned(browser: Browser, service_url: str) -> Iterator[tuple[Visit, CannedService]]:
    with visiting(browser) as visit:
        service = CannedService().install(visit.page)
        visit.page.goto(f"{service_url}/")
        visit.page.wait_for_selector("#facts dd")
        yield visit, service


def follow(visit: Visit) -> None:
    names = [f"frame{number}.jpg" for number in (10, 9, 1, 2, 3, 11)]
    files = [{"name": name, "mimeType": "image/jpeg", "buffer": drawn_photo()} for name in names]
    visit.page.set_input_files("#drive-files", files)  # type: ignore[arg-type]
    visit.page.wait_for_selector("#drive", state="visible")


def test_a_drive_is_queried_in_order_and_joined(canned: tuple[Visit, CannedService]) -> None:
    visit, service = canned
    visit.page.fill("#drive-fps", "2.5")
    follow(visit)
    assert len(service.queries()) == FRAMES
    (path, query, body) = service.received[-1]
    assert (path, query) == ("/v1/track", {"fps": "2.5"})
    sent = json.loads(body)["frames"]
    assert len(sent) == FRAMES
    assert set(sent[0]) == {"store_version", "matches"}
    assert "4 known, 1 lost, 1 unsure" in visit.text("#drive-summary")
    assert "frame1.jpg" in visit.text("#drive-note"), "by the numbers in the names"
    assert visit.complaints == []


def test_a_drive_says_that_it_is_not_narrowed(canned: tuple[Visit, CannedService]) -> None:
    visit, service = canned
    follow(visit)
    assert not visit.page.locator("#drive-unnarrowed").is_visible()
    visit.page.locator("#narrow-title").click()
    visit.page.fill("#tags", "day")
    follow(visit)
    visit.page.wait_for_selector("#drive-unnarrowed", state="visible")
    assert all("tag" not in query for path, query, _ in service.received if path == "/v1/query")


def test_the_player_shows_each_frame(canned: tuple[Visit, CannedService]) -> None:
    visit, _ = canned
    follow(visit)
    assert visit.text("#drive-count") == f"1 of {FRAMES}"
    visit.page.locator("#drive-play").click()
    assert visit.text("#drive-play") == "Pause"
    visit.until(f"document.querySelector('#drive-count').textContent === '{FRAMES} of {FRAMES}'")
    visit.until("document.querySelector('#drive-play').textContent === 'Play'")
    visit.page.locator("#drive-slider").press("ArrowLeft")
    assert "Outside" in visit.text("#drive-state")


def test_a_photo_ends_the_drive_and_a_drive_the_answer(canned: tuple[Visit, CannedService]) -> None:
    visit, _ = canned
    follow(visit)
    visit.upload("photo.jpg", drawn_photo())
    visit.settled()
    assert not visit.page.locator("#drive").is_visible()
    follow(visit)
    assert not visit.page.locator("#headline").is_visible()


def test_a_refused_frame_is_left_out_and_a_busy_service_ends_the_drive(
    canned: tuple[Visit, CannedService],
) -> None:
    visit, service = canned
    service.refusals = [(422, "not_an_image", {})]
    follow(visit)
    assert json.loads(service.received[-1][2])["frames"][0] is None
    service.refusals = [(503, "not_ready", {})]
    visit.page.set_input_files(
        "#drive-files", [{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": drawn_photo()}]
    )
    visit.page.wait_for_selector("#error", state="visible")
    assert not visit.page.locator("#drive").is_visible()
