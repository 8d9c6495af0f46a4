// The polygons of a GeoJSON file that a search is narrowed to.

const MOST_BYTES = 4 << 20; // of a file that is read at all, as on the command line
const MOST_CHARACTERS = 16_000; // that the service takes
const DIGITS = 7; // after the point, about a centimetre

export class AreaFile {
  #parts;
  #onChange;
  #onRefused;
  #area = null; // { name, text, shape }

  /**
   * `parts` are the elements: file field, its label with the name, and a button that removes the file.
   * `onChange(shape)` gets the parsed GeoJSON, or null; `onRefused(message)` is called for a file that is not sent.
   */
  constructor(parts, { onChange, onRefused }) {
    this.#parts = parts;
    this.#onChange = onChange;
    this.#onRefused = onRefused;
    parts.file.addEventListener("change", () => this.#read());
    parts.remove.addEventListener("click", () => {
      this.clear();
      parts.file.focus();
      this.#onChange(null);
    });
    this.#show();
  }

  get name() {
    return this.#area?.name ?? null;
  }

  /** What is sent, or null. */
  get text() {
    return this.#area?.text ?? null;
  }

  clear() {
    this.#area = null;
    this.#show();
  }

  async #read() {
    const file = this.#parts.file.files[0];
    this.#parts.file.value = ""; // choosing the same file again reads it again
    if (!file) return;
    if (file.size > MOST_BYTES) {
      this.#onRefused(`${file.name} is too large: keep its polygons only, or simplify them.`);
      return;
    }
    const { text, shape } = shortened(await file.text());
    if (text.length > MOST_CHARACTERS) {
      const [has, most] = [text.length, MOST_CHARACTERS].map((count) => count.toLocaleString("en"));
      this.#onRefused(`The polygons of ${file.name} have ${has} characters, and the service takes ${most}: simplify them.`);
      return;
    }
    this.#area = { name: file.name, text, shape };
    this.#show();
    this.#onChange(shape);
  }

  #show() {
    this.#parts.words.textContent = this.name ?? "Choose a GeoJSON file";
    this.#parts.words.title = this.name ?? "";
    this.#parts.remove.hidden = this.name === null;
  }
}

/** GeoJSON without the properties of its features, and with few digits; what is not JSON stays as it is. */
function shortened(text) {
  try {
    const shape = JSON.parse(text, function (key, value) {
      if (key === "properties" && this.type === "Feature") return undefined;
      return typeof value === "number" ? Number(value.toFixed(DIGITS)) : value;
    });
    return { text: JSON.stringify(shape), shape };
  } catch {
    return { text, shape: null };
  }
}
