// A ranking as a file: CSV for spreadsheets, JSON for programs.

import { joined } from "./compare.js";
import { writeTable } from "./csv.js";
import { button, download } from "./dom.js";

/** @typedef {import("./results.js").Side} Side */

/** The buttons that save these sides. @param {Side[]} sides */
export function exports(sides) {
  const name = `ranking-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}`;
  const csv = button("CSV", () => download(`${name}.csv`, "text/csv", `\ufeff${writeTable(sides.length > 1 ? bothRows(sides) : rows(sides[0]))}`));
  const json = button("JSON", () => download(`${name}.json`, "application/json", JSON.stringify(objects(sides), null, 2)));
  csv.setAttribute("aria-label", "Export as CSV");
  json.setAttribute("aria-label", "Export as JSON");
  return [csv, json];
}

function rows({ answer, documents }) {
  const table = answer.results.map((one, at) => [at + 1, one.index, one.relevance_score, one.explain?.logit ?? "", documents[one.index]]);
  return [["rank", "index", "score", "logit", "document"], ...table];
}

/** @param {Side[]} sides */
function bothRows([a, b]) {
  const table = joined(a, b).map((one) => [one.index, one.placeA ?? "", one.placeB ?? "", one.resultA?.relevance_score ?? "", one.resultB?.relevance_score ?? "", one.text]);
  return [["index", "rank_a", "rank_b", "score_a", "score_b", "document"], ...table];
}

function objects(sides) {
  return sides.map(({ answer, documents, title }) => ({
    title,
    model: answer.model,
    tokens: answer.tokens,
    warnings: answer.warnings,
    results: answer.results.map((one, at) => ({ rank: at + 1, index: one.index, score: one.relevance_score, document: documents[one.index] })),
  }));
}
