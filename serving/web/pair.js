// The photo and a stored image side by side, with lines between their matched features.

import { showImage } from "./api.js";
import { whole } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const STORED_PX = 960;
// A dense model matches thousands of cells; at first only the strongest are shown.
const FIRST_LOOK = 120;
// Low to high similarity; visible on any photo, and distinguishable with red-green colour blindness.
const RAMP = [[104, 132, 255], [64, 208, 190], [255, 226, 84]];
// Matches that do not agree on a displacement with the others.
const SCATTERED = "rgb(150 154 160)";

export class PairView {
  #at;
  #pairs = [];
  #span = [0, 1];

  /** `at` holds the elements: stage, photo, stored, lines, floor, count, low, high, note. */
  constructor(at) {
    this.#at = at;
    at.floor.addEventListener("input", () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(at.stage);
    for (const img of [at.photo, at.stored]) img.addEventListener("load", () => this.#fit());
  }

  /** Show the two images; lines come with `setPairs`. */
  show(photoUrl, imageId) {
    const { photo, stored } = this.#at;
    if (photo.getAttribute("src") !== photoUrl) photo.src = photoUrl;
    this.#pairs = [];
    this.#controls(false);
    this.#draw();
    this.note("");
    if (stored.dataset.imageId !== imageId || stored.classList.contains("missing")) {
      // The previous image must not appear under the new lines.
      stored.removeAttribute("src");
      showImage(stored, imageId, STORED_PX).then((shown) => {
        if (!shown && stored.dataset.imageId === imageId) this.note("The stored picture cannot be shown.");
      });
    }
  }

  /**
   * Draw these pairs: [x1, y1, x2, y2, similarity], positions in 0..1 of the upright images.
   * `agree` says of each whether it agrees with the others; those that do not are grey.
   */
  setPairs(pairs, agree = []) {
    this.#pairs = pairs.map((pair, i) => [...pair, agree[i] ?? true]);
    this.#pairs.sort((a, b) => a[4] - b[4]); // the strongest are drawn last, on top
    const { floor, low, high } = this.#at;
    this.#controls(pairs.length > 0);
    if (pairs.length === 0) {
      this.note("No features match mutually.");
    } else {
      const lowest = this.#pairs[0][4];
      const highest = this.#pairs.at(-1)[4];
      this.#span = [lowest, highest];
      floor.min = String(Math.floor(lowest * 100) / 100);
      floor.max = String(Math.max(Math.floor(highest * 100) / 100, Number(floor.min) + 0.01));
      const first = this.#pairs[Math.max(0, this.#pairs.length - FIRST_LOOK)][4];
      floor.value = pairs.length > FIRST_LOOK ? String(Math.ceil(first * 100) / 100) : floor.min;
      low.textContent = lowest.toFixed(2);
      high.textContent = highest.toFixed(2);
    }
    this.#draw();
  }

  note(text) {
    this.#at.note.textContent = text;
    this.#at.note.hidden = text === "";
  }

  #controls(usable) {
    this.#at.floor.disabled = !usable;
    this.#at.count.textContent = "";
    this.#at.low.textContent = "";
    this.#at.high.textContent = "";
  }

  /** Give both images the same height, each with the width of its aspect ratio. */
  #fit() {
    for (const img of [this.#at.photo, this.#at.stored]) {
      const aspect = img.naturalWidth / img.naturalHeight || 4 / 3;
      img.parentElement.style.setProperty("--aspect", aspect.toFixed(4));
    }
    this.#draw();
  }

  #draw() {
    const { stage, photo, stored, lines, floor, count } = this.#at;
    const box = stage.getBoundingClientRect();
    if (box.width === 0) return;
    lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    const shown = this.#pairs.filter((pair) => pair[4] >= Number(floor.value));
    shown.sort((a, b) => a[5] - b[5]); // those that agree on top
    const [from, to] = [photo, stored].map((img) => {
      const { left, top, width, height } = img.getBoundingClientRect();
      return (x, y) => [left - box.left + x * width, top - box.top + y * height];
    });
    const casing = document.createElementNS(SVG, "path");
    casing.setAttribute("class", "casing");
    let path = "";
    const drawn = [];
    for (const [x1, y1, x2, y2, similarity, agrees] of shown) {
      const [ax, ay] = from(x1, y1);
      const [bx, by] = to(x2, y2);
      path += `M${ax.toFixed(1)} ${ay.toFixed(1)}L${bx.toFixed(1)} ${by.toFixed(1)}`;
      const colour = agrees ? this.#colour(similarity) : SCATTERED;
      drawn.push(shape("line", { x1: ax, y1: ay, x2: bx, y2: by, stroke: colour, class: "match" }));
      drawn.push(shape("circle", { cx: ax, cy: ay, r: 2.6, fill: colour }));
      drawn.push(shape("circle", { cx: bx, cy: by, r: 2.6, fill: colour }));
    }
    casing.setAttribute("d", path);
    lines.replaceChildren(casing, ...drawn);
    if (this.#pairs.length > 0) {
      count.textContent = `${Number(floor.value).toFixed(2)} · ${whole(shown.length)} of ${whole(this.#pairs.length)} lines`;
      lines.setAttribute("aria-label", `${shown.length} lines between matched features`);
    }
  }

  #colour(similarity) {
    const [lowest, highest] = this.#span;
    const at = highest > lowest ? ((similarity - lowest) / (highest - lowest)) * (RAMP.length - 1) : RAMP.length - 1;
    const i = Math.max(0, Math.min(RAMP.length - 2, Math.floor(at)));
    const mixed = RAMP[i].map((low, c) => Math.round(low + (RAMP[i + 1][c] - low) * (at - i)));
    return `rgb(${mixed.join(" ")})`;
  }
}

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, typeof value === "number" ? value.toFixed(1) : value);
  }
  return made;
}
