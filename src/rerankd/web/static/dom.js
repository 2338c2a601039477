// Small helpers for elements, the clipboard and downloads. Texts are set as text, never as HTML.

/** @returns {any} the element, which the template has. */
export const $ = (/** @type {string} */ id) => document.getElementById(id);

/** An element: `make("p", {class: "hint"}, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The end of a marked part without the white space behind it. `characters`: code points. */
export function visibleEnd(characters, start, end) {
  let last = end;
  while (last > start && !characters[last - 1].trim()) last -= 1;
  return last;
}

/** A button: `button("Rank", () => …, "small")`. */
export function button(text, act, kind = "small") {
  const made = make("button", { type: "button", class: kind }, text);
  made.addEventListener("click", () => act(made));
  return made;
}

/** Calls `act` once nothing asked for it during `wait` milliseconds. */
export function later(wait, act) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, wait);
  };
}

/** @param {() => string} otherwise selects the text for the visitor; returns the button's new words. */
export async function copy(text, target, otherwise) {
  target.dataset.words ??= target.textContent;
  const before = target.dataset.words;
  try {
    await navigator.clipboard.writeText(text);
    target.textContent = "Copied";
  } catch { // only pages from https or from this machine may
    target.textContent = otherwise();
  }
  setTimeout(() => { target.textContent = before; }, 1500);
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** @param {number} micro millionths of the currency. */
export function money(micro, currency) {
  if (!micro) return "free";
  const digits = { minimumFractionDigits: 2, maximumFractionDigits: 6 };
  return `${(micro / 1e6).toLocaleString("en", digits)} ${currency}`;
}

export function time(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}

export function number(value) {
  return value.toLocaleString("en");
}

/** What the browser keeps under a name; empty where nothing is kept, or where it may keep nothing. */
export function kept(name) {
  try { return localStorage.getItem(name) ?? ""; } catch { return ""; }
}

export function keepValue(name, value) {
  try { localStorage.setItem(name, value); } catch { /* for this page only */ }
}
