// A circle of a query: a position and a size in metres, typed, or drawn on the map.

const NUMBER = "(-?\\d+(?:\\.\\d+)?)";
const POSITION = new RegExp(`^${NUMBER},${NUMBER}$`);
const LEAST_M = 1; // a smaller one was a click

export class CircleField {
  #name;
  #parts;
  #map = null;
  #drawing = false;
  #onChange;

  /**
   * `name` is that of the query's parameter; `parts` are the elements: place and size fields, draw button.
   * `onChange` is called when a query would be another one.
   */
  constructor(name, parts, onChange) {
    this.#name = name;
    this.#parts = parts;
    this.#onChange = onChange;
    parts.place.addEventListener("change", () => {
      this.#show({ reveal: true });
      this.#onChange();
    });
    parts.size.addEventListener("change", () => {
      this.#show({ reveal: true });
      if (this.isSet) this.#onChange();
    });
    parts.draw.addEventListener("click", () => this.#setDrawing(!this.#drawing));
    parts.draw.hidden = true;
  }

  /** Draw on a map of degrees; none on a map of metres, since a query takes degrees. */
  attach(map) {
    if (this.#map === map || !map.hasDegrees) return;
    this.#map = map;
    this.#parts.draw.hidden = false;
    this.#show();
  }

  get isSet() {
    return this.place !== "";
  }

  /** What was typed or drawn, without spaces around the comma: the service says what cannot be read. */
  get place() {
    return this.#parts.place.value.trim().replace(/\s*,\s*/g, ",");
  }

  get size() {
    return this.#parts.size.value.trim();
  }

  clear() {
    this.#parts.place.value = "";
    this.#parts.size.value = this.#parts.size.defaultValue;
    this.#setDrawing(false);
    this.#show();
  }

  #setDrawing(on) {
    this.#drawing = on && this.#map !== null;
    this.#parts.draw.setAttribute("aria-pressed", String(this.#drawing));
    if (!this.#map) return;
    if (!this.#drawing) {
      this.#map.limits.stopDrawing(this);
      return;
    }
    this.#map.limits.draw(this, {
      onDrawn: (circle, done) => (done ? this.#take(circle) : this.#map.limits.showCircle(this.#name, circle)),
      onEnd: () => {
        this.#setDrawing(false);
        this.#show();
      },
    });
  }

  #take({ lat, lon, radiusM }) {
    this.#setDrawing(false);
    if (radiusM >= LEAST_M) {
      this.#parts.place.value = `${lat.toFixed(6)}, ${lon.toFixed(6)}`;
      this.#parts.size.value = radiusM.toFixed(radiusM < 10 ? 1 : 0);
    }
    this.#show();
    if (radiusM >= LEAST_M) this.#onChange();
  }

  /** Show the circle on the map as far as it is one. */
  #show({ reveal = false } = {}) {
    const [, lat, lon] = POSITION.exec(this.place) ?? [];
    const circle = { lat: Number(lat), lon: Number(lon), radiusM: Number(this.size) };
    const drawable = Math.abs(circle.lat) <= 90 && Math.abs(circle.lon) <= 360 && circle.radiusM > 0 && circle.radiusM <= 2e7;
    this.#map?.limits.showCircle(this.#name, drawable ? circle : null, { reveal });
  }
}
