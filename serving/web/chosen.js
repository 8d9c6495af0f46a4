// The place chosen among those ranked: its image beside the photo, the lines between them, and its position.

import { ServiceError, ask } from "./api.js";
import { PairView } from "./pair.js";
import { position, positionToCopy, sentence } from "./words.js";

// While an arrow key is held down, lines are not requested for every place passed.
const CHOICE_SETTLES_MS = 120;

export class ChosenPlace {
  #parts;
  #view;
  #photo = null;
  #lines = new Map(); // image id: answer of the service
  #asking = new AbortController();
  #onRefused;
  #onCopied;

  /**
   * `parts` are the elements: panel, title, position, name, id, copy, and `view`, those of a PairView.
   * `onRefused(error)` is called where lines were refused, `onCopied(text)` with what a screen reader says.
   */
  constructor(parts, { onRefused, onCopied }) {
    this.#parts = parts;
    this.#view = new PairView(parts.view);
    this.#onRefused = onRefused;
    this.#onCopied = onCopied;
    parts.copy.addEventListener("click", () => this.#copy());
  }

  /** Take another answer's photo `{blob, url}`; `shown` says whether it has places. */
  begin(photo, shown) {
    this.stop();
    this.#photo = photo;
    this.#lines = new Map();
    this.#parts.panel.hidden = !shown;
  }

  /** Stop requesting lines. */
  stop() {
    this.#asking.abort();
  }

  hide() {
    this.stop();
    this.#parts.panel.hidden = true;
  }

  show(match) {
    const { title, position: at, name, id, copy } = this.#parts;
    const words = position(match);
    title.textContent = `Photo and no. ${match.rank}`;
    at.textContent = words ?? "no position";
    name.textContent = `No. ${match.rank} in the store`;
    id.textContent = match.image_id;
    id.title = match.uri ?? "";
    copy.hidden = words === null;
    copy.textContent = "Copy position";
    copy.dataset.position = words === null ? "" : positionToCopy(match);
    this.#view.show(this.#photo.url, match.image_id);
    this.stop();
    this.#asking = new AbortController();
    this.#showLines(match.image_id, this.#asking.signal);
  }

  async #showLines(imageId, signal) {
    const lines = this.#lines;
    try {
      if (!lines.has(imageId)) {
        await new Promise((resolve) => setTimeout(resolve, CHOICE_SETTLES_MS));
        if (signal.aborted) return;
        lines.set(imageId, await ask("v1/matches", { query: { image_id: imageId }, body: this.#photo.blob, signal }));
      }
      const { pairs, agree } = lines.get(imageId);
      if (!signal.aborted) this.#view.setPairs(pairs, agree);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ServiceError)) throw error;
      this.#onRefused(error);
      this.#view.note(`The lines cannot be shown. ${sentence(error.message)}`);
    }
  }

  async #copy() {
    const { copy, position: at } = this.#parts;
    const text = copy.dataset.position;
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // There is no clipboard without HTTPS: select the text, so that Ctrl+C copies it.
      at.textContent = text;
      getSelection().selectAllChildren(at);
      copied = false;
    }
    copy.textContent = copied ? "Copied" : "Selected";
    this.#onCopied(copied ? `${text} copied.` : `${text} selected.`);
    setTimeout(() => (copy.textContent = "Copy position"), 1500);
  }
}
