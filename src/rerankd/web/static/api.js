// One rerank call through the public API, as any other client makes it.

import { BASE } from "./base.js";

/** What the server, or the way to it, said instead of a ranking. */
export class Refused extends Error {
  /**
   * @param {number} status of HTTP, 0 where there was no answer.
   * @param {string} code the API's name of the mistake.
   * @param {number | null} retryAfter seconds.
   */
  constructor(message, status, code = "", retryAfter = null) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/**
 * @param {object} call the body of a compatible rerank.
 * @returns {Promise<{results: object[], tokens: number, warnings: string[], model: string, cost: number | null,
 *   id: string, seconds: number, reply: object}>} cost: in millionths, null where the server did not tell.
 * @throws {Refused | DOMException} AbortError where `signal` ended it.
 */
export async function rerank(call, key, signal) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const started = performance.now();
  let response, reply;
  try {
    response = await fetch(`${BASE}/compatible-api/v1/reranks`, {
      method: "POST", body: JSON.stringify(call), headers, signal, credentials: "omit", cache: "no-store",
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
    warnings: reply.meta?.warnings ?? (head("x-rerankd-warning") ? [head("x-rerankd-warning")] : []),
    model: head("x-rerankd-model") ?? reply.model,
    cost: cost === null ? null : Number(cost),
    id: head("x-request-id") ?? reply.id,
    seconds: (performance.now() - started) / 1000,
    reply,
  };
}
