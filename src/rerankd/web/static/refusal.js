// Errors for people: the page's own, and the server's with a way out.

import { BASE } from "./base.js";
import { button, make } from "./dom.js";

/** A mistake that the page itself finds. Sending it again cannot help. */
export class Mistake extends Error {}

/** What a status means. */
const TITLES = {
  0: "No answer",
  400: "The request was refused",
  401: "The key was refused",
  402: "Out of credit",
  403: "Not allowed",
  404: "Unknown model",
  408: "The request took too long",
  413: "Too much at once",
  429: "Too many requests",
  500: "The server failed",
  503: "The server is not ready",
};

/**
 * @param {Error} error a `Mistake`, or a `Refused` of `api.js`.
 * @param {{needsKey?: boolean, canCreateKey?: boolean, signedIn?: boolean}} keys
 * @param {() => void} again
 */
export function refusal(error, keys, again) {
  if (error instanceof Mistake) return make("div", { class: "notice bad", role: "alert" }, make("p", {}, error.message));
  const refused = /** @type {import("./api.js").Refused} */ (error);
  const way = wayOut(refused, keys);
  const code = refused.status ? `${refused.status}${refused.code ? ` ${refused.code}` : ""}` : "";
  return make("div", { class: "notice bad", role: "alert" },
    make("p", {}, make("b", {}, isCredit(refused) ? TITLES[402] : TITLES[refused.status] ?? "The request failed"), ". ", refused.message, " ", code && make("code", {}, code)),
    way && make("p", {}, way), button("Try again", again));
}

function isCredit({ status, code }) {
  return status === 402 || code === "insufficient_quota" || code === "Arrearage";
}

/**
 * @param {import("./api.js").Refused} error
 * @param {{needsKey?: boolean, canCreateKey?: boolean, signedIn?: boolean}} keys
 */
function wayOut(error, { needsKey, canCreateKey, signedIn }) {
  if (isCredit(error)) return "An administrator of this server can add credits to the account.";
  if (error.status === 401 && signedIn) return make("span", {}, make("a", { href: `${BASE}/sign-in` }, "Sign in again"), ", or enter a key.");
  if (error.status === 401 && needsKey) {
    return make("span", {}, "Enter a valid key in the field “API key”", canCreateKey ? make("span", {}, ", or ", make("a", { href: `${BASE}/keys` }, "create one")) : "", ".");
  }
  if (error.retryAfter) return `Try again in ${error.retryAfter} s.`;
  if (error.status === 0) return "Check that the server is running, and that it served this page.";
  return null;
}
