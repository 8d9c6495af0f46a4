"""The page in a headless Chromium, with canned answers: what a healthy service with positions never shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.canned_service import PLACES, CannedService, drawn_photo
from tests.support.page_browser import Visit, visiting

PHONE = (360, 740)
HOSTILE_ID = "<img src=x onerror=\"document.title='owned'\">/" + "long" * 60 + ".jpg"
DROP_OR_PASTE = """([bytes, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "handed.jpg", { type: "image/jpeg" }));
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(kind === "paste"
    ? new ClipboardEvent("paste", { ...options, clipboardData: data })
    : new DragEvent("drop", { ...options, dataTransfer: data }));
}"""


@pytest.fixture
def canned(browser: Browser, service_url: str) -> Iterator[tuple[Visit, CannedService]]:
    """A page not opened yet, and the service that will answer it."""
    with visiting(browser) as visit:
        yield visit, CannedService().install(visit.page)


def _open(visit: Visit, service_url: str, *, photo: bool = True) -> None:
    visit.page.goto(f"{service_url}/")
    visit.page.wait_for_selector("#facts dd")
    if photo:
        visit.upload("photo.jpg", drawn_photo())


def test_page_busy_service_is_asked_once_more_after_the_wait(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.refusals = [(503, "overloaded", {"Retry-After": "1"})]
    _open(visit, service_url)
    visit.page.wait_for_selector(".seconds-left")
    assert "busy" in visit.text("#error")
    visit.settled()
    assert len(service.queries()) == 2
    assert not visit.page.locator("#error").is_visible()


def test_page_busy_service_twice_offers_to_try_again(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.refusals = [(503, "overloaded", {"Retry-After": "1"})] * 2
    _open(visit, service_url)
    visit.page.get_by_role("button", name="Try again").click()
    visit.settled()
    assert len(service.queries()) == 3


def test_page_service_gone_says_so(canned: tuple[Visit, CannedService], service_url: str) -> None:
    visit, _ = canned
    _open(visit, service_url, photo=False)
    visit.page.route("**/v1/query?*", lambda route: route.abort())
    visit.upload("photo.jpg", drawn_photo())
    visit.page.wait_for_selector("#error", state="visible")
    assert "cannot be reached" in visit.text("#error")
    assert visit.page.get_by_role("button", name="Try again").is_visible()


def test_page_token_is_asked_for_kept_and_sent_with_images(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.token = "s3cret"
    visit.page.goto(f"{service_url}/")
    visit.page.locator("#token").fill("wrong")
    visit.page.locator("#token").press("Enter")
    visit.until("document.getElementById('token-note').textContent.includes('unauthorized')")
    visit.page.locator("#token").fill("s3cret")
    visit.page.locator("#token").press("Enter")
    visit.page.wait_for_selector("#facts dd")
    assert not visit.page.locator("#token-form").is_visible()
    visit.upload("photo.jpg", drawn_photo())
    visit.settled()
    visit.until("document.getElementById('pair-stored').naturalWidth > 0")
    sources = visit.page.eval_on_selector_all("#samples img, #places img", "all => all.map(one => one.src)")
    assert len(sources) == PLACES + 5
    assert all(source.startswith("blob:") for source in sources)
    visit.page.reload()
    visit.page.wait_for_selector("#facts dd")
    assert not visit.page.locator("#token-form").is_visible()


def test_page_places_in_metres_are_drawn_on_a_plane(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.kind = "metres"
    _open(visit, service_url)
    visit.settled()
    assert "601000 E, 5339000 N" in visit.text("#verdict-place")
    assert visit.page.locator("#map .pin").count() == 5
    assert "49 m from no. 1" in visit.page.locator("#places [role=option]").nth(1).inner_text()
    boxes = [visit.page.locator("#map .pin").nth(i).bounding_box() for i in (0, 4)]
    assert boxes[0]
    assert boxes[1]
    east, north = boxes[1]["x"] - boxes[0]["x"], boxes[0]["y"] - boxes[1]["y"]
    assert east > 0
    assert north / east == pytest.approx(2, rel=0.1)  # 44 m north for 22 m east
    assert visit.complaints == []


def test_page_store_without_positions_has_no_map(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.kind = "none"
    _open(visit, service_url)
    visit.settled()
    assert not visit.page.locator("#map").is_visible()
    assert "no positions" in visit.text("#no-map")
    assert not visit.page.locator("#copy").is_visible()
    assert len(visit.drawn()) == len(service.pairs())


def test_page_hostile_image_id_stays_text(canned: tuple[Visit, CannedService], service_url: str) -> None:
    visit, service = canned
    service.image_ids = [HOSTILE_ID]
    service.kind = "none"  # then the id is what stands for a place
    visit.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    _open(visit, service_url)
    visit.settled()
    assert visit.text("#pair-id") == HOSTILE_ID
    assert "owned" not in visit.page.title()
    assert visit.page.locator("img[src=x]").count() == 0
    assert visit.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_page_degraded_answer_carries_a_warning(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.answer = {"degraded": True}
    _open(visit, service_url)
    visit.settled()
    assert "could not be read" in visit.text("#degraded")
    service.answer = {}
    visit.upload("photo.jpg", drawn_photo())
    visit.page.wait_for_selector("#degraded", state="hidden")


PROMISED = {
    "exists": True,
    "valid": True,
    "reason": None,
    "guaranteed": True,
    "max_wrong": 0.1,
    "confidence": 0.9,
}
INVALID = (
    "its calibration is not valid any more: it was made for other conditions: candidates 100 instead of 50"
)
FILTERED = "a filter or a prior changed what was searched"


@pytest.mark.parametrize(
    ("known", "calibration", "words"),
    [
        (True, {}, "Known: at most 10 % of the answers called known are wrong, with a confidence of 90 %."),
        (False, {}, "Not known: its probability does not suffice for at most 10 % wrong answers."),
        (
            True,
            {"guaranteed": False, "reason": FILTERED},
            f"Known, as an estimate: not guaranteed, since {FILTERED}.",
        ),
        (None, {"valid": False, "guaranteed": False, "reason": INVALID}, f"Not calibrated: {INVALID}."),
        (None, {"exists": False, "valid": False, "reason": "it was never calibrated"}, ""),
    ],
)
def test_page_says_what_the_calibration_of_the_store_promises(
    canned: tuple[Visit, CannedService],
    service_url: str,
    known: bool | None,
    calibration: dict[str, object],
    words: str,
) -> None:
    visit, service = canned
    place = {"position": service.places()[0], "radius_m": 5.0, "probability_right": 0.97, "known": known}
    service.answer = {"place": place, "calibration": PROMISED | calibration}
    _open(visit, service_url)
    visit.settled()
    assert visit.text("#verdict-calibration") == words
    assert visit.page.evaluate("document.documentElement.scrollWidth") == visit.page.evaluate("innerWidth")
    unknown = "Not in this city, or not recognisable"
    assert visit.text("#verdict-place") == (unknown if known is False else "48.20000, 16.36000")


def test_page_too_large_photo_is_not_sent_but_a_smaller_copy_is(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.info = {"max_body_bytes": 20_000}
    _open(visit, service_url, photo=False)
    visit.upload("photo.jpg", drawn_photo() + bytes(30_000))
    visit.page.wait_for_selector("#error", state="visible")
    assert "20 kB at most" in visit.text("#error")
    assert service.queries() == []
    visit.page.get_by_role("button", name="Send a smaller copy").click()
    visit.settled()
    (sent,) = service.queries()
    assert sent.startswith(b"\xff\xd8")
    assert len(sent) <= 20_000


def test_page_turned_photo_is_shown_upright(canned: tuple[Visit, CannedService], service_url: str) -> None:
    visit, _ = canned
    _open(visit, service_url, photo=False)
    visit.upload("photo.jpg", drawn_photo(64, 48, orientation=6))
    visit.settled()
    box = visit.page.locator("#pair-photo").bounding_box()
    assert box
    assert box["height"] / box["width"] == pytest.approx(64 / 48, rel=0.02)
    assert "48 × 64" in visit.text("#drop-note")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_page_photo_handed_over_is_asked_about(
    canned: tuple[Visit, CannedService], service_url: str, kind: str
) -> None:
    visit, service = canned
    _open(visit, service_url, photo=False)
    photo = drawn_photo()
    visit.page.evaluate(DROP_OR_PASTE, [list(photo), kind])
    visit.settled()
    assert service.queries() == [photo]


def test_page_store_that_grew_is_read_again(canned: tuple[Visit, CannedService], service_url: str) -> None:
    visit, service = canned
    _open(visit, service_url)
    visit.settled()
    assert sum(path == "/v1/places" for path, _, _ in service.received) == 1
    service.answer = {"store_version": 8}
    service.info = {"store_version": 8, "rows": 1234}
    visit.upload("photo.jpg", drawn_photo())
    visit.until("document.getElementById('facts').textContent.includes('1,234')")
    assert visit.page.locator("#map .pin").count() == 5
    assert sum(path == "/v1/places" for path, _, _ in service.received) == 2


def test_page_older_answer_never_replaces_a_newer_one(
    canned: tuple[Visit, CannedService], service_url: str
) -> None:
    visit, service = canned
    service.refusals = [(503, "overloaded", {"Retry-After": "2"})]
    _open(visit, service_url)
    visit.page.wait_for_selector(".seconds-left")
    newer = drawn_photo(80, 40)
    visit.upload("newer.jpg", newer)
    visit.settled()
    visit.page.wait_for_timeout(2500)  # enough for a retry of the first photo
    assert service.queries() == [drawn_photo(), newer]
    assert "newer.jpg" in visit.text("#drop-note")


def test_page_position_is_copied_for_links(canned: tuple[Visit, CannedService], service_url: str) -> None:
    visit, _ = canned
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _open(visit, service_url)
    visit.settled()
    visit.page.locator("#places").press("ArrowDown")
    visit.page.locator("#copy").click()
    visit.until("document.getElementById('copy').textContent === 'Copied'")
    assert visit.page.evaluate("navigator.clipboard.readText()") == "48.2004,16.3603"
