// Shows rankings. Every text is set as text, never as HTML.

import { BASE } from "./base.js";

/** @typedef {import("./api.js").Answer} Answer */

/** Items; the browser lays out only the visible part of longer lists. */
const LONG = 60;

/** Characters that are shown before a passage while the text is clamped. */
const LEAD = 80;

/** An element: `make("p", {class: "hint"}, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
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

/**
 * @param {{answer: Answer, documents: string[], title: string}[]} sides one, or two to compare.
 * @param {(answer: Answer) => string} costOf
 */
export function rankings(sides, costOf) {
  const warnings = [...new Set(sides.flatMap(({ answer }) => answer.warnings))];
  const places = sides.map(({ answer }) => new Map(answer.results.map(({ index }, place) => [index, place + 1])));
  const fragment = document.createDocumentFragment();
  if (sides.length === 1) fragment.append(summary(sides[0].answer, costOf, true));
  if (warnings.length) fragment.append(warned(warnings));
  const lists = sides.map((side, at) => list(side, at, at ? places[0] : null, sides.length > 1, costOf));
  fragment.append(threshold(lists), make("div", { class: "lists" }, ...lists));
  fragment.append(raw(sides));
  return fragment;
}

/** A slider that greys what a `min_score` would leave out. */
function threshold(lists) {
  const range = { type: "range", id: "min-score", min: "0", max: "1", step: "0.01", value: "0" };
  const slider = /** @type {HTMLInputElement} */ (make("input", range));
  const told = make("output", { for: "min-score" });
  const act = () => {
    const counts = lists.map((one) => {
      const items = [...one.querySelectorAll("li[data-score]")];
      for (const each of items) each.classList.toggle("under", Number(each.dataset.score) < Number(slider.value));
      return `${items.filter((each) => !each.classList.contains("under")).length} of ${items.length}`;
    });
    told.textContent = `${slider.value}: ${counts.join(", ")} kept`;
  };
  slider.addEventListener("input", act);
  act();
  return make("p", { class: "threshold" }, make("label", { for: "min-score" }, "min_score "), slider, " ", told);
}

function summary(answer, costOf, withModel) {
  const figures = {
    ranked: answer.results.length.toLocaleString("en"),
    tokens: answer.tokens.toLocaleString("en"),
    cost: costOf(answer),
    time: time(answer.seconds),
    ...(withModel ? { model: answer.model } : {}),
  };
  const pairs = Object.entries(figures).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  return make("dl", { class: "summary" }, ...pairs);
}

function warned(warnings) {
  const inner = warnings.length === 1 ? [warnings[0]] : [make("ul", {}, ...warnings.map((one) => make("li", {}, one)))];
  return make("div", { class: "notice", "data-warnings": "" }, ...inner);
}

function list({ answer, documents, title }, at, placesBefore, comparing, costOf) {
  const items = answer.results.map((result, place) => item(result, place + 1, documents[result.index], placesBefore));
  const ranked = make("ol", { class: items.length > LONG ? "ranked long" : "ranked", "aria-label": title }, ...items);
  const head = comparing ? [make("h3", {}, "AB"[at], make("span", { class: "hint", title }, title)), summary(answer, costOf, false)] : [];
  return make("div", { class: at ? "list b" : "list" }, ...head, ranked);
}

function item(result, place, text, placesBefore) {
  const score = result.relevance_score;
  const fill = make("div", { class: "fill" });
  fill.style.width = `${score * 100}%`;
  const row = make("div", { class: "score-row" },
    make("span", { class: "place" }, String(place), placesBefore && moved(placesBefore.get(result.index), place)),
    make("div", { class: "track", "aria-hidden": "true" }, fill),
    make("span", { class: "score" }, score.toFixed(4)));
  const long = text.length > 240 || text.split("\n", 5).length > 4;
  const body = make("p", { class: long ? "text clamped" : "text" }, ...marked(text, result.passages?.[0], result.num_passages));
  const meta = make("div", { class: "meta" },
    make("span", {}, `index ${result.index}`),
    result.num_passages > 1 ? make("span", {}, `best of ${result.num_passages} passages`) : null,
    ...explained(result.explain),
    body.classList.contains("clamped") ? unfold(body) : null);
  const prompt = result.explain?.prompt;
  return make("li", { "data-index": result.index, "data-score": score }, row, body, meta, prompt ? make("pre", { class: "prompt" }, prompt) : null);
}

