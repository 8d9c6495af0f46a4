// A bar with the time of each stage of a query.

import { element, milliseconds } from "./words.js";

const STAGES = ["decode", "extract", "search", "fetch", "rerank"];

/** Fill `root` from the `timings_ms` of a result and the round trip time of the browser. */
export function showTimes(root, timings, roundTripMs) {
  const total = timings.total;
  const parts = STAGES.map((name) => [name, timings[name] ?? 0]);
  const named = parts.reduce((sum, [, value]) => sum + value, 0);
  parts.push(["rest", Math.max(0, total - named)]);
  const whole = Math.max(total, named, 1e-9);

  const head = element("p", "times-head", null,
    element("b", "numbers", milliseconds(total)),
    element("span", "soft", ` in the service, ${milliseconds(roundTripMs)} round trip`));
  const bar = element("div", "stack");
  const legend = element("ul", "legend");
  for (const [name, value] of parts) {
    const part = element("i", `stage-${name}`);
    part.style.flexGrow = String(value / whole);
    part.title = `${name}: ${milliseconds(value)}`;
    if (value > 0) bar.append(part);
    const entry = element("li", "", null,
      element("i", `swatch stage-${name}`),
      element("span", "", name === "rerank" ? "re-rank" : name),
      element("span", "numbers soft", value >= 0.05 ? milliseconds(value) : "0 ms"));
    entry.dataset.stage = name;
    entry.dataset.ms = String(value);
    legend.append(entry);
  }
  bar.setAttribute("aria-hidden", "true"); // the list below has the same content
  root.replaceChildren(head, bar, legend);
}
