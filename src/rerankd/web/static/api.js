// Calls of the public API, as any other client makes them.

import { BASE } from "./base.js";

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
 * @typedef {{index: number, relevance_score: number, explain?: any}} Result
 * @typedef {object} Answer
 * @property {Result[]} results
 * @property {number} tokens
 * @property {string[]} warnings
 * @property {string} model
 * @property {number | null} cost in millionths; null if the server did not send it.
 * @property {string} id
 * @property {number} seconds
 * @property {object} reply
 */

/** A compatible rerank. See `ask`. */
export function rerank(call, who, signal) {
  return ask("/compatible-api/v1/reranks", call, who, signal);
}

/**
 * @param {string} path of an API whose reply has `results` and `usage`.
 * @param {object} call its body.
 * @param {{key?: string, csrf?: string}} who a key; else the token of the visitor's session, which pays.
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 * @throws {Refused | DOMException} AbortError if `signal` aborted it.
 */
export async function ask(path, call, { key, csrf }, signal) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  else if (csrf) headers["x-rerankd-csrf"] = csrf;
  const started = performance.now();
  let response, reply;
  try {
    response = await fetch(`${BASE}${path}`, {
      method: "POST", body: JSON.stringify(call), headers, signal, credentials: key || !csrf ? "omit" : "same-origin", cache: "no-store",
    });
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
    reply,
  };
}
