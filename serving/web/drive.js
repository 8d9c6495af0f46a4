// A drive: its frames are queried one after the other, joined by the service, and played on the map.

import { ask } from "./api.js";
import { metres, percent, plural, position } from "./words.js";

const SENT = 50; // places per frame that the track is made of
const FRAME_MS = 500; // of the player
const MOST = 1000; // frames that the service joins
const NOT_USABLE = [400, 413, 415, 422]; // statuses by which one frame is refused

/** Frames in the order of the numbers in their names. */
export function inOrder(files) {
  return [...files].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

export class Drive {
  #parts;
  #files = [];
  #frames = [];
  #at = 0;
  #timer = null;
  #url = "";
  #onFrame;

  /** `parts` are elements: panel, image, summary, state, note, slider, count, play; `onFrame(frame)` follows the player. */
  constructor(parts, onFrame) {
    this.#parts = parts;
    this.#onFrame = onFrame;
    parts.slider.addEventListener("input", () => {
      this.stop();
      this.#show(Number(parts.slider.value));
    });
    parts.play.addEventListener("click", () => (this.#timer === null ? this.#play() : this.stop()));
  }

  /** Query all frames and have them joined; returns the track. `onProgress(done, total)` follows. */
  async follow(files, { fps, mostPlaces, signal, onProgress }) {
    const chosen = inOrder(files).slice(0, MOST);
    const answers = [];
    for (const file of chosen) {
      onProgress(answers.length, chosen.length);
      answers.push(await queried(file, Math.min(SENT, mostPlaces), signal));
    }
    onProgress(chosen.length, chosen.length);
    const body = new Blob([JSON.stringify({ frames: answers })], { type: "application/json" });
    const track = await ask("v1/track", { query: fps ? { fps } : {}, body, signal });
    this.stop();
    this.#files = chosen;
    this.#frames = track.frames;
    this.#parts.slider.max = String(Math.max(0, chosen.length - 1));
    const { known, lost, unsure } = track.summary;
    this.#parts.summary.textContent =
      `${plural(chosen.length, "frame", "frames")}: ${known} known, ${lost} lost, ${unsure} unsure`;
    this.#parts.panel.hidden = false;
    this.#show(0);
    return track;
  }

  hide() {
    this.stop();
    this.#parts.panel.hidden = true;
    this.#frames = [];
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#parts.play.textContent = "Play";
  }

  #play() {
    if (this.#at >= this.#frames.length - 1) this.#show(0);
    this.#parts.play.textContent = "Pause";
    this.#timer = setInterval(() => {
      if (this.#at >= this.#frames.length - 1) this.stop();
      else this.#show(this.#at + 1);
    }, FRAME_MS);
  }

  #show(at) {
    const { image, state, note, slider, count } = this.#parts;
    const [frame, file] = [this.#frames[at], this.#files[at]];
    if (!frame) return;
    this.#at = at;
    slider.value = String(at);
    count.textContent = `${at + 1} of ${this.#frames.length}`;
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(file);
    image.src = this.#url;
    image.alt = `Frame ${at + 1}, ${file.name}`;
    state.textContent = stateWords(frame);
    state.dataset.state = frame.state;
    note.textContent = frame.error ? frame.error.message : noteWords(frame, file.name);
    this.#onFrame(frame);
  }
}

async function queried(file, places, signal) {
  try {
    const answer = await ask("v1/query", { query: { top_k: places }, body: file, signal });
    return { store_version: answer.store_version, matches: answer.matches };
  } catch (error) {
    if (NOT_USABLE.includes(error.status)) return null;
    throw error;
  }
}

function stateWords(frame) {
  if (frame.state === "lost") return "Outside of the store’s places";
  const where = frame.position && position(frame.position);
  if (!where) return "Nowhere yet";
  return frame.state === "known" ? where : `Perhaps ${where}`;
}

function noteWords(frame, name) {
  if (frame.state === "lost") return `${name}, lost: ${percent(frame.lost)}`;
  const radius = frame.radius_m === null ? "" : `, within ${metres(frame.radius_m)} with 90 %`;
  return `${name}, ${percent(frame.probability)}${radius}`;
}
