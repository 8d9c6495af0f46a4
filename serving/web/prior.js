// The circle in which a photo was taken: drawn on the map, and what it adds to a query.

const KEY_SHARE = 0.25; // of the map's width, for a circle drawn by keyboard
const LEAST_M = 1;

export class PriorCircle {
  #map;
  #parts;
  #circle = null; // { lat, lon, radiusM }
  #drawing = false;
  #onChange;

  /**
   * `parts` are the elements: panel, draw and clear buttons, the radius field and the choice of what it means.
   * `onChange` is called when a query would be another one.
   */
  constructor(parts, onChange) {
    this.#parts = parts;
    this.#onChange = onChange;
    parts.draw.addEventListener("click", () => this.#setDrawing(!this.#drawing));
    parts.clear.addEventListener("click", () => this.#set(null));
    parts.radius.addEventListener("change", () => this.#resize());
    parts.meaning.addEventListener("change", () => this.#circle && this.#onChange());
    this.#show();
  }

  /** Draw on a map of degrees; none on a map of metres, since a query takes degrees. */
  attach(map) {
    if (this.#map === map) return;
    this.#map = map;
    this.#parts.panel.hidden = !map.hasDegrees;
    map.onCircle(
      (circle, done) => (done ? this.#set(circle) : map.showPrior(circle)),
      () => this.#setDrawing(false),
    );
  }

  /** The parameters of a query. */
  get parameters() {
    if (!this.#circle) return {};
    const { lat, lon, radiusM } = this.#circle;
    const place = `${lat.toFixed(7)},${lon.toFixed(7)}`;
    return this.#parts.meaning.value === "only"
      ? { near: place, radius_m: radiusM.toFixed(1) }
      : { prior: `${place},${radiusM.toFixed(1)}` };
  }

  #setDrawing(on) {
    this.#drawing = on && Boolean(this.#map);
    this.#map?.setDrawing(this.#drawing, KEY_SHARE);
    this.#show();
  }

  #set(circle) {
    const before = JSON.stringify(this.parameters);
    this.#circle = circle && circle.radiusM >= LEAST_M ? circle : null;
    this.#map?.showPrior(this.#circle);
    this.#setDrawing(false);
    if (JSON.stringify(this.parameters) !== before) this.#onChange();
  }

  #resize() {
    const radius = this.#parts.radius;
    if (this.#circle && radius.reportValidity()) this.#set({ ...this.#circle, radiusM: Number(radius.value) });
  }

  #show() {
    const { draw, clear, radius, note } = this.#parts;
    draw.setAttribute("aria-pressed", String(this.#drawing));
    clear.disabled = !this.#circle;
    radius.disabled = !this.#circle;
    radius.value = this.#circle ? String(Math.round(this.#circle.radiusM)) : "";
    note.hidden = !this.#drawing;
  }
}
