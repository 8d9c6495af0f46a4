// Where a photo was probably taken, how sure that is, and among how many images it was searched.

import { distanceM, metres, percent, plural, position, sentence, shortName, whole } from "./words.js";

const NEAR_M = 50;

/**
 * Show the place of an answer.
 * @param {object} parts - Elements: panel, label, place, note, state, considered and its words.
 * @param {object} answer - Of the service.
 * @param {number} rows - How many images the store holds.
 */
export function showVerdict(parts, answer, rows) {
  const { matches, place, calibration, considered } = answer;
  const first = matches[0];
  const { label, text } = verdict(place, first, considered);
  parts.label.textContent = label;
  parts.place.textContent = text;
  parts.panel.classList.toggle("unknown", place?.known === false);
  parts.note.textContent = first ? evidence(answer) : nothing(considered);
  const state = first ? stateOf(place, calibration) : null;
  parts.state.textContent = state ?? "";
  parts.state.hidden = state === null;
  parts.considered.hidden = considered === undefined;
  parts.words.textContent = considered === undefined ? "" : consideredWords(considered, rows);
}

/** A sentence on an answer for a screen reader. */
export function spoken({ matches, considered }, time) {
  const first = matches[0];
  if (!first) return `No place found. ${nothing(considered)}`;
  const of = considered === undefined ? "" : ` among ${plural(considered, "image", "images")}`;
  return `${plural(matches.length, "place", "places")} found${of} in ${time}. The first: ${position(first) ?? shortName(first.image_id)}.`;
}

function verdict(place, first, considered) {
  if (considered === 0) return { label: "Nothing to search", text: "No stored image fits" };
  if (place?.known === false) {
    const where = considered === undefined ? "Not in this city" : "Not among the images considered";
    return { label: "Probably not here", text: `${where}, or not recognisable` };
  }
  const where = place?.position && position(place.position);
  if (where) {
    const right = place.probability_right;
    const label = right === null || right === undefined ? "Most likely taken at" : `Probably here: ${percent(right)}`;
    return { label, text: where };
  }
  if (!first) return { label: "Most similar", text: "No place found" };
  const at = position(first);
  return { label: at ? "Most likely taken at" : "Most similar", text: at ?? shortName(first.image_id) };
}

function nothing(considered) {
  return considered === 0 ? "Widen what is set under “Narrow down”, or clear it." : "The store holds no images yet.";
}

function evidence({ matches: [first, ...others], place }) {
  const notes = [];
  if (place?.radius_m != null && place.known !== false) notes.push(`within ${metres(place.radius_m)} with 90 %`);
  const signs = [`similarity ${first.similarity.toFixed(3)}`];
  if (first.mutual_matches !== null) {
    const counted = plural(first.mutual_matches, "mutual match", "mutual matches");
    signs.unshift(first.score_kind === "votes" ? `${first.score.toFixed(1)} votes of ${counted}` : counted);
  }
  notes.push(signs.join(", "));
  if (others.length > 0 && position(first)) {
    const near = others.filter((other) => (distanceM(first, other) ?? Infinity) <= NEAR_M).length;
    notes.push(`${near} of the other ${others.length} within ${NEAR_M} m`);
  }
  return notes.join("; ");
}

/** What the calibration of the store says about an answer; null: nothing. */
function stateOf(place, calibration) {
  if (!calibration?.exists) return null;
  if (!calibration.valid) return sentence(`Not calibrated: ${calibration.reason}`);
  const known = { true: "Known", false: "Not known" }[place?.known];
  if (!calibration.guaranteed) {
    const words = known ? `${known}, as an estimate: not guaranteed` : "Not guaranteed";
    return sentence(`${words}, since ${calibration.reason}`);
  }
  if (!known) return null;
  const share = `${Number((100 * calibration.max_wrong).toFixed(1))} %`;
  return place.known
    ? `Known: at most ${share} of the answers called known are wrong, with a confidence of ${percent(calibration.confidence)}.`
    : `Not known: its probability does not suffice for at most ${share} wrong answers.`;
}

function consideredWords(considered, rows) {
  const of = rows >= considered ? ` of ${whole(rows)}` : "";
  return `${whole(considered)}${of} ${considered === 1 && !of ? "image" : "images"} considered`;
}
