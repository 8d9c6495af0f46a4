// The page: takes a photo, sends a query and shows the result.

import { ServiceError, ask, setToken } from "./api.js";
import { CityMap, mapKind } from "./citymap.js";
import { Drive } from "./drive.js";
import { showError, showWaiting } from "./notice.js";
import { PairView } from "./pair.js";
import { fetchSample, listenForPhotos, showSamples, smallerCopy } from "./photo.js";
import { PriorCircle } from "./prior.js";
import { Ranking } from "./ranking.js";
import { showTimes } from "./times.js";
import { bytes, calibrationNote, distanceM, element, metres, milliseconds, plural, position, positionToCopy, sentence, shortName, verdict, whole } from "./words.js";

const NEAR_M = 50;
const NOTHING_LEFT = { label: "Nothing to search", text: "No stored image lies in the circle" };
// While an arrow key is held down, lines are not requested for every place passed.
const CHOICE_SETTLES_MS = 120;

const $ = (id) => document.getElementById(id);
const state = { info: null, places: [], map: null, photo: null, answer: null, pairs: new Map(), turn: 0 };
const NEEDS_TOKEN = [401, 403]; // none or an invalid one; one of another role
let asking = new AbortController();
let matching = new AbortController();

const ranking = new Ranking($("places"), (index) => choose(index));
const pair = new PairView({
  stage: $("pair-stage"), photo: $("pair-photo"), stored: $("pair-stored"), lines: $("lines"),
  floor: $("floor"), count: $("line-count"), low: $("ramp-low"), high: $("ramp-high"), note: $("pair-note"),
});

const drive = new Drive(
  {
    panel: $("drive"), image: $("drive-image"), summary: $("drive-summary"), state: $("drive-state"), note: $("drive-note"),
    slider: $("drive-slider"), count: $("drive-count"), play: $("drive-play"),
  },
  (frame) => state.map?.showFrame(frame),
);
const prior = new PriorCircle(
  {
    panel: $("prior"), draw: $("prior-draw"), clear: $("prior-clear"), radius: $("prior-radius"),
    meaning: $("prior-meaning"), note: $("prior-note"),
  },
  () => state.photo && query(),
);

function say(text) {
  $("status").textContent = text;
}

function fail(error, again) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ServiceError)) throw error;
  $("main").classList.remove("waiting");
  if (NEEDS_TOKEN.includes(error.status)) {
    showTokenForm(error);
    return;
  }
  const copy = state.photo && again === query ? sendCopy : null;
  showError($("error"), error, { again, copy });
}

// The store

async function start() {
  try {
    await readStore();
    $("error").hidden = true;
    $("token-form").hidden = true;
    if (state.photo) await query();
  } catch (error) {
    fail(error, start);
  }
}

async function readStore() {
  const [info, places] = await Promise.all([ask("v1/info"), ask("v1/places", { query: { limit: 1000 } })]);
  state.info = info;
  state.places = places.places;
  $("top-k").max = String(info.max_top_k ?? 50);
  $("candidates").max = String(info.max_candidates ?? 1000);
  if (info.candidates) $("candidates").value = String(info.candidates);
  showFacts(info.rows, info.store_version, info.model);
  showStore(places.total);
}

/** Reload the places after the store has grown. */
async function followStore() {
  try {
    await readStore();
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    // The result stays; the places are reloaded with the next one.
  }
}

function showFacts(rows, version, model) {
  const facts = [["Images", whole(rows)], ["Store version", whole(version)], ["Model", model]];
  $("facts").replaceChildren(
    ...facts.map(([name, value]) => element("div", "", null, element("dt", "", name), element("dd", "numbers", value))),
  );
}

function showStore(total) {
  $("samples-panel").hidden = state.places.length === 0;
  showSamples($("samples"), state.places, state.turn, askAboutStored);
  markSample();
  const kind = mapKind(state.places);
  $("map-panel").hidden = kind === null;
  $("no-map").hidden = kind !== null;
  if (total === 0) $("no-map").textContent = "This store holds no images yet. Add some with placeray index.";
  if (kind === null) return;
  state.map ??= new CityMap($("map"), $("map-note"), {
    kind, tiles: state.info.tiles, onChoose: (index) => ranking.choose(index),
  });
  state.map.showPlaces(state.places);
  prior.attach(state.map);
  const shown = state.places.length;
  $("map-count").textContent =
    shown < total ? `${whole(shown)} of the store’s ${whole(total)} images` : `The store’s ${plural(total, "image", "images")}`;
  if (!state.answer) say(`${plural(total, "image", "images")} in the store.`);
}

function showTokenForm(error) {
  const tried = $("token-form").dataset.tried === "yes";
  $("token-note").textContent = tried ? sentence(error.message) : "Stored in this tab until it is closed.";
  $("token-form").hidden = false;
  $("token").focus();
  say("This service needs a token.");
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!setToken($("token").value)) {
    $("token-note").textContent = "A token has only letters, digits and punctuation, no spaces. Copy it again.";
    return;
  }
  $("token-form").dataset.tried = "yes";
  $("token").value = "";
  start();
});

