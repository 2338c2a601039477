// The page Search: asks /v1/search as any other client does, and shows files, lines and the best sentence.
import { Refused, ask } from "./api.js";
import { $, make, time, visibleEnd } from "./dom.js";
import { refusal } from "./refusal.js";

const TOP_N = 10;
const LONG_CHARS = 420;
const LONG_LINES = 8;
const LEAD_CHARS = 120;

const page = $("search");
const server = JSON.parse(page.dataset.state);
/** @type {AbortController | null} */
let running = null;

async function search() {
  const query = $("query").value.trim();
  running?.abort();
  if (!query) return;
  const mine = new AbortController();
  running = mine;
  history.replaceState(null, "", `#${encodeURIComponent(query)}`);
  page.setAttribute("aria-busy", "true");
  const call = {
    query, model: $("model").value || undefined, top_n: TOP_N, depth: Number($("depth").value),
    first: $("first")?.value,
    passages: $("highlight").checked ? { highlight: true } : undefined,
  };
  try {
    const who = { key: $("key")?.value.trim(), csrf: server.csrf };
    const answer = await ask("/v1/search", call, who, mine.signal);
    $("output").replaceChildren(...shown(answer));
    $("said").textContent = `${answer.results.length} results in ${time(answer.seconds)}.`;
  } catch (error) {
    if (mine.signal.aborted) return;
    const told = error instanceof Refused ? error : new Refused(`This is a bug in the page: ${error.message}`, 0);
    $("output").replaceChildren(refusal(told, { needsKey: server.needsKey, canCreateKey: server.accounts }, search));
  } finally {
    if (running === mine) page.setAttribute("aria-busy", "false");
  }
}

function shown(answer) {
  const { found, model } = answer.replies[0];
  if (!found) return [make("p", { class: "empty" }, "No part of the files has a word of this.")];
  const about = `The best ${answer.results.length} of ${found} parts, ranked by ${model} in ${time(answer.seconds)}`;
  const notes = answer.warnings.map((one) => make("p", { class: "notice" }, one));
  return [make("p", { class: "hint" }, about), ...notes, make("ol", { class: "ranked", "aria-label": "Results" }, ...answer.results.map(item))];
}

function item(result) {
  const lines = result.first === result.last ? `${result.first}` : `${result.first}–${result.last}`;
  const place = make("div", { class: "place-row" },
    make("span", { class: "file" }, result.path),
    make("span", { class: "hint" }, result.id ? `${lines} · ${result.id}` : lines),
    make("span", { class: "score", title: "score" }, result.score.toFixed(4)));
  const above = result.heading ? make("p", { class: "above" }, result.heading) : null;
  return make("li", {}, place, above, ...text(result));
}

/** The text with its best sentence marked; a long text shows what is near the mark. */
function text(result) {
  const characters = [...result.text]; // offsets count code points
  const best = bestSentence(result);
  const part = (start, end) => characters.slice(start, end).join("");
  const body = make("p", { class: "text" });
  const show = (from, to) => {
    const [start, least] = best ? [Math.max(best.start, from), Math.min(best.end, to)] : [from, from];
    const end = visibleEnd(characters, start, least);
    body.replaceChildren(from ? "… " : "", part(from, start), best ? make("mark", {}, part(start, end)) : "", part(end, to), to < characters.length ? " …" : "");
  };
  const lines = characters.filter((one) => one === "\n").length + 1;
  if (characters.length <= LONG_CHARS && lines <= LONG_LINES) {
    show(0, characters.length);
    return [body];
  }
  const from = Math.max(0, Math.min((best?.start ?? 0) - LEAD_CHARS, characters.length - LONG_CHARS));
  const some = part(from, from + LONG_CHARS).split("\n").slice(0, LONG_LINES).join("\n");
  show(from, Math.max(from + [...some].length, best?.end ?? 0));
  const button = make("button", { type: "button", class: "link" }, "Show all");
  button.addEventListener("click", () => { show(0, characters.length); button.remove(); });
  return [body, button];
}

function bestSentence(result) {
  const sentences = result.passages?.[0]?.sentences ?? [];
  return sentences.reduce((best, one) => (!best || one.score > best.score ? one : best), null);
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); search(); });
for (const name of ["model", "depth", "first", "highlight"]) $(name)?.addEventListener("change", search);
if ($("key")) {
  $("key").value = sessionStorage.getItem("rerankd-key") ?? "";
  $("key").addEventListener("input", () => sessionStorage.setItem("rerankd-key", $("key").value.trim()));
}
$("query").value = decodeURIComponent(location.hash.slice(1));
if ($("query").value) search();
else $("query").focus();
page.dataset.started = "";
