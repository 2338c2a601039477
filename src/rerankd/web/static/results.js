// Shows a ranking. Every text is set as text, never as HTML.

import { button, make, number, time, visibleEnd } from "./dom.js";

/** @typedef {import("./api.js").Answer} Answer */
/** @typedef {{answer: Answer, documents: string[], title: string}} Side */

/** Items; the browser lays out only the visible part of longer lists. */
const LONG = 60;

/** Characters that are shown before a passage while the text is clamped. */
const LEAD = 80;

/**
 * One ranking.
 * @param {Side} side
 * @param {(answer: Answer) => string} costOf
 * @param {HTMLElement[]} tools buttons beside the figures.
 */
export function ranking({ answer, documents, title }, costOf, tools) {
  const items = answer.results.map((result, place) => item(result, place + 1, documents[result.index]));
  const figures = {
    ranked: number(answer.results.length),
    tokens: number(answer.tokens),
    cost: costOf(answer),
    time: time(answer.seconds),
    model: answer.model,
  };
  return framed(summary(figures), answer.warnings, tools, listed(items, title), answer.replies);
}

/** The frame of every ranking: figures, tools, warnings, threshold, list, replies. */
export function framed(figures, warnings, tools, list, replies) {
  const fragment = document.createDocumentFragment();
  fragment.append(make("div", { class: "results-head" }, figures, make("div", { class: "tools" }, ...tools)));
  if (warnings.length) fragment.append(warned(warnings));
  fragment.append(threshold(list), list, raw(replies));
  return fragment;
}

export function listed(items, title, kind = "") {
  return make("ol", { class: `ranked ${kind}${items.length > LONG ? " long" : ""}`, "aria-label": title }, ...items);
}

/** @param {Record<string, string>} figures */
export function summary(figures) {
  const pairs = Object.entries(figures).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  return make("dl", { class: "summary" }, ...pairs);
}

/** A slider that greys what a `min_score` would leave out. */
function threshold(list) {
  const range = { type: "range", id: "min-score", min: "0", max: "1", step: "0.01", value: "0" };
  const slider = /** @type {HTMLInputElement} */ (make("input", range));
  const told = make("output", { for: "min-score" });
  const items = [...list.querySelectorAll("li[data-score]")];
  const act = () => {
    for (const each of items) each.classList.toggle("under", Number(each.dataset.score) < Number(slider.value));
    const kept = items.filter((each) => !each.classList.contains("under")).length;
    told.textContent = `≥ ${Number(slider.value).toFixed(2)}: ${kept} of ${items.length} kept`;
  };
  slider.addEventListener("input", act);
  act();
  return make("p", { class: "threshold" }, make("label", { for: "min-score" }, "Threshold"), slider, told);
}

function warned(warnings) {
  const inner = warnings.length === 1 ? [warnings[0]] : [make("ul", {}, ...warnings.map((one) => make("li", {}, one)))];
  return make("div", { class: "notice", "data-warnings": "" }, ...inner);
}

function item(result, place, text) {
  const score = result.relevance_score;
  const row = make("div", { class: "score-row" }, make("span", { class: "place" }, String(place)), ...scoreBar(score));
  const body = textOf(result, text);
  const meta = metaOf(result, body, explained(result.explain));
  const prompt = result.explain?.prompt;
  return make("li", { "data-index": result.index, "data-score": score }, row, body, meta, prompt ? make("pre", { class: "prompt" }, prompt) : null);
}

/** The bar and the number of a score. */
export function scoreBar(score) {
  const fill = make("div", { class: "fill" });
  fill.style.width = `${score * 100}%`;
  return [make("div", { class: "track", "aria-hidden": "true" }, fill), make("span", { class: "score" }, score.toFixed(4))];
}

/** A document, its best passage or sentence marked; a long one is clamped. */
export function textOf(result, text) {
  const long = text.length > 240 || text.split("\n", 5).length > 4;
  return make("p", { class: long ? "text clamped" : "text", dir: "auto" }, ...marked(text, result.passages?.[0], result.num_passages));
}

/** The line below a document. */
export function metaOf(result, body, facts) {
  return make("div", { class: "meta" },
    make("span", {}, `index ${result.index}`),
    result.num_passages > 1 ? make("span", {}, `best of ${result.num_passages} passages`) : null,
    ...facts,
    body.classList.contains("clamped") ? unfold(body) : null);
}

/** Offsets count code points, JavaScript's strings half of some of them. */
function marked(text, passage, passages) {
  const sentences = passage?.sentences ?? [];
  const best = sentences.reduce((top, one) => (top === null || one.score > top.score ? one : top), null);
  const winner = best && sentences.length > 1 ? best : passages > 1 ? passage : null;
  if (!winner) return [text];
  const characters = [...text];
  const part = (start, end) => characters.slice(start, end).join("");
  const lead = Math.max(0, winner.start - LEAD);
  const before = make("span", { class: "before" }, part(0, lead));
  const end = visibleEnd(characters, winner.start, winner.end);
  return [before, part(lead, winner.start), make("mark", {}, part(winner.start, end)), part(end)];
}

function explained(explain) {
  if (!explain) return [];
  const facts = [
    make("span", {}, `logit ${explain.logit.toFixed(3).replace("-", "−")}`),
    make("span", {}, `${number(explain.document_tokens)} tokens`),
    ...explain.cuts.map((cut) => make("span", { class: "cut" }, `${cut.part} cut from ${cut.from} to ${cut.to} tokens`)),
  ];
  return explain.cached ? [...facts, make("span", {}, "cached")] : facts;
}

function unfold(body) {
  const act = (pressed) => {
    const clamped = body.classList.toggle("clamped");
    pressed.setAttribute("aria-expanded", String(!clamped));
    pressed.textContent = clamped ? "Show all" : "Show less";
  };
  const made = button("Show all", act, "link");
  made.setAttribute("aria-expanded", "false");
  return made;
}

/** The raw replies, rendered when they are opened. */
function raw(replies) {
  const details = make("details", { class: "more" }, make("summary", {}, replies.length > 1 ? "Replies as JSON" : "Reply as JSON"));
  details.addEventListener("toggle", () => {
    const texts = replies.map((reply) => make("pre", { class: "code", tabindex: "0" }, JSON.stringify(reply, null, 2)));
    details.append(...texts);
  }, { once: true });
  return replies.length ? details : document.createDocumentFragment();
}
