"""The page in a headless Chromium, against the service itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser

from tests.support.page_browser import Visit, contrast, visiting

DESKTOP, PHONE = (1280, 900), (360, 740)
# Text that must stand out from its ground by WCAG's 4.5.
READABLE = (
    ".tagline",
    ".facts dt",
    "#verdict-place",
    "#verdict-note",
    ".legend .soft",
    ".place .where",
    ".place .note",
    "[aria-selected=true] .note",
    ".pin",
    ".pin.chosen",
    ".leaflet-control-zoom-in",
    ".map-note",
    "#pair-position",
    "#copy",
    ".when-filled .looks-linked",
    ".foot",
    ".limits h3",
    ".limits .hint",
    ".limits .quiet",
    ".field label",
    "#narrow-words",
    "#narrow-clear",
    "#considered-words",
    "#considered-clear",
    "#map-hint",
)


def _get(url: str) -> bytes:
    with urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def _post(url: str, photo: bytes) -> Any:
    with urlopen(Request(url, photo, {"Content-Type": "image/jpeg"}), timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def tile_host(service_url: str) -> str | None:
    tiles = json.loads(_get(f"{service_url}/v1/info"))["tiles"]
    return urlsplit(tiles["url"]).hostname if tiles else None


@pytest.fixture(scope="module")
def stored_photo(service_url: str) -> bytes:
    places = json.loads(_get(f"{service_url}/v1/places?limit=1000"))["places"]
    image_id = quote(places[len(places) // 2]["image_id"], safe="")
    return _get(f"{service_url}/v1/image?image_id={image_id}&max_side_px=256")


@pytest.fixture
def desk(browser: Browser, service_url: str, tile_host: str | None) -> Iterator[Visit]:
    with visiting(browser, tile_host=tile_host) as visit:
        visit.page.goto(f"{service_url}/")
        visit.page.wait_for_selector("#facts dd")
        yield visit


def test_page_photo_uploaded_shows_services_answer(
    desk: Visit, service_url: str, stored_photo: bytes, tile_host: str | None
) -> None:
    expected = _post(f"{service_url}/v1/query?top_k=5&candidates=100&rerank=true", stored_photo)
    desk.upload("photo.jpg", stored_photo)
    desk.settled()

    options = desk.page.locator("#places [role=option]")
    shown = options.evaluate_all("all => all.map(one => one.dataset.imageId)")
    assert shown == [match["image_id"] for match in expected["matches"]]
    assert len(shown) == 5
    for i, match in enumerate(expected["matches"]):
        words = options.nth(i).inner_text()
        assert f"{match['similarity']:.3f}" in words
        assert str(match["mutual_matches"]) in words
    first = expected["matches"][0]
    assert desk.text("#verdict-place") == f"{first['lat']:.5f}, {first['lon']:.5f}"
    assert expected["model"] in desk.text("#facts")
    assert str(expected["store_version"]) in desk.text("#facts")
    assert desk.page.locator("#map .pin").count() == 5
    assert str(len(shown)) in (desk.page.locator("#status").text_content() or "")
    desk.until(
        "[...document.querySelectorAll('#places img, #samples img')].every((one) => one.naturalWidth > 0)"
    )
    assert desk.strangers(tile_host) == set()
    assert desk.complaints == []


def test_page_times_list_every_stage_and_add_up(desk: Visit, stored_photo: bytes) -> None:
    with desk.page.expect_response(lambda answer: urlsplit(answer.url).path == "/v1/query") as caught:
        desk.upload("photo.jpg", stored_photo)
    timings = caught.value.json()["timings_ms"]
    desk.settled()
    rows = desk.page.eval_on_selector_all(
        "#times li", "all => all.map(o => [o.dataset.stage, +o.dataset.ms])"
    )
    assert [name for name, _ in rows] == ["decode", "extract", "search", "fetch", "rerank", "rest"]
    assert all(milliseconds == timings[name] for name, milliseconds in rows[:-1])
    named = sum(value for name, value in timings.items() if name != "total")
    assert sum(value for _, value in rows) == pytest.approx(max(timings["total"], named))


def test_page_place_clicked_is_chosen_everywhere(desk: Visit, stored_photo: bytes) -> None:
    desk.upload("photo.jpg", stored_photo)
    desk.settled()
    third = desk.page.locator("#places [role=option]").nth(2)
    image_id = third.get_attribute("data-image-id")
    third.click()
    assert desk.chosen() == [image_id] == [desk.text("#pair-id")]
    assert desk.text("#map .pin.chosen") == "3"
    desk.page.locator("#map .pin").nth(0).press("Enter")
    assert desk.text("#map .pin.chosen") == "1"
    assert desk.chosen() != [image_id]


def test_page_arrow_keys_choose_places(desk: Visit, stored_photo: bytes) -> None:
    desk.upload("photo.jpg", stored_photo)
    desk.settled()
    places = desk.page.locator("#places")
    ids = desk.page.eval_on_selector_all(
        "#places [role=option]", "all => all.map(one => one.dataset.imageId)"
    )
    places.focus()
    for key, index in (
        ("ArrowDown", 1),
        ("ArrowDown", 2),
        ("ArrowUp", 1),
        ("End", 4),
        ("ArrowDown", 4),
        ("Home", 0),
    ):
        places.press(key)
        assert desk.chosen() == [ids[index]], key
        assert places.get_attribute("aria-activedescendant") == f"place-{index}"
    assert desk.text("#pair-id") == ids[0]


def test_page_lines_are_the_services_pairs_above_the_slider(
    desk: Visit, service_url: str, stored_photo: bytes
) -> None:
    desk.upload("photo.jpg", stored_photo)
    desk.settled()
    desk.page.locator("#places [role=option]").nth(1).click()
    image_id = quote(desk.text("#pair-id"), safe="")
    pairs = _post(f"{service_url}/v1/matches?image_id={image_id}", stored_photo)["pairs"]
    desk.until(f"document.getElementById('line-count').textContent.includes('of {len(pairs)} ')")
    assert pairs
    lowest, highest = min(pair[4] for pair in pairs), max(pair[4] for pair in pairs)
    floors = [
        math.floor(lowest * 100) / 100,
        round((lowest + highest) / 2, 2),
        math.floor(highest * 100) / 100,
    ]
    counts = []
    for floor in floors:
        desk.page.locator("#floor").fill(f"{floor:.2f}")
        expected = sorted(pair[:4] for pair in pairs if pair[4] >= floor)
        drawn = sorted([line["x1"], line["y1"], line["x2"], line["y2"]] for line in desk.drawn())
        assert len(drawn) == len(expected), f"floor {floor}"
        for line, pair in zip(drawn, expected, strict=True):
            assert line == pytest.approx(pair, abs=0.005), f"floor {floor}"
        counts.append(len(drawn))
    assert counts[0] == len(pairs)
    assert 0 < counts[-1] <= counts[1] <= counts[0]


def test_page_stored_photo_clicked_finds_itself(desk: Visit) -> None:
    sample = desk.page.locator("#samples button").nth(3)
    image_id = sample.get_attribute("data-image-id")
    sample.click()
    desk.settled()
    assert desk.chosen() == [image_id]
    assert "this very photo" in desk.page.locator("#places [role=option]").nth(0).inner_text()
    assert sample.get_attribute("aria-pressed") == "true"


def test_page_settings_changed_ask_again(desk: Visit, stored_photo: bytes) -> None:
    desk.upload("photo.jpg", stored_photo)
    desk.settled()
    desk.page.locator("#top-k").fill("3")
    desk.page.locator("#top-k").press("Tab")
    desk.until("document.querySelectorAll('#places [role=option]').length === 3")
    with desk.page.expect_response(lambda answer: "rerank=auto" in answer.url):
        desk.page.locator("#rerank").select_option("auto")
    with desk.page.expect_response(lambda answer: "rerank=false" in answer.url):
        desk.page.locator("#rerank").select_option("never")
    desk.until("document.querySelector('#places .figure').textContent === '–'")
    # Of each of the three places the mutual matches and the similarity.
    figures = desk.page.locator("#places .figure").all_inner_texts()
    assert figures[::2] == ["–"] * 3
    assert "–" not in figures[1::2]


def test_page_narrowed_shows_how_many_images_were_considered_and_what_is_refused(
    desk: Visit, service_url: str, stored_photo: bytes
) -> None:
    desk.upload("photo.jpg", stored_photo)
    desk.settled()
    first = _post(f"{service_url}/v1/query?top_k=1", stored_photo)["matches"][0]
    near = f"{first['lat']},{first['lon']}"
    considered = _post(f"{service_url}/v1/query?near={near}&radius_m=40", stored_photo)["considered"]
    desk.page.locator("#narrow-title").click()
    for field, value in (("#near-radius", "40"), ("#near", near)):
        desk.page.locator(field).fill(value)
        desk.page.locator(field).press("Enter")
    desk.page.wait_for_selector("#considered", state="visible")
    desk.settled()
    assert f"{considered} of 48 images considered" in desk.text("#considered")
    for field, value, words in (
        ("#near", "here", "give a position such as"),
        ("#heading", "400", "less than or equal to 360"),
        ("#max-wrong", "0.05", "never calibrated"),
    ):
        desk.page.locator(field).fill(value)
        desk.page.locator(field).press("Enter")
        desk.page.wait_for_selector("#error", state="visible")
        assert words in desk.text("#error"), value
        desk.page.locator(field).fill("")
        desk.page.locator(field).press("Enter")
        desk.page.wait_for_selector("#error", state="hidden")
        desk.settled()


def test_page_text_file_is_refused_in_words(desk: Visit, stored_photo: bytes) -> None:
    desk.upload("photo.jpg", stored_photo)
    desk.settled()
    desk.upload("notes.txt", b"These are only words. " * 40, "text/plain")
    desk.page.wait_for_selector("#error", state="visible")
    assert "not a photo" in desk.text("#error")
    assert "not_an_image" in desk.text("#error")
    assert not desk.page.locator("#ranking").is_visible()  # the last photo's answer is not this one's
    desk.upload("photo.jpg", stored_photo)
    desk.settled()
    assert not desk.page.locator("#error").is_visible()


def test_page_on_a_narrow_phone_never_scrolls_sideways(
    browser: Browser, service_url: str, stored_photo: bytes
) -> None:
    width, height = PHONE
    with visiting(browser, width=width, height=height, has_touch=True, is_mobile=True) as visit:
        visit.page.goto(f"{service_url}/")
        visit.page.wait_for_selector("#samples img")
        widths = [visit.page.evaluate("document.documentElement.scrollWidth")]
        visit.upload("a-very-long-name-" * 8 + ".jpg", stored_photo)
        visit.settled()
        widths.append(visit.page.evaluate("document.documentElement.scrollWidth"))
        assert widths == [width, width]
        assert visit.page.evaluate("innerWidth") == width
        tops = visit.page.evaluate(
            "['pair-photo', 'pair-stored'].map(id => document.getElementById(id).getBoundingClientRect().top)"
        )
        assert tops[1] > tops[0] + 50  # one above the other
        assert len(visit.drawn()) > 0


def test_page_colour_schemes_differ_and_both_can_be_read(
    browser: Browser, service_url: str, stored_photo: bytes
) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with visiting(browser, color_scheme=scheme) as visit:
            visit.page.goto(f"{service_url}/")
            visit.upload("photo.jpg", stored_photo)
            visit.settled()
            colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            grounds[scheme] = sum(int(part) for part in re.findall(r"\d+", colour)[:3])
            for selector in READABLE:
                assert contrast(visit.page, selector) >= 4.5, f"{selector} in {scheme}"
    assert grounds["light"] > 600
    assert grounds["dark"] < 150
