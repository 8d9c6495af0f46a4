// What is known about a photo: which stored images may be found, and where it was probably taken.

import { AreaFile } from "./area.js";
import { CircleField } from "./circle.js";

export class Narrowing {
  #parts;
  #near;
  #prior;
  #area;
  #map = null;
  #onChange;

  /**
   * `parts` are the elements: form, line with words and clear button, fields `heading`, `tolerance`, `after`, `before`
   * and `tags`, and the parts of both circles and of the area. `onChange` is called when a query would be another one,
   * `onRefused(message)` for a file that is not sent.
   */
  constructor(parts, { onChange, onRefused }) {
    this.#parts = parts;
    this.#onChange = onChange;
    const changed = () => this.#changed();
    this.#near = new CircleField("near", parts.near, changed);
    this.#prior = new CircleField("prior", parts.prior, changed);
    this.#area = new AreaFile(parts.area, {
      onChange: (shape) => {
        this.#map?.limits.showArea(shape);
        this.#changed();
      },
      onRefused,
    });
    for (const field of ["heading", "after", "before", "tags"]) parts[field].addEventListener("change", changed);
    parts.tolerance.addEventListener("change", () => valueOf(parts.heading) && this.#changed());
    parts.form.addEventListener("submit", (event) => event.preventDefault());
    parts.clear.addEventListener("click", () => this.clear());
    this.#show();
  }

  attach(map) {
    this.#map = map;
    this.#near.attach(map);
    this.#prior.attach(map);
  }

  get isSet() {
    return Object.keys(this.parameters).length > 0;
  }

  /** The parameters of a query, as the service reads them; what is empty is left out. */
  get parameters() {
    const { heading, tolerance, after, before } = this.#parts;
    const [near, prior] = [this.#near, this.#prior];
    const turned = valueOf(heading);
    return given({
      near: near.place,
      radius_m: near.isSet ? near.size : "",
      within: this.#area.text,
      heading: turned,
      heading_tolerance: turned ? valueOf(tolerance) : "",
      taken_after: valueOf(after),
      taken_before: valueOf(before),
      tag: this.#tags,
      prior: prior.isSet ? `${prior.place},${prior.size}` : "",
    });
  }

  clear() {
    if (!this.isSet) return;
    this.#near.clear();
    this.#prior.clear();
    this.#area.clear();
    this.#map?.limits.showArea(null);
    this.#parts.form.reset();
    this.#changed();
  }

  get #tags() {
    return valueOf(this.#parts.tags).split(",").map((tag) => tag.trim()).filter(Boolean);
  }

  #changed() {
    this.#show();
    this.#onChange();
  }

  #show() {
    const words = wordsOf(this.parameters, this.#area.name);
    this.#parts.words.textContent = words.join("; ");
    this.#parts.line.hidden = words.length === 0;
  }
}

function valueOf(field) {
  return field.value.trim();
}

function given(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value?.length > 0));
}

function wordsOf(asked, areaName) {
  const words = [];
  if (asked.near) words.push(`within ${asked.radius_m ?? "?"} m of ${asked.near.replace(",", ", ")}`);
  if (asked.within) words.push(`inside ${areaName}`);
  if (asked.heading) words.push(`looking ${asked.heading}° ± ${asked.heading_tolerance ?? "45"}°`);
  if (asked.taken_after) words.push(`taken from ${asked.taken_after} on`);
  if (asked.taken_before) words.push(`taken before ${asked.taken_before}`);
  if (asked.tag) words.push(`tagged ${asked.tag.join(", ")}`);
  if (asked.prior) words.push(`rather near ${asked.prior.split(",").slice(0, 2).join(", ")}`);
  return words;
}
