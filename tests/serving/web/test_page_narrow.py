"""What the page's panel "Narrow down" adds to a query; Chromium with canned answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser

from tests.support.canned_service import CannedService, drawn_photo
from tests.support.page_browser import Visit, visiting

SQUARE = [[16.3601, 48.2001], [16.3612, 48.2001], [16.3612, 48.2013], [16.3601, 48.2001]]


@pytest.fixture
def canned(browser: Browser, service_url: str) -> Iterator[tuple[Visit, CannedService]]:
    """A page with an answered photo, its panel open."""
    with visiting(browser) as visit:
        service = CannedService().install(visit.page)
        visit.page.goto(f"{service_url}/")
        visit.page.wait_for_selector("#facts dd")
        visit.page.locator("#narrow-title").click()
        visit.upload("photo.jpg", drawn_photo())
        visit.settled()
        yield visit, service
        assert visit.complaints == []


def asked(visit: Visit, **fields: str) -> dict[str, list[str]]:
    """The parameters of the query that follows when the last of these fields is filled in."""
    url = ""
    for name, value in fields.items():
        visit.settled()  # otherwise the query of an earlier action may be taken for this one
        with visit.page.expect_request(lambda request: "/v1/query" in request.url) as sent:
            visit.page.locator(f"#{name.replace('_', '-')}").fill(value)
            visit.page.keyboard.press("Enter")
        url = sent.value.url
    parameters = parse_qs(urlsplit(url).query)
    usual = ("top_k", "candidates", "rerank")
    return {name: values for name, values in parameters.items() if name not in usual}


def last_query(service: CannedService) -> dict[str, str]:
    return next(query for path, query, _ in reversed(service.received) if path == "/v1/query")


def draw(visit: Visit, button: str, pixels: int = 60) -> None:
    visit.page.click(button)
    visit.page.wait_for_selector("#map-hint", state="visible")
    box = visit.page.locator("#map").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + pixels, y, steps=4)
    visit.page.mouse.up()
    visit.settled()


def test_drawn_circles_narrow_and_weigh_the_query_until_they_are_cleared(
    canned: tuple[Visit, CannedService],
) -> None:
    visit, service = canned
    assert not {"near", "radius_m", "prior"} & last_query(service).keys()
    draw(visit, "#near-draw")
    first = service.places()[0]
    lat, lon = map(float, last_query(service)["near"].split(","))
    assert (lat, lon) == pytest.approx((first["lat"], first["lon"]), abs=0.1)
    assert float(last_query(service)["radius_m"]) > 1
    assert "prior" not in last_query(service)
    draw(visit, "#prior-draw", pixels=30)
    both = last_query(service)
    assert {"near", "radius_m", "prior"} <= both.keys()
    sigma_m = float(both["prior"].split(",")[2])
    assert sigma_m < float(both["radius_m"]), "half as many pixels"
    assert visit.page.locator("#map path.limit").count() == 2
    assert visit.page.locator("#narrow-set").is_visible()
    assert "rather near" in visit.text("#narrow-words")
    visit.page.click("#narrow-clear")
    visit.settled()
    assert not {"near", "radius_m", "prior"} & last_query(service).keys()
    assert visit.page.locator("#map path.limit").count() == 0
    assert not visit.page.locator("#narrow-set").is_visible()


def test_a_circle_is_drawn_by_keyboard_and_given_up_with_escape(canned: tuple[Visit, CannedService]) -> None:
    visit, service = canned
    visit.page.focus("#near-draw")
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("Escape")
    assert visit.page.get_attribute("#near-draw", "aria-pressed") == "false"
    assert not visit.page.locator("#map-hint").is_visible()
    visit.page.focus("#near-draw")
    visit.page.keyboard.press("Enter")
    with visit.page.expect_request(lambda request: "near=" in request.url):
        visit.page.keyboard.press("Enter")
    visit.settled()
    assert float(last_query(service)["radius_m"]) > 1
    assert visit.page.input_value("#near-radius") == last_query(service)["radius_m"]


def test_a_circle_is_drawn_by_touch(browser: Browser, service_url: str) -> None:
    with visiting(browser, width=360, height=740, has_touch=True, is_mobile=True) as visit:
        CannedService().install(visit.page)
        visit.page.goto(f"{service_url}/")
        visit.page.wait_for_selector("#facts dd")
        visit.page.locator("#narrow-title").tap()
        visit.page.locator("#near-draw").tap()
        box = visit.page.locator("#map").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        finger = visit.page.context.new_cdp_session(visit.page)
        for kind, pixels in (("touchStart", [0]), ("touchMove", range(9, 90, 9)), ("touchEnd", [None])):
            for moved in pixels:
                points = [] if moved is None else [{"x": x, "y": y + moved}]
                finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        visit.until("document.querySelector('#near').value !== ''")
        assert float(visit.page.input_value("#near-radius")) > 1


def test_every_field_is_a_parameter_of_the_query(canned: tuple[Visit, CannedService]) -> None:
    visit, _ = canned
    assert asked(visit, near="48.2001, 16.3601") == {"near": ["48.2001,16.3601"], "radius_m": ["200"]}
    assert asked(visit, near_radius="35.5")["radius_m"] == ["35.5"]
    assert asked(visit, prior="48.2,16.3", prior_sigma="80")["prior"] == ["48.2,16.3,80"]
    visit.page.click("#narrow-clear")
    assert asked(visit, heading="90") == {"heading": ["90"], "heading_tolerance": ["45"]}
    assert asked(visit, heading_tolerance="30")["heading_tolerance"] == ["30"]
    taken = asked(visit, taken_after="2019", taken_before="2020-07")
    assert (taken["taken_after"], taken["taken_before"]) == (["2019"], ["2020-07"])
    assert asked(visit, tags="day, wet road,")["tag"] == ["day", "wet road"]
    words = visit.text("#narrow-words")
    for said in ("looking 90° ± 30°", "from 2019 on", "before 2020-07", "tagged day, wet road"):
        assert said in words
    visit.page.click("#narrow-clear")
    assert asked(visit, max_wrong="0.1") == {"max_wrong": ["0.1"]}


def test_an_area_is_sent_without_what_a_search_needs_not(canned: tuple[Visit, CannedService]) -> None:
    visit, service = canned
    polygon = {"type": "Polygon", "coordinates": [[[lon + 1e-12, lat] for lon, lat in SQUARE]]}
    feature = {"type": "Feature", "properties": {"name": "x" * 20_000}, "geometry": polygon}
    choose(visit, "district.geojson", {"type": "FeatureCollection", "features": [feature]})
    visit.until("document.querySelector('#area-words').textContent === 'district.geojson'")
    visit.settled()
    sent = {"type": "Feature", "geometry": {**polygon, "coordinates": [SQUARE]}}
    within = last_query(service)["within"]
    assert json.loads(within) == {"type": "FeatureCollection", "features": [sent]}
    assert visit.page.locator("#map path.limit-within").count() == 1
    queries = len(service.queries())
    choose(visit, "country.geojson", {"type": "Polygon", "coordinates": [SQUARE * 400]})
    visit.page.wait_for_selector("#error", state="visible")
    assert "the service takes 16,000" in visit.text("#error")
    assert len(service.queries()) == queries
    visit.page.click("#area-remove")
    visit.page.wait_for_selector("#error", state="hidden")
    visit.until("document.querySelectorAll('#map path.limit').length === 0")
    visit.settled()
    assert "within" not in last_query(service)


def choose(visit: Visit, name: str, geojson: dict[str, Any]) -> None:
    content = json.dumps(geojson).encode()
    file = {"name": name, "mimeType": "application/geo+json", "buffer": content}
    visit.page.set_input_files("#area-file", file)  # type: ignore[arg-type]


def test_nothing_left_is_said_and_can_be_cleared(canned: tuple[Visit, CannedService]) -> None:
    visit, service = canned
    assert not visit.page.locator("#considered").is_visible()
    service.answer = {"considered": 0, "matches": [], "place": None}
    visit.page.fill("#tags", "night")
    visit.page.keyboard.press("Enter")
    visit.until("document.querySelector('#verdict-place').textContent === 'No stored image fits'")
    assert visit.page.locator("#considered").is_visible()
    assert "0 of 6 images considered" in visit.text("#considered")
    assert not visit.page.locator("#ranking").is_visible()
    service.answer = {}
    visit.page.click("#considered-clear")
    visit.settled()
    assert "tag" not in last_query(service)
    assert not visit.page.locator("#considered").is_visible()


def test_a_map_of_metres_takes_typed_circles_only(browser: Browser, service_url: str) -> None:
    with visiting(browser) as visit:
        CannedService(kind="metres").install(visit.page)
        visit.page.goto(f"{service_url}/")
        visit.upload("photo.jpg", drawn_photo())
        visit.settled()
        visit.page.locator("#narrow-title").click()
        assert not visit.page.locator("#near-draw").is_visible()
        assert asked(visit, near="48.2,16.3")["near"] == ["48.2,16.3"]