// The photo

async function askAboutStored(place) {
  asking.abort();
  asking = new AbortController();
  try {
    const blob = await fetchSample(place, asking.signal);
    await takePhoto(blob, { name: "the store’s own photo", place });
  } catch (error) {
    if (error.name !== "AbortError") forgetAnswer();
    fail(error, () => askAboutStored(place));
  }
}

async function takePhoto(blob, { name = blob.name ?? "pasted photo", place = null } = {}) {
  if (state.photo) URL.revokeObjectURL(state.photo.url);
  state.photo = { blob, name, place, url: URL.createObjectURL(blob) };
  markSample();
  const preview = $("preview");
  const note = $("drop-note");
  const size = element("span", "soft", bytes(blob.size));
  note.replaceChildren(element("span", "file-name", name), size);
  note.title = name;
  note.hidden = false;
  preview.hidden = false;
  preview.onload = () => {
    size.textContent = `${preview.naturalWidth} × ${preview.naturalHeight}, ${bytes(blob.size)}`;
  };
  preview.onerror = () => {
    preview.hidden = true; // the error of the service explains what is wrong
  };
  preview.src = state.photo.url;
  $("drop").classList.add("filled");
  await query();
}

function markSample() {
  for (const sample of $("samples").children) {
    sample.setAttribute("aria-pressed", String(sample.dataset.imageId === state.photo?.place?.image_id));
  }
}

async function sendCopy() {
  const { blob, name, place } = state.photo;
  const copy = await smallerCopy(blob);
  if (copy === null) {
    const advice = "This browser cannot read the photo either. Convert it to JPEG, then choose it again.";
    showError($("error"), new ServiceError("not_an_image", advice), {});
    return;
  }
  await takePhoto(copy, { name: `copy of ${name}`, place });
}

async function query() {
  asking.abort();
  if (!$("options").reportValidity()) {
    forgetAnswer();
    return;
  }
  asking = new AbortController();
  matching.abort();
  forgetDrive();
  const { signal } = asking;
  const { blob } = state.photo;
  const limit = state.info?.max_body_bytes;
  if (limit && blob.size > limit) {
    forgetAnswer();
    const advice = `It was not sent: it has ${bytes(blob.size)}, and the service accepts ${bytes(limit)} at most. Send a smaller copy.`;
    fail(new ServiceError("body_too_large", advice), query);
    return;
  }
  $("main").classList.add("waiting");
  $("error").hidden = true;
  say("Searching.");
  const options = {
    top_k: $("top-k").value || 5, candidates: $("candidates").value || 100, rerank: $("rerank").checked,
    ...prior.parameters,
  };
  const started = performance.now();
  try {
    let asked = started;
    const answer = await ask("v1/query", {
      query: options, body: blob, signal,
      onWait: (left, error) => {
        asked = performance.now() + 1000;
        say(left === Math.ceil(error.retryAfterS) ? `Busy; trying again in ${left} seconds.` : "");
        showWaiting($("error"), error, left);
      },
    });
    $("error").hidden = true;
    $("main").classList.remove("waiting");
    showAnswer(answer, performance.now() - asked);
  } catch (error) {
    if (error.name !== "AbortError") forgetAnswer();
    fail(error, query);
  }
}

function forgetAnswer() {
  state.answer = null;
  matching.abort();
  for (const id of ["headline", "ranking", "pair"]) $(id).hidden = true;
  $("main").classList.remove("answered", "waiting");
  state.map?.showRanked([]);
}

// A drive

async function follow(files) {
  asking.abort();
  if (!$("drive-ask").reportValidity()) return;
  asking = new AbortController();
  forgetDrive();
  forgetAnswer();
  $("error").hidden = true;
  $("main").classList.add("waiting");
  const button = $("drive-choose").firstChild;
  const words = button.textContent;
  const onProgress = (done, total) => {
    button.textContent = done < total ? `Frame ${done + 1} of ${total} ` : "Joining the frames ";
    if (done % 10 === 0) say(`Frame ${done + 1} of ${total}.`);
  };
  try {
    const options = { fps: $("drive-fps").value, mostPlaces: state.info?.max_top_k ?? 50, signal: asking.signal, onProgress };
    const track = await drive.follow(files, options);
    $("main").classList.remove("waiting");
    $("main").classList.add("answered");
    state.map?.showTrack(track.frames);
    say(`${$("drive-summary").textContent}.`);
    bringIntoView($("drive"));
  } catch (error) {
    fail(error, () => follow(files));
  } finally {
    button.textContent = words;
  }
}

function forgetDrive() {
  drive.hide();
  state.map?.showTrack([]);
}

// The result

