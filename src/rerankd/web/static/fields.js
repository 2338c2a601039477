// The form's fields: their state, which links and the history keep, and the calls that they make.

import { $ } from "./dom.js";
import { readDocuments } from "./documents.js";

export const page = $("playground");

/** What the server says about itself and the visitor. */
export const server = JSON.parse(page.dataset.state);

/** @type {Record<string, any>} */
export const fields = {
  query: $("query"), documents: $("documents"), format: $("format"), column: $("column"), topN: $("top-n"),
  promptOf: $("prompt-of"), returnDocuments: $("return-documents"), explain: $("explain"), passages: $("passages"),
  highlight: $("highlight"), live: $("live"), compare: $("compare"),
  modelA: $("model-a"), instructA: $("instruct-a"), modelB: $("model-b"), instructB: $("instruct-b"),
};

/** @returns {Record<string, any>} by the names of `fields`. */
export function readState() {
  return Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.type === "checkbox" ? field.checked : field.value]));
}

export function writeState(state) {
  for (const [name, field] of Object.entries(fields)) {
    const value = state[name];
    if (field.type === "checkbox" && typeof value === "boolean") field.checked = value;
    else if (typeof value === "string") choose(field, value);
  }
}

/** Sets a field; a menu gets the value as an entry if it has none: a model's other name, a table's column. */
export function choose(field, value) {
  if (field.options && value && ![...field.options].some((one) => one.value === value)) field.add(new Option(value));
  field.value = value;
}

/** @returns {ReturnType<typeof readDocuments>} @throws {SyntaxError} they cannot be read. */
export function documentsNow() {
  return readDocuments(fields.documents.value, fields.format.value, fields.column.value);
}

/** The model that answers to a name. */
export function modelOf(name) {
  return server.models.find((one) => one.name === name || one.aliases.includes(name));
}

/** The body of a call. @param {string} side A or B. @throws {SyntaxError} the documents cannot be read. */
export function callOf(side) {
  const number = (field) => (field.value === "" ? undefined : Number(field.value));
  const promptOf = number(fields.promptOf);
  const passages = fields.highlight.checked ? { highlight: true } : fields.passages.checked || undefined;
  return {
    model: fields[`model${side}`].value,
    query: fields.query.value,
    documents: documentsNow().documents,
    top_n: number(fields.topN),
    instruct: fields[`instruct${side}`].value.trim() || undefined,
    return_documents: fields.returnDocuments.checked,
    passages,
    explain: fields.explain.checked ? (promptOf === undefined ? true : { prompt: promptOf }) : undefined,
  };
}

/** The calls that Rank sends: one, or two to compare. */
export function callsNow() {
  return (fields.compare.checked ? ["A", "B"] : ["A"]).map(callOf);
}
