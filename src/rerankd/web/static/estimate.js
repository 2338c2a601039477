// Estimates the tokens of a call before it is sent. Learns from the calls that were answered. Knows no page.

/** Tokens per character: of scripts without spaces, and of all others. */
const DENSE = 0.8, PLAIN = 0.25;

const DENSE_SIGNS = /[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/gu;

let factor = 1;

function tokensOf(text) {
  const dense = text.match(DENSE_SIGNS)?.length ?? 0;
  return Math.max(1, DENSE * dense + PLAIN * (text.length - dense));
}

/** As the server bills them: query tokens × documents + the tokens of all documents; each text once as a document. */
export function rawTokens({ query, documents }) {
  return tokensOf(query) * documents.length + documents.reduce((sum, text) => sum + tokensOf(text), 0);
}

export function estimatedTokens(call) {
  return Math.round(rawTokens(call) * factor);
}

/** Corrects later estimates. */
export function learn(call, tokens) {
  if (tokens > 0 && !call.passages) factor = Math.min(8, Math.max(0.1, tokens / rawTokens(call)));
}