function showAnswer(answer, roundTripMs) {
  state.answer = answer;
  state.pairs.clear();
  const { matches } = answer;
  const own = state.photo.place;
  $("main").classList.add("answered");
  for (const id of ["headline", "ranking"]) $(id).hidden = false;
  $("degraded").hidden = !answer.degraded;
  showFacts(state.info?.rows ?? 0, answer.store_version, answer.model);
  showVerdict(answer);
  showTimes($("times"), answer.timings_ms, roundTripMs);
  ranking.show(matches, own?.image_id);
  $("pair").hidden = matches.length === 0;
  state.map?.showRanked(matches, own, answer.place);
  if (matches.length > 0) ranking.choose(0);
  const first = matches[0];
  say(
    first
      ? `${plural(matches.length, "place", "places")} found in ${milliseconds(answer.timings_ms.total)}. ` +
          `The first: ${position(first) ?? shortName(first.image_id)}.`
      : `No place found: ${answer.considered === 0 ? "no stored image lies in the circle" : "the store holds no images"}.`,
  );
  bringIntoView($("headline"));
  if (state.info && answer.store_version !== state.info.store_version) followStore();
}

function showVerdict({ matches, place, calibration, considered }) {
  const [first, ...others] = matches;
  const { label, text } = considered === 0 ? NOTHING_LEFT : verdict(place, first, considered !== undefined);
  $("verdict-label").textContent = label;
  $("verdict-place").textContent = text;
  $("headline").classList.toggle("unknown", place?.known === false);
  const near = others.filter((other) => (distanceM(first, other) ?? Infinity) <= NEAR_M).length;
  let note = "";
  if (first && first.mutual_matches !== null) note = plural(first.mutual_matches, "mutual match", "mutual matches");
  if (first && first.score_kind === "votes") note = `${first.score.toFixed(1)} votes of ${note}`;
  if (first) note += `${note ? ", " : ""}similarity ${first.similarity.toFixed(3)}`;
  if (place?.radius_m != null && place.known !== false) note = `within ${metres(place.radius_m)} with 90 %; ${note}`;
  if (others.length > 0 && position(first)) note += `; ${near} of the other ${others.length} within ${NEAR_M} m`;
  if (considered) note += `; ${plural(considered, "image", "images")} considered`;
  const none = considered === 0 ? "Draw a larger circle, or clear it." : "The store holds no images yet.";
  $("verdict-note").textContent = first ? note : none;
  const doubt = calibrationNote(calibration);
  $("verdict-calibration").textContent = doubt ?? "";
  $("verdict-calibration").hidden = !first || doubt === null;
}

/** On a narrow screen the result is below the photo: scroll there. */
function bringIntoView(target) {
  if (target.getBoundingClientRect().top < window.innerHeight * 0.7) return;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

function choose(index) {
  const match = state.answer.matches[index];
  state.map?.choose(index);
  $("pair-title").textContent = `Photo and no. ${match.rank}`;
  $("pair-position").textContent = position(match) ?? "no position";
  $("pair-stored-name").textContent = `No. ${match.rank} in the store`;
  $("pair-id").textContent = match.image_id;
  $("pair-id").title = match.uri ?? "";
  $("copy").hidden = position(match) === null;
  $("copy").textContent = "Copy position";
  $("copy").dataset.position = position(match) === null ? "" : positionToCopy(match);
  pair.show(state.photo.url, match.image_id);
  matching.abort();
  matching = new AbortController();
  showPairs(match.image_id, matching.signal);
}

async function showPairs(imageId, signal) {
  const { answer, pairs, photo } = state;
  try {
    if (!pairs.has(imageId)) {
      await new Promise((resolve) => setTimeout(resolve, CHOICE_SETTLES_MS));
      if (signal.aborted) return;
      const response = await ask("v1/matches", { query: { image_id: imageId }, body: photo.blob, signal });
      if (state.answer !== answer) return;
      pairs.set(imageId, response);
    }
    const lines = pairs.get(imageId);
    if (!signal.aborted) pair.setPairs(lines.pairs, lines.agree);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ServiceError)) throw error;
    if (NEEDS_TOKEN.includes(error.status)) showTokenForm(error);
    pair.note(`The lines cannot be shown. ${sentence(error.message)}`);
  }
}

async function copyPosition() {
  const button = $("copy");
  const text = button.dataset.position;
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // There is no clipboard without HTTPS: select the text, so that Ctrl+C copies it.
    $("pair-position").textContent = text;
    getSelection().selectAllChildren($("pair-position"));
    copied = false;
  }
  button.textContent = copied ? "Copied" : "Selected";
  say(copied ? `${text} copied.` : `${text} selected.`);
  setTimeout(() => (button.textContent = "Copy position"), 1500);
}

// Events

listenForPhotos({ input: $("file"), drop: $("drop"), veil: $("veil") }, (file) => takePhoto(file), follow);
$("drive-files").addEventListener("change", () => {
  const files = [...$("drive-files").files];
  $("drive-files").value = "";
  if (files.length > 0) follow(files);
});
$("drive-ask").addEventListener("submit", (event) => event.preventDefault());
$("copy").addEventListener("click", copyPosition);
$("more").addEventListener("click", () => {
  state.turn += 1;
  showSamples($("samples"), state.places, state.turn, askAboutStored);
  markSample();
});
$("options").addEventListener("submit", (event) => event.preventDefault());
$("options").addEventListener("change", () => {
  $("candidates").disabled = !$("rerank").checked;
  if (state.photo) query();
});
start();