/** The text, its best passage marked. Offsets count code points, JavaScript's strings half of some of them. */
function marked(text, passage, number) {
  if (!passage || number < 2) return [text];
  const characters = [...text];
  const part = (start, end) => characters.slice(start, end).join("");
  const lead = Math.max(0, passage.start - LEAD);
  const before = make("span", { class: "before" }, part(0, lead));
  return [before, part(lead, passage.start), make("mark", {}, part(passage.start, passage.end)), part(passage.end)];
}

/** How far a document moved from A to B. */
function moved(before, now) {
  if (before === undefined) return mark("up", "new", "not in A");
  if (before === now) return mark("same", "=", "same place as in A");
  return before > now ? mark("up", `▲${before - now}`, `${before - now} up`) : mark("down", `▼${now - before}`, `${now - before} down`);
}

function mark(kind, sign, words) {
  const seen = make("span", { "aria-hidden": "true" }, sign);
  return make("span", { class: `moved ${kind}`, title: words }, seen, make("span", { class: "unseen" }, `, ${words}`));
}

function explained(explain) {
  if (!explain) return [];
  const facts = [
    make("span", {}, `logit ${explain.logit.toFixed(3).replace("-", "−")}`),
    make("span", {}, `${explain.document_tokens.toLocaleString("en")} tokens`),
    ...explain.cuts.map((cut) => make("span", { class: "cut" }, `${cut.part} cut from ${cut.from} to ${cut.to} tokens`)),
  ];
  return explain.cached ? [...facts, make("span", {}, "cached")] : facts;
}

function unfold(body) {
  const button = make("button", { type: "button", class: "link", "aria-expanded": "false" }, "Show all");
  button.addEventListener("click", () => {
    const clamped = body.classList.toggle("clamped");
    button.setAttribute("aria-expanded", String(!clamped));
    button.textContent = clamped ? "Show all" : "Show less";
  });
  return button;
}

/** The raw replies, rendered when they are opened. */
function raw(sides) {
  const details = make("details", { class: "more" }, make("summary", {}, sides.length > 1 ? "The replies as JSON" : "The reply as JSON"));
  details.addEventListener("toggle", () => {
    const texts = sides.map(({ answer }) => make("pre", { class: "code", tabindex: "0" }, JSON.stringify(answer.reply, null, 2)));
    details.append(...texts);
  }, { once: true });
  return details;
}

/**
 * An error in the API's own words, and what to do.
 * @param {import("./api.js").Refused} error
 * @param {{needsKey?: boolean, canCreateKey?: boolean}} keys
 * @param {() => void} again
 */
export function refusal(error, { needsKey, canCreateKey }, again) {
  const title = error.status ? `${error.status}${error.code ? ` ${error.code}` : ""}` : "No answer";
  const way = wayOut(error, needsKey, canCreateKey);
  const button = make("button", { type: "button", class: "small" }, "Try again");
  button.addEventListener("click", again);
  return make("div", { class: "notice bad", role: "alert" },
    make("p", {}, make("b", {}, title), " ", error.message), way && make("p", {}, way), button);
}

function wayOut(error, needsKey, canCreateKey) {
  const credit = error.status === 402 || error.code === "insufficient_quota" || error.code === "Arrearage";
  if (credit) return "An administrator of this server can add credits to the account.";
  if (error.status === 401 && needsKey) {
    return make("span", {}, "Enter a valid key in the field “API key”", canCreateKey ? make("span", {}, ", or ", make("a", { href: `${BASE}/keys` }, "create one")) : "", ".");
  }
  if (error.retryAfter) return `Try again in ${error.retryAfter} s.`;
  if (error.status === 0) return "Check that the server is running, and that it served this page.";
  return null;
}
