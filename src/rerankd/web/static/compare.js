// Two rankings of the same documents as one list: both ranks, both scores, and what moved.

import { make, number, time } from "./dom.js";
import { framed, listed, metaOf, scoreBar, summary, textOf } from "./results.js";

/** @typedef {import("./results.js").Side} Side */

const ORDERS = {
  "by B": (one) => one.placeB ?? Infinity,
  "by A": (one) => one.placeA ?? Infinity,
  "by what moved": (one) => -Math.abs(move(one)),
};

/**
 * @param {Side} a
 * @param {Side} b
 * @param {(answer: import("./api.js").Answer) => string} costOf
 * @param {HTMLElement[]} tools
 */
export function comparison(a, b, costOf, tools) {
  const rows = joined(a, b);
  const title = `A: ${a.title}; B: ${b.title}`;
  const list = listed(rows.map((one) => item(one)), title, "merged");
  const order = make("select", { id: "order", "aria-label": "Order" }, ...Object.keys(ORDERS).map((name) => make("option", {}, name)));
  order.addEventListener("change", () => {
    const by = ORDERS[/** @type {HTMLSelectElement} */ (order).value];
    const items = new Map(rows.map((one, at) => [one, list.children[at]]));
    rows.sort((one, other) => by(one) - by(other) || ORDERS["by B"](one) - ORDERS["by B"](other));
    list.replaceChildren(...rows.map((one) => items.get(one)));
  });
  const warnings = [...new Set([...a.answer.warnings, ...b.answer.warnings])];
  const figures = make("div", { class: "both" }, legend("A", a, costOf), legend("B", b, costOf), told(rows));
  return framed(figures, warnings, [order, ...tools], list, [...a.answer.replies, ...b.answer.replies]);
}

/** Every document that one of them ranked, in B's order. */
export function joined(a, b) {
  const places = (side) => new Map(side.answer.results.map((result, at) => [result.index, { result, place: at + 1 }]));
  const [inA, inB] = [places(a), places(b)];
  const rows = [...new Set([...inB.keys(), ...inA.keys()])].map((index) => ({
    index, text: a.documents[index],
    resultA: inA.get(index)?.result, placeA: inA.get(index)?.place,
    resultB: inB.get(index)?.result, placeB: inB.get(index)?.place,
  }));
  return rows;
}

/** How many places a document rose from A to B; negative: fell. */
function move({ placeA, placeB }) {
  if (placeA === undefined || placeB === undefined) return placeA === placeB ? 0 : 1e9;
  return placeA - placeB;
}

function legend(letter, { answer, title }, costOf) {
  const figures = { tokens: number(answer.tokens), cost: costOf(answer), time: time(answer.seconds) };
  return make("div", { class: `legend ${letter.toLowerCase()}` }, make("h3", {}, letter, make("span", { class: "hint", title }, title)), summary(figures));
}

function told(rows) {
  const moved = rows.filter((one) => move(one) !== 0).length;
  const best = rows.find((one) => one.placeB === 1);
  const first = best?.placeA === 1 ? "The best document is the same." : "Another document is the best.";
  return make("p", { class: "told" }, moved ? `${moved} of ${rows.length} documents moved. ${first}` : "Both rankings have the same order.");
}

function item(one) {
  const result = one.resultB ?? one.resultA;
  const body = textOf(result, one.text);
  const head = make("div", { class: "pair" },
    make("span", { class: "places" }, rank("A", one.placeA), make("span", { "aria-hidden": "true" }, "→"), rank("B", one.placeB), moved(one)),
    bar("a", one.resultA), bar("b", one.resultB));
  return make("li", { "data-index": one.index, "data-score": result.relevance_score, "data-a": one.placeA, "data-b": one.placeB },
    head, body, metaOf(result, body, []));
}

function rank(letter, place) {
  return make("span", { class: `rank ${letter.toLowerCase()}` }, make("span", { class: "unseen" }, `${letter}: `), place === undefined ? "–" : String(place));
}

function bar(letter, result) {
  const inner = result ? scoreBar(result.relevance_score) : [make("span", { class: "hint" }, "not among the best"), make("span", { class: "score" }, "–")];
  return make("div", { class: `score-row ${letter}` }, make("span", { class: "letter" }, letter.toUpperCase()), ...inner);
}

function moved(one) {
  if (one.placeA === undefined) return mark("up", "new", "not in A");
  if (one.placeB === undefined) return mark("down", "out", "not in B");
  const by = move(one);
  if (!by) return mark("same", "=", "same place");
  return by > 0 ? mark("up", `▲${by}`, `${by} up`) : mark("down", `▼${-by}`, `${-by} down`);
}

function mark(kind, sign, words) {
  const seen = make("span", { "aria-hidden": "true" }, sign);
  return make("span", { class: `moved ${kind}`, title: words }, seen, make("span", { class: "unseen" }, `, ${words}`));
}
