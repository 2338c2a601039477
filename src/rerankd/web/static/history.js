// The last runs of this browser. They stay in it: nothing is sent, and signing out deletes them.

import { make } from "./dom.js";

const KEY = "rerankd-history";
const MOST = 20, MOST_CHARACTERS = 60_000;

/** @typedef {{when: number, query: string, documents: number, model: string, state: string}} Run */

/** @returns {Run[]} the newest first. */
export function runs() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one?.state === "string") : [];
  } catch {
    return [];
  }
}

/** Keeps a run; one with too much text is not kept. The same texts are one run. @param {Run} run */
export function keep(run) {
  if (run.state.length > MOST_CHARACTERS) return;
  const all = [run, ...runs().filter((one) => one.state !== run.state)].slice(0, MOST);
  for (; all.length; all.pop()) {
    try {
      return localStorage.setItem(KEY, JSON.stringify(all));
    } catch { /* full: without the oldest */ }
  }
}

export function forget() {
  localStorage.removeItem(KEY);
}

/** The list of runs. @param {(run: Run) => void} restore */
export function listed(restore) {
  const all = runs();
  if (!all.length) return make("p", { class: "empty" }, "No runs yet. Each ranking is kept here, in this browser only.");
  return make("ul", { class: "runs" }, ...all.map((run) => {
    const open = make("button", { type: "button", class: "run" },
      make("span", { class: "run-query", dir: "auto" }, run.query || "(no query)"),
      make("span", { class: "hint" }, `${new Date(run.when).toLocaleString()} · ${run.documents} documents · ${run.model}`));
    open.addEventListener("click", () => restore(run));
    return make("li", {}, open);
  }));
}
