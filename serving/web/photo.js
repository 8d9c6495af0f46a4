// Ways to select a photo: choose, drop, paste, or a stored one.

import { fetchImage, showImage } from "./api.js";
import { element, position, shortName } from "./words.js";

const SAMPLES = 12;
const SAMPLE_PX = 200;
// Size at which a stored image is queried; the model's input is smaller.
const SAMPLE_SENT_PX = 1024;
const COPY_PX = 2048;

/** Call `onPhoto(file)` for every file chosen, dropped anywhere, or pasted; `onDrive(files)` for several dropped. */
export function listenForPhotos({ input, drop, veil }, onPhoto, onDrive) {
  input.addEventListener("change", () => {
    if (input.files[0]) onPhoto(input.files[0]);
    input.value = ""; // choosing the same file again sends it again
  });
  let inside = 0; // enter and leave are fired for every element below the pointer
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (shown) => {
    veil.hidden = !shown;
    drop.classList.toggle("over", shown);
  };
  document.addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    inside += 1;
    show(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    inside = Math.max(0, inside - 1);
    if (inside === 0) show(false);
  });
  document.addEventListener("dragover", (event) => {
    if (holdsFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    inside = 0;
    show(false);
    const { files } = event.dataTransfer;
    if (files.length > 1) onDrive([...files]);
    else if (files[0]) onPhoto(files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (!file) return;
    event.preventDefault();
    onPhoto(file);
  });
}

/** An even sample of the store's photos as buttons; `turn` selects others. */
export function showSamples(root, places, turn, onPlace) {
  const count = Math.min(SAMPLES, places.length);
  const step = places.length / count;
  const chosen = Array.from({ length: count }, (_, i) => places[Math.floor((i + (turn * 0.381966) % 1) * step) % places.length]);
  root.replaceChildren(
    ...chosen.map((place) => {
      const button = element("button", "sample");
      button.type = "button";
      button.dataset.imageId = place.image_id;
      button.setAttribute("aria-label", `Query with the stored photo ${position(place) ?? shortName(place.image_id)}`);
      const img = element("img");
      img.alt = "";
      showImage(img, place.image_id, SAMPLE_PX);
      button.append(img);
      button.addEventListener("click", () => onPlace(place));
      return button;
    }),
  );
}

/** Fetch a stored photo to query with it. */
export function fetchSample(place, signal) {
  return fetchImage(place.image_id, SAMPLE_SENT_PX, signal);
}

/** A smaller, upright JPEG of a photo, or null when the browser cannot read it. */
export async function smallerCopy(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
  const scale = Math.min(1, COPY_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}
