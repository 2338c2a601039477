// The dialog with the playground's call as code.

import { BASE } from "./base.js";
import { $, button, copy, keepValue, kept } from "./dom.js";
import { callOf, fields, server } from "./fields.js";
import { SNIPPETS, snippet } from "./snippets.js";

const KEPT = "rerankd-language";

export function listenToSnippets() {
  let chosen = kept(KEPT);
  if (!(chosen in SNIPPETS)) [chosen] = Object.keys(SNIPPETS);
  let side = "A";
  const write = () => {
    if (!fields.compare.checked) side = "A";
    $("code-sides").hidden = !fields.compare.checked;
    try {
      $("snippet").textContent = snippet(chosen, callOf(side), { origin: BASE, needsKey: server.needsKey });
    } catch (error) {
      $("snippet").textContent = error.message;
    }
    $("install").textContent = SNIPPETS[chosen].needs;
    $("install-line").hidden = !SNIPPETS[chosen].needs;
    $("snippet-hint").textContent = server.needsKey ? "The key is read from RERANKD_API_KEY." : "";
    for (const chip of $("languages").children) chip.setAttribute("aria-pressed", String(chip.textContent === chosen));
    for (const chip of $("code-sides").children) chip.setAttribute("aria-pressed", String(chip.dataset.side === side));
  };
  const choose = (name) => { chosen = name; keepValue(KEPT, name); write(); };
  $("languages").append(...Object.keys(SNIPPETS).map((name) => button(name, () => choose(name), "chip")));
  for (const chip of $("code-sides").children) chip.addEventListener("click", () => { side = chip.dataset.side; write(); });
  $("copy-as").addEventListener("click", () => { write(); $("snippets").showModal(); });
  $("close-snippets").addEventListener("click", () => $("snippets").close());
  $("copy-snippet").addEventListener("click", () => copy($("snippet").textContent, $("copy-snippet"), () => {
    getSelection().selectAllChildren($("snippet"));
    return "Press Ctrl+C";
  }));
}
