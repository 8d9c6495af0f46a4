// Error messages with what to do about them.

import { COPY_MAY_PASS, element, errorTitle, sentence } from "./words.js";

/** Show an error; `again` and `copy` are offered as buttons where they may help. */
export function showError(root, error, { again = null, copy = null }) {
  const small = element("p", "soft trace", null, element("code", "", error.reason));
  if (error.requestId) small.append(" · request ", element("code", "", error.requestId));
  root.replaceChildren(element("p", "notice-title", errorTitle(error)), element("p", "", sentence(error.message)));
  const buttons = element("p", "buttons");
  if (copy && COPY_MAY_PASS.has(error.reason)) buttons.append(button("Send a smaller copy", "primary", copy));
  if (again && (error.status === 0 || error.status === 408 || error.status >= 500) && error.reason !== "body_too_large") {
    buttons.append(button("Try again", "primary", again));
  }
  if (buttons.hasChildNodes()) root.append(buttons);
  root.append(small);
  root.hidden = false;
}

/** Show that the service is busy and when the request is repeated. */
export function showWaiting(root, error, secondsLeft) {
  // Only the number changes, so that a screen reader does not repeat the text every second.
  let left = root.querySelector(".seconds-left");
  if (!left || root.hidden) {
    left = element("span", "seconds-left numbers");
    const words = element("p", "", null, "Trying again in ", left, " s.");
    words.setAttribute("aria-live", "off");
    root.replaceChildren(element("p", "notice-title", errorTitle(error)), words);
    root.hidden = false;
  }
  left.textContent = String(secondsLeft);
}

function button(text, className, onClick) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", () => onClick());
  return made;
}
