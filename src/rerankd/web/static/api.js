// Calls of the public API, as any other client makes them.

import { BASE } from "./base.js";
import { rawTokens } from "./estimate.js";

/** An error of the server or of the connection. */
export class Refused extends Error {
  /**
   * @param {string} message
   * @param {number} status the HTTP status; 0 without a response.
   * @param {string} code the API's error code.
   * @param {number | null} retryAfter seconds.
   */
  constructor(message, status, code = "", retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/**
 * @typedef {{index: number, relevance_score: number, explain?: any, passages?: any[], num_passages?: number}} Result
 * @typedef {object} Answer
 * @property {Result[]} results
 * @property {number} tokens
 * @property {string[]} warnings
 * @property {string} model
 * @property {number | null} cost in millionths; null if the server did not send it.
 * @property {string} id
 * @property {number} seconds
 * @property {object[]} replies
 *
 * @typedef {{key?: string, csrf?: string}} Who a key; else the token of the visitor's session, which pays.
 */

/** A compatible rerank. See `ask`. */
export function rerank(call, who, signal) {
  return ask("/compatible-api/v1/reranks", call, who, signal);
}

/**
 * @param {string} path of an API whose reply has `results` and `usage`.
 * @param {object} call its body.
 * @param {Who} who
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 * @throws {Refused | DOMException} AbortError if `signal` aborted it.
 */
export async function ask(path, call, { key, csrf }, signal) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  else if (csrf) headers["x-rerankd-csrf"] = csrf;
  const credentials = key || !csrf ? "omit" : "same-origin";
  return received(path, {
    method: "POST", body: JSON.stringify(call), headers, signal, credentials, cache: "no-store",
  });
}

/**
 * The ranking of a sample, which the server makes once and gives to everybody.
 * @param {string} name
 * @param {AbortSignal} signal
 */
export async function sampleRanking(name, signal) {
  const answer = await received(`/sample?name=${encodeURIComponent(name)}`, { signal });
  for (const result of answer.results) result.relevance_score = result.score;
  const [{ seconds }] = /** @type {any[]} */ (answer.replies);
  return { ...answer, seconds };
}

async function received(path, options) {
  const started = performance.now();
  let response, reply;
  try {
    response = await fetch(`${BASE}${path}`, options);
    reply = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response) throw new Refused(`The server answered ${response.status} without JSON.`, response.status);
    throw new Refused("The server cannot be reached.", 0);
  }
  const head = (name) => response.headers.get(name);
  if (!response.ok) {
    const wait = Number(head("retry-after")) || null;
    throw new Refused(reply.error?.message ?? reply.message ?? JSON.stringify(reply), response.status, reply.error?.code, wait);
  }
  const cost = head("x-rerankd-cost");
  return {
    results: reply.results,
    tokens: reply.usage.total_tokens,
    warnings: reply.warnings ?? reply.meta?.warnings ?? (head("x-rerankd-warning") ? [head("x-rerankd-warning")] : []),
    model: head("x-rerankd-model") ?? reply.model,
    cost: cost === null ? null : Number(cost),
    id: head("x-request-id") ?? reply.id,
    seconds: (performance.now() - started) / 1000,
    replies: [reply],
  };
}

/**
 * Parts of a call that the server's limits let through: by documents, and by an estimate of the tokens.
 * @param {any} call
 * @param {{maxDocuments: number, maxTokens: number}} limits
 * @returns {{start: number, call: any}[]}
 */
export function split(call, { maxDocuments, maxTokens }) {
  const { documents } = call;
  const byTokens = Math.max(1, Math.floor(documents.length * Math.min(1, maxTokens / 2 / rawTokens(call))));
  const size = Math.min(maxDocuments, byTokens);
  const parts = [];
  for (let start = 0; start < documents.length || !start; start += size) {
    parts.push({ start, call: { ...call, documents: documents.slice(start, start + size), explain: explained(call.explain, start, size) } });
  }
  return parts;
}

/** `explain.prompt` is an index of the whole call. */
function explained(explain, start, size) {
  if (explain?.prompt === undefined) return explain;
  const at = explain.prompt - start;
  return at >= 0 && at < size ? { prompt: at } : true;
}

/**
 * One ranking of any number of documents, from as many calls as the limits ask for.
 * @param {any} call
 * @param {Who} who
 * @param {AbortSignal} signal
 * @param {{maxDocuments: number, maxTokens: number}} limits
 * @param {(done: number, all: number) => void} progress
 * @returns {Promise<Answer>}
 */
export async function rerankAll(call, who, signal, limits, progress) {
  const parts = split(call, limits);
  if (parts.length === 1) return rerank(call, who, signal);
  const started = performance.now();
  const answers = [];
  for (const part of parts) {
    progress(answers.length, parts.length);
    const answer = await rerank(part.call, who, signal);
    for (const result of answer.results) result.index += part.start;
    answers.push(answer);
  }
  return { ...merged(answers, call.top_n), seconds: (performance.now() - started) / 1000 };
}

function merged(answers, topN) {
  const results = answers.flatMap((answer) => answer.results);
  results.sort((a, b) => b.relevance_score - a.relevance_score || a.index - b.index);
  const sum = (name) => answers.reduce((total, answer) => total + (answer[name] ?? 0), 0);
  return {
    results: results.slice(0, topN),
    tokens: sum("tokens"),
    warnings: [...new Set(answers.flatMap((answer) => answer.warnings))],
    model: answers[0].model,
    cost: answers.some((answer) => answer.cost === null) ? null : sum("cost"),
    id: answers.map((answer) => answer.id).join(", "),
    replies: answers.flatMap((answer) => answer.replies),
  };
}
