// Requests to the service: token, one error class, and one retry when the service is busy.

const TOKEN_KEY = "placeray-token";
// With a longer Retry-After the error is shown at once.
const LONGEST_WAIT_S = 60;

let token = recall();

/** A failed request: `reason` comes from the service, or is `unreachable` without a response. */
export class ServiceError extends Error {
  constructor(reason, message, { status = 0, requestId = "", retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { reason, status, requestId, retryAfterS });
  }
}

function recall() {
  try {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  } catch {
    return ""; // storage is blocked: the token is lost when the page is closed
  }
}

export function hasToken() {
  return token !== "";
}

/** Set the token; returns false for characters that are invalid in a header. */
export function setToken(value) {
  const trimmed = value.trim();
  if (!/^[\x21-\x7e]+$/.test(trimmed)) return false;
  token = trimmed;
  try {
    sessionStorage.setItem(TOKEN_KEY, token);
  } catch {
    // see recall()
  }
  return true;
}

function address(path, query = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) url.searchParams.append(name, one);
  }
  return url.href;
}

async function request(path, { query, body, signal } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  // The service detects the format from the content, so a file of unknown type is sent too.
  const known = body && (body.type.startsWith("image/") || body.type === "application/json");
  if (body) headers["Content-Type"] = known ? body.type : "image/jpeg";
  let response;
  try {
    response = await fetch(address(path, query), { method: body ? "POST" : "GET", headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("unreachable", "The service did not respond. Check that it is running, then try again.");
  }
  if (!response.ok) throw await refused(response);
  return response;
}

async function refused(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not the service's body, for example a proxy's: only the status is known.
  }
  const seconds = Number(response.headers.get("retry-after") || NaN);
  return new ServiceError(
    String(error.reason ?? `status_${response.status}`),
    String(error.message ?? `The server answered with status ${response.status}.`),
    {
      status: response.status,
      requestId: response.headers.get("x-request-id") ?? "",
      retryAfterS: Number.isFinite(seconds) && seconds >= 0 ? seconds : null,
    },
  );
}

/**
 * Send a request and parse the JSON response. A 503 with Retry-After is retried once; `onWait` is called every
 * second until then.
 */
export async function ask(path, { onWait, ...options } = {}) {
  try {
    return await parsed(await request(path, options));
  } catch (error) {
    const waitS = error.retryAfterS;
    if (error.status !== 503 || waitS === null || waitS > LONGEST_WAIT_S) throw error;
    for (let left = Math.max(1, Math.ceil(waitS)); left > 0; left -= 1) {
      onWait?.(left, error);
      await pause(1000, options.signal);
    }
    return parsed(await request(path, options));
  }
}

async function parsed(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("unreachable", "The response was interrupted. Try again.");
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Fetch a stored image as a blob. */
export async function fetchImage(imageId, maxSidePx, signal) {
  const query = { image_id: imageId, max_side_px: maxSidePx };
  const response = await request("v1/image", { query, signal });
  return response.blob();
}

/** Show a stored image in an <img>: as a blob if a token is needed, else by its URL. */
export async function showImage(img, imageId, maxSidePx) {
  img.dataset.imageId = imageId;
  img.classList.remove("missing");
  const ended = new Promise((resolve) => {
    img.onload = () => resolve(true);
    img.onerror = () => resolve(false);
  });
  let url = "";
  try {
    if (hasToken()) url = URL.createObjectURL(await fetchImage(imageId, maxSidePx));
    // Another image may have been requested in the meantime.
    if (img.dataset.imageId !== imageId) return false;
    img.src = url || address("v1/image", { image_id: imageId, max_side_px: maxSidePx });
    const shown = await ended;
    if (!shown && img.dataset.imageId === imageId) img.classList.add("missing");
    return shown;
  } catch {
    if (img.dataset.imageId === imageId) {
      img.removeAttribute("src");
      img.classList.add("missing");
    }
    return false;
  } finally {
    if (url) URL.revokeObjectURL(url);
  }
}
