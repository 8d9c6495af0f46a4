// Numbers, positions and errors as text.

const TITLES = {
  unreachable: "The service cannot be reached",
  unauthorized: "This token is not accepted",
  not_an_image: "This file is not a photo",
  empty: "This file is empty",
  truncated: "This photo is truncated",
  format_not_allowed: "This kind of image is not accepted",
  bad_aspect: "This photo is too narrow to use",
  too_many_pixels: "This photo has too many pixels",
  body_too_large: "This photo is too large to send",
  too_large: "This photo is too large to send",
  missing_image: "No photo was sent",
  receive_timeout: "Sending took too long",
  overloaded: "The service is busy",
  timeout: "The service took too long",
  not_ready: "The service is still starting",
  store_unavailable: "The store cannot be read at the moment",
  model_fault: "The model failed on this photo",
  unknown_image: "The store no longer holds this image",
  image_unavailable: "The picture of this image cannot be read",
  bad_parameter: "This setting is not accepted",
  not_calibrated: "This store cannot keep a share of wrong answers",
  level_not_promised: "This share of wrong answers was not promised",
  tags_not_kept: "This store keeps no tags",
  headers_too_large: "This area is too large to send",
};

/** Reasons after which a smaller JPEG copy made by the browser may be accepted. */
export const COPY_MAY_PASS = new Set(["body_too_large", "too_large", "too_many_pixels", "format_not_allowed"]);

export function errorTitle(error) {
  if (TITLES[error.reason]) return TITLES[error.reason];
  return error.status >= 500 ? "The service failed" : "The service did not accept this";
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  if (count < 1e6) return `${Math.round(count / 1e3)} kB`;
  return `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} MB`;
}

export function milliseconds(value) {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 10 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}

export function metres(value) {
  return value < 1000 ? `${Math.round(value)} m` : `${(value / 1000).toFixed(1)} km`;
}

export function whole(value) {
  return Number(value).toLocaleString("en");
}

export function plural(count, one, many) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

function given(...values) {
  return values.every((value) => typeof value === "number" && Number.isFinite(value));
}

export function hasDegrees(place) {
  return given(place.lat, place.lon);
}

export function hasMetres(place) {
  return given(place.utm_e, place.utm_n);
}

/** A position to read, to about a metre: degrees, else UTM, else null. */
export function position(place) {
  if (hasDegrees(place)) return `${place.lat.toFixed(5)}, ${place.lon.toFixed(5)}`;
  if (hasMetres(place)) return `${place.utm_e.toFixed(0)} E, ${place.utm_n.toFixed(0)} N`;
  return null;
}

/** A position to paste into a link or a program: no spaces, all significant digits. */
export function positionToCopy(place) {
  if (hasDegrees(place)) return `${Number(place.lat.toFixed(7))},${Number(place.lon.toFixed(7))}`;
  return `${Number(place.utm_e.toFixed(2))},${Number(place.utm_n.toFixed(2))}`;
}

/** Metres between two places, or null where they share no kind of position. */
export function distanceM(a, b) {
  if (hasDegrees(a) && hasDegrees(b)) {
    const radians = Math.PI / 180;
    const dLat = (b.lat - a.lat) * radians;
    const dLon = (b.lon - a.lon) * radians;
    const chord =
      Math.sin(dLat / 2) ** 2 +
      Math.cos(a.lat * radians) * Math.cos(b.lat * radians) * Math.sin(dLon / 2) ** 2;
    return 2 * 6371008.8 * Math.asin(Math.min(1, Math.sqrt(chord)));
  }
  if (hasMetres(a) && hasMetres(b)) return Math.hypot(a.utm_e - b.utm_e, a.utm_n - b.utm_n);
  return null;
}

/** A probability in whole per cent; never 100 %, since nothing is certain. */
export function percent(probability) {
  return `${Math.min(99, Math.max(1, Math.round(100 * probability)))} %`;
}

/** A message of the service as a sentence, with a capital and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

/** The file name inside an image id or uri. */
export function shortName(text) {
  return text.split(/[\\/]/).pop() || text;
}

/** An element with a class, text set as text only, and children. */
export function element(tag, className = "", text = null, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}
