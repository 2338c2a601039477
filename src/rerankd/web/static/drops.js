// Files that are dropped on the form, or chosen.

import { $ } from "./dom.js";
import { fields } from "./fields.js";

/** @param {(file: File) => void} takeFile */
export function listenToDrops(takeFile) {
  const form = $("ask");
  const over = (yes) => fields.documents.classList.toggle("over", yes);
  form.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    over(true);
  });
  form.addEventListener("dragleave", (event) => { if (!form.contains(/** @type {Node} */ (event.relatedTarget))) over(false); });
  form.addEventListener("drop", (event) => {
    over(false);
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    takeFile(file);
  });
  $("choose-file").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) takeFile(file);
    $("file").value = "";
  });
}
