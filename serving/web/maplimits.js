// What a search is narrowed to, on a Leaflet map: circles, which can be drawn there, and an area.

const L = window.L;
const KEY_SHARE = 0.25; // of the map's width, for a circle drawn by keyboard

export class MapLimits {
  #map;
  #hint;
  #shapes = new Map(); // name: layer
  #renderer = L.svg(); // whose colours the style sheet sets
  #drawing = null; // { owner, onDrawn, onEnd } while a circle is drawn
  #centre = null; // of that circle, once the pointer is down

  /** `hint` is the element that is shown while a circle is drawn. */
  constructor(map, hint) {
    this.#map = map;
    this.#hint = hint;
    this.#listen(map.getContainer());
  }

  /** Show a circle `{lat, lon, radiusM}` under a name, or none; `reveal` moves the map where it is outside. */
  showCircle(name, circle, { reveal = false } = {}) {
    this.#put(name, circle && L.circle([circle.lat, circle.lon], { radius: circle.radiusM, ...this.#style(name) }), reveal);
  }

  /** Show the polygons of parsed GeoJSON, or none; what cannot be drawn is left to the service to refuse. */
  showArea(geojson) {
    const filter = (feature) => /^(Multi)?Polygon$/.test((feature.geometry ?? feature)?.type);
    try {
      const area = geojson && L.geoJSON(geojson, { ...this.#style("within"), filter });
      this.#put("within", area?.getBounds().isValid() ? area : null, true);
    } catch {
      this.#put("within", null, false);
    }
  }

  /** Draw a circle for `owner`: `onDrawn(circle, done)` follows it, `onEnd()` comes if it is given up. */
  draw(owner, { onDrawn, onEnd }) {
    if (this.#drawing && this.#drawing.owner !== owner) this.#drawing.onEnd();
    this.#drawing = { owner, onDrawn, onEnd };
    this.#setDrawing(true);
  }

  stopDrawing(owner) {
    if (this.#drawing?.owner !== owner) return;
    this.#drawing = null;
    this.#centre = null;
    this.#setDrawing(false);
  }

  /** The extents of circle and area that images are found in, as far as they are at most `mostM` across. */
  bounds(mostM) {
    return ["near", "within"]
      .map((name) => this.#shapes.get(name)?.getBounds())
      .filter((bounds) => bounds && bounds.getNorthEast().distanceTo(bounds.getSouthWest()) <= mostM);
  }

  #put(name, layer, reveal) {
    this.#shapes.get(name)?.remove();
    this.#shapes.delete(name);
    if (!layer) return;
    this.#shapes.set(name, layer.addTo(this.#map));
    const bounds = layer.getBounds();
    if (reveal && !this.#map.getBounds().contains(bounds)) this.#map.fitBounds(bounds, { padding: [20, 20], animate: false });
  }

  #style(name) {
    return { renderer: this.#renderer, interactive: false, weight: 2, className: `limit limit-${name}` };
  }

  #setDrawing(on) {
    for (const part of [this.#map.dragging, this.#map.boxZoom, this.#map.doubleClickZoom]) {
      if (on) part.disable();
      else part.enable();
    }
    this.#map.getContainer().classList.toggle("drawing", on);
    this.#hint.hidden = !on;
    if (on) this.#map.getContainer().focus();
  }

  #listen(container) {
    const circleTo = (event) => {
      const rim = this.#map.mouseEventToLatLng(event);
      const { lat, lng } = this.#centre;
      return { lat, lon: wrapped(lng), radiusM: this.#map.distance(this.#centre, rim) };
    };
    container.addEventListener("pointerdown", (event) => {
      if (!this.#drawing || event.button !== 0 || event.target.closest(".leaflet-control")) return;
      this.#centre = this.#map.mouseEventToLatLng(event);
      container.setPointerCapture(event.pointerId);
      event.stopPropagation();
    }, { capture: true });
    container.addEventListener("pointermove", (event) => this.#centre && this.#drawing.onDrawn(circleTo(event), false));
    container.addEventListener("pointerup", (event) => this.#centre && this.#drawing.onDrawn(circleTo(event), true));
    container.addEventListener("pointercancel", () => (this.#centre = null));
    container.addEventListener("keydown", (event) => {
      if (!this.#drawing) return;
      if (event.key === "Escape") this.#drawing.onEnd();
      if (event.key !== "Enter" || event.target !== container) return;
      const { x, y } = this.#map.getSize();
      const middle = this.#map.getCenter();
      const side = this.#map.containerPointToLatLng([x / 2 + x * KEY_SHARE, y / 2]);
      this.#drawing.onDrawn({ lat: middle.lat, lon: wrapped(middle.lng), radiusM: this.#map.distance(middle, side) }, true);
    });
  }
}

function wrapped(lon) {
  return ((((lon + 180) % 360) + 360) % 360) - 180;
}
