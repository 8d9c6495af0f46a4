// The page: takes a photo, sends a query and shows the result.

import { ServiceError, ask, setToken } from "./api.js";
import { ChosenPlace } from "./chosen.js";
import { CityMap, mapKind } from "./citymap.js";
import { Drive } from "./drive.js";
import { Narrowing } from "./narrow.js";
import { showError, showWaiting } from "./notice.js";
import { fetchSample, listenForPhotos, showSamples, smallerCopy } from "./photo.js";
import { Ranking } from "./ranking.js";
import { showTimes } from "./times.js";
import { showVerdict, spoken } from "./verdict.js";
import { bytes, element, milliseconds, plural, sentence, whole } from "./words.js";

const $ = (id) => document.getElementById(id);
const state = { info: null, places: [], map: null, photo: null, answer: null, turn: 0 };
const NEEDS_TOKEN = [401, 403]; // none or an invalid one; one of another role
let asking = new AbortController();
let refusedFile = false; // whether the error shown is of a file that was not sent

const ranking = new Ranking($("places"), (index) => choose(index));
const chosen = new ChosenPlace(
  {
    panel: $("pair"), title: $("pair-title"), position: $("pair-position"), name: $("pair-stored-name"), id: $("pair-id"),
    copy: $("copy"),
    view: {
      stage: $("pair-stage"), photo: $("pair-photo"), stored: $("pair-stored"), lines: $("lines"),
      floor: $("floor"), count: $("line-count"), low: $("ramp-low"), high: $("ramp-high"), note: $("pair-note"),
    },
  },
  { onRefused: (error) => NEEDS_TOKEN.includes(error.status) && showTokenForm(error), onCopied: say },
);

const drive = new Drive(
  {
    panel: $("drive"), image: $("drive-image"), summary: $("drive-summary"), state: $("drive-state"), note: $("drive-note"),
    slider: $("drive-slider"), count: $("drive-count"), play: $("drive-play"),
  },
  (frame) => state.map?.showFrame(frame),
);
const narrowing = new Narrowing(
  {
    form: $("narrow-form"), line: $("narrow-set"), words: $("narrow-words"), clear: $("narrow-clear"),
    near: { place: $("near"), size: $("near-radius"), draw: $("near-draw") },
    area: { file: $("area-file"), words: $("area-words"), remove: $("area-remove") },
    heading: $("heading"), tolerance: $("heading-tolerance"), after: $("taken-after"), before: $("taken-before"),
    tags: $("tags"),
    prior: { place: $("prior"), size: $("prior-sigma"), draw: $("prior-draw") },
  },
  {
    onChange: () => {
      if (refusedFile) $("error").hidden = true;
      refusedFile = false;
      if (state.photo) query();
    },
    onRefused: (message) => {
      refusedFile = true;
      showError($("error"), new ServiceError("bad_parameter", message), {});
    },
  },
);

const verdictParts = {
  panel: $("headline"), label: $("verdict-label"), place: $("verdict-place"), note: $("verdict-note"),
  state: $("verdict-calibration"), considered: $("considered"), words: $("considered-words"),
};

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
  state.map ??= new CityMap($("map"), { note: $("map-note"), hint: $("map-hint") }, {
    kind, tiles: state.info.tiles, onChoose: (index) => ranking.choose(index),
  });
  state.map.showPlaces(state.places);
  narrowing.attach(state.map);
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
  chosen.stop();
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
  refusedFile = false;
  say("Searching.");
  const options = {
    top_k: $("top-k").value || 5, candidates: $("candidates").value || 100, rerank: $("rerank").value,
    ...($("max-wrong").value.trim() && { max_wrong: $("max-wrong").value.trim() }),
    ...narrowing.parameters,
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
  chosen.hide();
  for (const id of ["headline", "ranking"]) $(id).hidden = true;
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
    $("drive-unnarrowed").hidden = !narrowing.isSet;
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
  const { matches } = answer;
  const own = state.photo.place;
  const rows = state.info?.rows ?? 0;
  $("main").classList.add("answered");
  $("headline").hidden = false;
  $("ranking").hidden = matches.length === 0;
  $("degraded").hidden = !answer.degraded;
  showFacts(rows, answer.store_version, answer.model);
  showVerdict(verdictParts, answer, rows);
  showTimes($("times"), answer.timings_ms, roundTripMs);
  ranking.show(matches, own?.image_id);
  chosen.begin(state.photo, matches.length > 0);
  state.map?.showRanked(matches, own, answer.place);
  if (matches.length > 0) ranking.choose(0);
  say(spoken(answer, milliseconds(answer.timings_ms.total)));
  bringIntoView($("headline"));
  if (state.info && answer.store_version !== state.info.store_version) followStore();
}

/** On a narrow screen the result is below the photo: scroll there. */
function bringIntoView(target) {
  if (target.getBoundingClientRect().top < window.innerHeight * 0.7) return;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

function choose(index) {
  state.map?.choose(index);
  chosen.show(state.answer.matches[index]);
}

// Events

listenForPhotos({ input: $("file"), drop: $("drop"), veil: $("veil") }, (file) => takePhoto(file), follow);
$("drive-files").addEventListener("change", () => {
  const files = [...$("drive-files").files];
  $("drive-files").value = "";
  if (files.length > 0) follow(files);
});
$("drive-ask").addEventListener("submit", (event) => event.preventDefault());
$("considered-clear").addEventListener("click", () => narrowing.clear());
$("more").addEventListener("click", () => {
  state.turn += 1;
  showSamples($("samples"), state.places, state.turn, askAboutStored);
  markSample();
});
$("options").addEventListener("submit", (event) => event.preventDefault());
$("options").addEventListener("change", () => {
  $("candidates").disabled = $("rerank").value === "false";
  if (state.photo) query();
});
start();
