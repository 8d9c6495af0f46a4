// The ranked places as a listbox: chosen by click, arrow keys, Home and End.

import { showImage } from "./api.js";
import { distanceM, element, metres, plural, position, shortName, whole } from "./words.js";

const THUMBNAIL_PX = 240;

export class Ranking {
  #list;
  #matches = [];
  #chosen = -1;
  #onChoose;

  constructor(list, onChoose) {
    this.#list = list;
    this.#onChoose = onChoose;
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.choose(Number(option.dataset.index));
    });
  }

  /** Show the matches of a result; `ownId` is the image id when the photo is one of the store's. */
  show(matches, ownId) {
    this.#matches = matches;
    this.#chosen = -1;
    const maxScore = Math.max(1, ...matches.map((match) => scoreOf(match) ?? 0));
    this.#list.replaceChildren(...matches.map((match, i) => this.#option(match, i, maxScore, ownId)));
    this.#list.removeAttribute("aria-activedescendant");
  }

  choose(index, { scroll = true } = {}) {
    if (index < 0 || index >= this.#matches.length || index === this.#chosen) return;
    this.#chosen = index;
    for (const option of this.#list.children) {
      option.setAttribute("aria-selected", String(Number(option.dataset.index) === index));
    }
    const option = this.#list.children[index];
    this.#list.setAttribute("aria-activedescendant", option.id);
    // Scroll the list only, never the page.
    if (scroll) {
      const { offsetTop, offsetHeight } = option;
      const list = this.#list;
      if (offsetTop < list.scrollTop) list.scrollTop = offsetTop;
      const bottom = offsetTop + offsetHeight;
      if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    }
    this.#onChoose(index);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.#matches.length - 1;
    const next = {
      ArrowDown: this.#chosen + 1,
      ArrowRight: this.#chosen + 1,
      ArrowUp: this.#chosen - 1,
      ArrowLeft: this.#chosen - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(last, next)));
  }

  #option(match, index, maxScore, ownId) {
    const img = element("img", "thumbnail");
    img.alt = "";
    showImage(img, match.image_id, THUMBNAIL_PX);

    const where = position(match) ?? shortName(match.image_id);
    const notes = [];
    if (ownId === match.image_id) notes.push("this very photo");
    const away = index > 0 ? distanceM(this.#matches[0], match) : null;
    if (away !== null) notes.push(away < 0.5 ? "same spot as no. 1" : `${metres(away)} from no. 1`);
    if (index === 0 && notes.length === 0) notes.push("best match");

    const counted = match.mutual_matches !== null;
    const bar = element("span", "bar", null, element("i"));
    bar.firstChild.style.width = `${(100 * Math.max(0, counted ? scoreOf(match) / maxScore : match.similarity)).toFixed(1)}%`;
    const option = element("li", "place", null,
      element("span", "rank numbers", String(match.rank)),
      img,
      element("span", "place-words", null,
        element("span", "where numbers", where),
        element("span", "soft note", notes.join(" · ")),
        bar),
      element("b", "figure numbers", counted ? whole(match.mutual_matches) : "–"),
      element("b", "figure numbers", match.similarity.toFixed(3)));
    option.id = `place-${index}`;
    option.dataset.index = String(index);
    option.dataset.imageId = match.image_id;
    option.title = match.uri || match.image_id;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    option.setAttribute(
      "aria-label",
      `Number ${match.rank}: ${where}, similarity ${match.similarity.toFixed(3)}` +
        (counted ? `, ${plural(match.mutual_matches, "mutual match", "mutual matches")}` : "") +
        (match.score_kind === "votes" ? `, ${match.score.toFixed(1)} votes` : "") +
        (notes.length ? `, ${notes.join(", ")}` : ""),
    );
    return option;
  }
}

/** What the places are ranked by. */
function scoreOf(match) {
  return match.score ?? match.mutual_matches;
}
