// All places and the ranked ones on a Leaflet map: degrees in web Mercator, UTM metres on a plane.

import { MapLimits } from "./maplimits.js";
import { element, hasDegrees, hasMetres, position } from "./words.js";

const L = window.L;
const MAX_SHOWN_M = 500; // a larger circle does not decide what the map shows
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** How the places of a store can be drawn: "degrees", "metres" or null. */
export function mapKind(places) {
  if (places.some(hasDegrees)) return "degrees";
  return places.some(hasMetres) ? "metres" : null;
}

export class CityMap {
  #map;
  #kind;
  #note;
  #dots = L.layerGroup();
  #pins = [];
  #own = null;
  #circle = null; // the position of the photo with its radius
  #track = L.layerGroup(); // the frames of a drive and the line through those known
  #here = L.layerGroup(); // the frame that is played
  #drive = []; // its frames, to draw them again in other colours
  #all = null;
  #view = null; // the extent that the map chose; null once the user has moved it
  #onChoose;

  /**
   * `tiles` is `{url, attribution}` or null; `note` is the element for attribution and messages, `hint` the one that
   * says how to draw a circle.
   */
  constructor(container, { note, hint }, { kind, tiles, onChoose }) {
    this.#kind = kind;
    this.#note = note;
    this.#onChoose = onChoose;
    const animate = !calm.matches;
    this.#map = L.map(container, {
      crs: kind === "metres" ? L.CRS.Simple : L.CRS.EPSG3857,
      minZoom: kind === "metres" ? -12 : 1,
      maxZoom: kind === "metres" ? 5 : 20,
      zoomSnap: 0.5,
      preferCanvas: true,
      attributionControl: false,
      zoomControl: false,
      zoomAnimation: animate,
      fadeAnimation: animate,
      markerZoomAnimation: animate,
      inertia: animate,
    });
    this.#map.setView([0, 0], 1);
    this.limits = new MapLimits(this.#map, hint);
    L.control.zoom({ position: "bottomright" }).addTo(this.#map);
    L.control.scale({ imperial: false }).addTo(this.#map);
    for (const layer of [this.#dots, this.#track, this.#here]) layer.addTo(this.#map);
    if (kind === "degrees" && tiles) this.#addTiles(tiles);
    else this.#say(kind === "metres" ? "UTM metres on a plain ground" : "Plain ground: no street tiles are set");
    dark.addEventListener("change", () => this.#recolour());
    for (const moved of ["pointerdown", "wheel", "keydown"]) {
      container.addEventListener(moved, () => (this.#view = null), { passive: true });
    }
    new ResizeObserver(() => this.#fit()).observe(container);
  }

  /** Draw all places as dots and show all of them, unless a result is shown. */
  showPlaces(places) {
    this.#dots.clearLayers();
    const points = places.map((place) => this.#point(place)).filter(Boolean);
    for (const point of points) {
      this.#dots.addLayer(L.circleMarker(point, { radius: 3.5, interactive: false, ...dotStyle() }));
    }
    this.#all = L.latLngBounds(points);
    if (this.#pins.length === 0) this.#look(this.#all, 19);
  }

  /**
   * Put numbered pins on the ranked places and a circle on where the photo was taken.
   * `own` is the photo's own place, if known; `place` that of the answer.
   */
  showRanked(matches, own = null, place = null) {
    for (const pin of this.#pins) pin?.remove();
    this.#own?.remove();
    this.#own = null;
    this.#circle?.remove();
    this.#circle = this.#circleOf(place);
    this.#pins = matches.map((match, index) => this.#pin(match, index));
    const ownPoint = own && this.#point(own);
    if (ownPoint) {
      const style = { radius: 15, weight: 2, fill: false, interactive: false, className: "own" };
      this.#own = L.circleMarker(ownPoint, { ...style, color: colour("--ink") }).addTo(this.#map);
    }
    const bounds = L.latLngBounds(this.#pins.filter(Boolean).map((pin) => pin.getLatLng()));
    if (this.#circle && place.radius_m < MAX_SHOWN_M) bounds.extend(this.#extent(place));
    for (const limit of this.limits.bounds(2 * MAX_SHOWN_M)) bounds.extend(limit);
    if (bounds.isValid()) this.#look(bounds, this.#kind === "metres" ? 1 : 18);
    else if (this.#all) this.#look(this.#all, 19);
  }

  /** Draw the frames of a drive, and a line through each stretch of known ones; none removes them. */
  showTrack(frames) {
    this.#drive = frames;
    this.#track.clearLayers();
    this.#here.clearLayers();
    const placed = frames.map((frame) => ({ frame, point: frame.position && this.#point(frame.position) }));
    for (const line of stretches(placed)) {
      this.#track.addLayer(L.polyline(line, { color: colour("--accent"), weight: 3, opacity: 0.7, interactive: false }));
    }
    for (const { frame, point } of placed) {
      if (!point) continue;
      const fillColor = colour(frame.known ? "--accent" : "--warn");
      const style = { radius: 4, weight: 1, color: colour("--panel"), fillColor, fillOpacity: 1, interactive: false };
      this.#track.addLayer(L.circleMarker(point, style));
    }
    const bounds = L.latLngBounds(placed.map(({ point }) => point).filter(Boolean));
    if (bounds.isValid()) this.#look(bounds, this.#kind === "metres" ? 1 : 18);
  }

  /** Mark the frame that is played, with its radius. */
  showFrame(frame) {
    this.#here.clearLayers();
    const point = frame.position && this.#point(frame.position);
    if (!point) return;
    if (frame.radius_m !== null && frame.radius_m < MAX_SHOWN_M) {
      this.#here.addLayer(L.circle(point, { radius: frame.radius_m, interactive: false, ...circleStyle() }));
    }
    const style = { radius: 8, weight: 3, fill: false, interactive: false, color: colour("--ink") };
    this.#here.addLayer(L.circleMarker(point, style));
    this.#map.panInside(point, { padding: [40, 40], animate: !calm.matches });
  }

  get hasDegrees() {
    return this.#kind === "degrees";
  }

  choose(index) {
    this.#pins.forEach((pin, i) => {
      if (!pin) return;
      pin.getElement()?.classList.toggle("chosen", i === index);
      pin.setZIndexOffset(i === index ? 5000 : 1000 - 10 * i);
      if (i === index) this.#map.panInside(pin.getLatLng(), { padding: [40, 40], animate: !calm.matches });
    });
  }

  #circleOf(place) {
    const point = place?.position && this.#point(place.position);
    if (!point || place.radius_m === null || place.known === false) return null;
    // Metres on the ground, also on a plane, where a unit is one metre.
    return L.circle(point, { radius: place.radius_m, interactive: false, className: "where-circle", ...circleStyle() }).addTo(this.#map);
  }

  /** The corners of the circle, which Leaflet knows only of one that is drawn. */
  #extent({ position: { lat, lon, utm_e, utm_n }, radius_m: radius }) {
    if (this.#kind === "metres") return L.latLngBounds([utm_n - radius, utm_e - radius], [utm_n + radius, utm_e + radius]);
    const [north, east] = [radius / 111_320, radius / (111_320 * Math.max(0.01, Math.cos((lat * Math.PI) / 180)))];
    return L.latLngBounds([lat - north, lon - east], [lat + north, lon + east]);
  }

  #point(place) {
    if (this.#kind === "degrees") return hasDegrees(place) ? L.latLng(place.lat, place.lon) : null;
    return hasMetres(place) ? L.latLng(place.utm_n, place.utm_e) : null;
  }

  #pin(match, index) {
    const point = this.#point(match);
    if (!point) return null;
    const icon = L.divIcon({
      className: "pin",
      html: element("span", "", String(match.rank)),
      iconSize: [26, 26],
      iconAnchor: [13, 13],
    });
    const pin = L.marker(point, { icon, keyboard: true, zIndexOffset: 1000 - 10 * index }).addTo(this.#map);
    pin.getElement().setAttribute("aria-label", `Number ${match.rank} at ${position(match)}`);
    pin.on("click", () => this.#onChoose(index));
    pin.getElement().addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      this.#onChoose(index);
    });
    return pin;
  }

  #look(bounds, maxZoom) {
    this.#view = bounds.isValid() ? { bounds, maxZoom } : null;
    this.#fit();
  }

  /** Adapt to the container's size and keep the chosen extent visible. */
  #fit() {
    this.#map.invalidateSize({ pan: false });
    if (!this.#view) return;
    const { bounds, maxZoom } = this.#view;
    this.#map.fitBounds(bounds, { padding: [40, 40], maxZoom, animate: false });
  }

  #addTiles({ url, attribution }) {
    let loaded = false;
    let failed = 0;
    const layer = L.tileLayer(url, { maxZoom: 20, maxNativeZoom: 19, className: "tiles" });
    layer.on("tileload", () => {
      if (!loaded) this.#say("", attribution);
      loaded = true;
    });
    layer.on("tileerror", () => {
      failed += 1;
      if (loaded || failed < 4) return;
      layer.remove(); // no network: stop requesting tiles
      this.#say("Plain ground: street tiles cannot be loaded");
    });
    layer.addTo(this.#map);
  }

  /** Attributions may be HTML; they are shown as text, with a link for OpenStreetMap. */
  #say(text, credit = "") {
    const words = credit ? new DOMParser().parseFromString(credit, "text/html").body.textContent : text;
    const credits = element("span", "", words);
    if (/openstreetmap/i.test(words)) {
      const link = element("a", "", words);
      link.href = "https://www.openstreetmap.org/copyright";
      link.rel = "noreferrer";
      credits.replaceChildren(link);
    }
    this.#note.replaceChildren(credits);
  }

  #recolour() {
    this.#dots.eachLayer((dot) => dot.setStyle(dotStyle()));
    this.#own?.setStyle({ color: colour("--ink") });
    this.#circle?.setStyle(circleStyle());
    if (this.#drive.length > 0) this.showTrack(this.#drive);
  }
}

/** Points of the known frames, in stretches without others between. */
function stretches(placed) {
  const lines = [[]];
  for (const { frame, point } of placed) {
    if (frame.known && point) lines.at(-1).push(point);
    else if (lines.at(-1).length > 0) lines.push([]);
  }
  return lines.filter((line) => line.length > 1);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function circleStyle() {
  return { color: colour("--accent"), weight: 2, fillColor: colour("--accent"), fillOpacity: 0.15 };
}

function dotStyle() {
  return { color: colour("--panel"), weight: 1, fillColor: colour("--dot"), fillOpacity: 0.9 };
}
