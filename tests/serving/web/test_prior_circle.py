"""A circle drawn on the page's map narrows the query; Chromium with canned answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.canned_service import CannedService, drawn_photo
from tests.support.page_browser import Visit, visiting

pytestmark = pytest.mark.slow


@pytest.fixture
def canned(browser: Browser, service_url: str) -> Iterator[tuple[Visit, CannedService]]:
    with visiting(browser) as visit:
        service = CannedService().install(visit.page)
        visit.page.goto(f"{service_url}/")
        visit.page.wait_for_selector("#prior:visible")
        yield visit, service


def last_query(service: CannedService) -> dict[str, str]:
    return next(query for path, query, _ in reversed(service.received) if path == "/v1/query")


def draw(visit: Visit, metres: int = 60) -> None:
    visit.page.click("#prior-draw")
    box = visit.page.locator("#map").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + metres, y, steps=4)
    visit.page.mouse.up()


def test_a_drawn_circle_narrows_the_query_and_clearing_it_widens_it_again(
    canned: tuple[Visit, CannedService],
) -> None:
    visit, service = canned
    visit.upload("photo.jpg", drawn_photo())
    visit.settled()
    assert not {"near", "radius_m", "prior"} & last_query(service).keys()
    draw(visit)
    visit.until("!document.querySelector('#prior-clear').disabled")
    visit.settled()
    asked = last_query(service)
    lat, lon = map(float, asked["near"].split(","))
    first = service.places()[0]
    assert abs(lat - first["lat"]) < 0.1
    assert abs(lon - first["lon"]) < 0.1
    assert float(asked["radius_m"]) > 1
    visit.page.select_option("#prior-meaning", "rather")
    visit.settled()
    weighed = last_query(service)
    assert weighed["prior"] == f"{asked['near']},{asked['radius_m']}"
    assert "near" not in weighed
    visit.page.fill("#prior-radius", "250")
    visit.page.press("#prior-radius", "Tab")
    visit.settled()
    assert last_query(service)["prior"].endswith(",250.0")
    visit.page.click("#prior-clear")
    visit.settled()
    assert not {"near", "radius_m", "prior"} & last_query(service).keys()
    assert visit.complaints == []


def test_a_circle_is_drawn_by_keyboard_and_given_up_with_escape(canned: tuple[Visit, CannedService]) -> None:
    visit, service = canned
    visit.page.click("#prior-draw")
    visit.page.keyboard.press("Escape")
    assert visit.page.get_attribute("#prior-draw", "aria-pressed") == "false"
    visit.page.click("#prior-draw")
    visit.page.keyboard.press("Enter")
    visit.until("!document.querySelector('#prior-clear').disabled")
    visit.upload("photo.jpg", drawn_photo())
    visit.settled()
    assert float(last_query(service)["radius_m"]) > 1


def test_a_circle_without_images_is_named(canned: tuple[Visit, CannedService]) -> None:
    visit, service = canned
    service.answer = {"considered": 0, "matches": [], "place": None}
    draw(visit)
    visit.upload("photo.jpg", drawn_photo())
    visit.page.wait_for_selector("#headline", state="visible")
    assert "No stored image lies in the circle" in visit.text("#headline")
    assert "clear it" in visit.text("#headline")


def test_a_map_of_metres_has_no_circle(browser: Browser, service_url: str) -> None:
    with visiting(browser) as visit:
        CannedService(kind="metres").install(visit.page)
        visit.page.goto(f"{service_url}/")
        visit.page.wait_for_selector("#map-panel:visible")
        assert not visit.page.locator("#prior").is_visible()
