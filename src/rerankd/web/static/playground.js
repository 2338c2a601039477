// The playground: calls the public API with the form's fields, and shows the rankings side by side.
import { BASE } from "./base.js";
import { Refused, rerank } from "./api.js";
import { readDocuments } from "./documents.js";
import { money, rankings, refusal, time } from "./results.js";
import { MAX_LENGTH, pack, unpack } from "./share.js";
import { SNIPPETS, snippet } from "./snippets.js";

const LIVE_MS = 350;
const SAVE_MS = 300;
const MAX_FILE_BYTES = 50_000_000;

const EXAMPLES = {
  answer: {
    query: "How do I keep bread fresh for longer?",
    documents: [
      "Store bread at room temperature in a paper bag or a bread box; it stays fresh for two to four days.",
      "Bread was already baked in Egypt five thousand years ago.",
      "Sliced bread can be frozen for up to three months. Toast the slices straight from the freezer.",
      "Do not put bread into the refrigerator: the cold makes it go stale faster.",
      "A sourdough starter has to be fed with flour and water every day.",
      "The price of wheat rose by four percent in March.",
      "To revive a stale loaf, sprinkle it with water and put it into a hot oven for five minutes.",
      "Butter keeps for several weeks when it is cold and wrapped.",
    ],
  },
  similarity: {
    query: "The parcel arrived two days late and the box was damaged.",
    documents: [
      "My order came late, and its packaging was broken.",
      "Great product, I would buy it again.",
      "Delivery took longer than promised.",
      "The carton was crushed when the courier handed it over.",
      "How do I return an article?",
      "The colours are much nicer than in the pictures.",
    ],
  },
};

/** @returns {any} the element, which the template has. */
const $ = (/** @type {string} */ id) => document.getElementById(id);
const page = $("playground");
const server = JSON.parse(page.dataset.state);
const fields = {
  query: $("query"), documents: $("documents"), format: $("format"), topN: $("top-n"), promptOf: $("prompt-of"),
  returnDocuments: $("return-documents"), explain: $("explain"), passages: $("passages"), live: $("live"), compare: $("compare"),
  modelA: $("model-a"), instructA: $("instruct-a"), modelB: $("model-b"), instructB: $("instruct-b"),
};
/** @type {AbortController | null} */
let running = null;

// Fields and state.

function readState() {
  return Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.type === "checkbox" ? field.checked : field.value]));
}

function writeState(state) {
  for (const [name, field] of Object.entries(fields)) {
    const value = state[name];
    if (field.type === "checkbox" && typeof value === "boolean") field.checked = value;
    else if (typeof value === "string") {
      if (field.id.startsWith("model-") && value && ![...field.options].some((one) => one.value === value)) field.add(new Option(value));
      field.value = value;
    }
  }
}

/** @returns {NodeListOf<HTMLElement>} the buttons that fill in an instruct. */
function chips() {
  return document.querySelectorAll(".chip[data-side]");
}

function putExample(name) {
  fields.query.value = EXAMPLES[name].query;
  fields.documents.value = EXAMPLES[name].documents.join("\n");
  fields.format.value = "auto";
}

function later(wait, act) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, wait);
  };
}

const save = later(SAVE_MS, async () => {
  const fragment = await pack(readState());
  try { sessionStorage.setItem("rerankd-state", fragment); } catch { /* too large to keep */ }
  history.replaceState(null, "", fragment.length <= MAX_LENGTH ? fragment : location.pathname);
});

function show() {
  page.classList.toggle("comparing", fields.compare.checked);
  $("side-b").hidden = !fields.compare.checked;
  $("side-a").querySelector("legend").textContent = fields.compare.checked ? "A" : "Instruct and model";
  $("side-b").querySelector("legend").textContent = "B";
  for (const chip of chips()) {
    const text = $(`instruct-${chip.dataset.side}`).value || server.defaultInstruct;
    chip.setAttribute("aria-pressed", String(text === chip.dataset.instruct));
  }
  if (!fields.explain.checked) fields.promptOf.value = "";
  fields.promptOf.disabled = !fields.explain.checked;
  count();
}

function count() {
  let told, wrong = false;
  try {
    const { length } = readDocuments(fields.documents.value, fields.format.value).documents;
    wrong = length > server.maxDocuments;
    told = wrong ? `${length}; a request may have ${server.maxDocuments}` : String(length);
  } catch (error) {
    [told, wrong] = [error.message, true];
  }
  $("count").textContent = told;
  fields.documents.setAttribute("aria-invalid", String(wrong));
}

/** A whole request that was pasted also fills the other fields. */
function takeRequest() {
  try {
    const { documents, query, instruct } = readDocuments(fields.documents.value, fields.format.value);
    if (query === undefined) return;
    fields.query.value = query;
    if (instruct !== undefined) fields.instructA.value = instruct;
    fields.documents.value = JSON.stringify(documents, null, 1);
  } catch { /* told beside the field */ }
}

// Calls.

/** The body of a call. @throws {SyntaxError} the documents cannot be read. */
function callOf(side) {
  const { documents } = readDocuments(fields.documents.value, fields.format.value);
  const number = (field) => (field.value === "" ? undefined : Number(field.value));
  const promptOf = number(fields.promptOf);
  return {
    model: fields[`model${side}`].value,
    query: fields.query.value,
    documents,
    top_n: number(fields.topN),
    instruct: fields[`instruct${side}`].value.trim() || undefined,
    return_documents: fields.returnDocuments.checked,
    passages: fields.passages.checked || undefined,
    explain: fields.explain.checked ? (promptOf === undefined ? true : { prompt: promptOf }) : undefined,
  };
}

function titleOf(call, answer) {
  const mode = document.querySelector(`.chip[data-instruct="${CSS.escape(call.instruct ?? server.defaultInstruct)}"]`);
  return `${mode?.textContent ?? call.instruct} · ${answer.model}`;
}

function costOf(answer) {
  const micro = answer.cost ?? Math.ceil(answer.tokens * Number(server.price));
  return money(micro, server.currency);
}

async function rank() {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  const busy = (yes) => {
    page.classList.toggle("busy", yes);
    page.setAttribute("aria-busy", String(yes));
  };
  busy(true);
  try {
    const calls = (fields.compare.checked ? ["A", "B"] : ["A"]).map(callOf);
    const key = $("key")?.value.trim();
    const who = { key, csrf: server.csrf };
    const answers = await Promise.all(calls.map((call) => rerank(call, who, mine.signal)));
    const sides = answers.map((answer, at) => ({ answer, documents: calls[at].documents, title: titleOf(calls[at], answer) }));
    $("output").replaceChildren(rankings(sides, costOf));
    say(answers[0]);
  } catch (error) {
    if (mine.signal.aborted && error.name === "AbortError") return;
    mine.abort(); // the other side
    const told = error instanceof Refused || error instanceof SyntaxError ? error : new Refused(`This is a bug in the page: ${error.message}`, 0);
    const keys = { needsKey: server.needsKey, canCreateKey: server.accounts };
    $("output").replaceChildren(refusal(told instanceof Refused ? told : new Refused(told.message, 400, "documents"), keys, rank));
  } finally {
    if (running === mine) busy(false);
  }
}

function say(answer) {
  const [first] = answer.results;
  const best = first ? ` The best is document ${first.index} with ${first.relevance_score.toFixed(3)}.` : "";
  $("said").textContent = `Ranked ${answer.results.length} documents in ${time(answer.seconds)}.${best}`;
}

const rankSoon = later(LIVE_MS, () => {
  if (fields.live.checked && fields.query.value.trim() && fields.documents.value.trim()) rank();
});

function changed() {
  show();
  save();
  rankSoon();
}

// Files.

async function takeFile(file) {
  if (file.size > MAX_FILE_BYTES) {
    $("count").textContent = `${file.name} has more than ${MAX_FILE_BYTES / 1e6} MB`;
    return;
  }
  fields.documents.value = await file.text();
  fields.format.value = /\.(jsonl?|ndjson)$/i.test(file.name) ? "json" : "auto";
  takeRequest();
  changed();
}

function listenToDrops() {
  const form = $("ask");
  const over = (yes) => fields.documents.classList.toggle("over", yes);
  form.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    over(true);
  });
  form.addEventListener("dragleave", (event) => { if (!form.contains(/** @type {Node} */ (event.relatedTarget))) over(false); });
  form.addEventListener("drop", (event) => {
    over(false);
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    takeFile(file);
  });
  $("choose-file").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) takeFile(file);
    $("file").value = "";
  });
}

// Copying.

async function copy(text, button, otherwise) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch { // only pages from https or from this machine may
    button.textContent = otherwise();
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

async function share() {
  const fragment = await pack(readState());
  if (fragment.length > MAX_LENGTH) {
    $("output").replaceChildren(refusal(new Refused("There is too much text for a link. Send the documents as a file.", 0, "link"), {}, rank));
    return;
  }
  history.replaceState(null, "", fragment);
  await copy(location.href, $("share"), () => "Copy the address");
}

function listenToSnippets() {
  let chosen = Object.keys(SNIPPETS)[0];
  const write = () => {
    try {
      $("snippet").textContent = snippet(chosen, callOf("A"), { origin: BASE, needsKey: server.needsKey });
    } catch (error) {
      $("snippet").textContent = error.message;
    }
    const hints = [SNIPPETS[chosen].needs, server.needsKey ? "The key is read from RERANKD_API_KEY." : ""];
    $("snippet-hint").textContent = hints.filter(Boolean).join(" · ");
    for (const chip of $("languages").children) chip.setAttribute("aria-pressed", String(chip.textContent === chosen));
  };
  for (const name of Object.keys(SNIPPETS)) {
    const chip = Object.assign(document.createElement("button"), { type: "button", className: "chip", textContent: name });
    chip.addEventListener("click", () => { chosen = name; write(); });
    $("languages").append(chip);
  }
  $("copy-as").addEventListener("click", () => { write(); $("snippets").showModal(); });
  $("close-snippets").addEventListener("click", () => $("snippets").close());
  $("copy-snippet").addEventListener("click", () => copy($("snippet").textContent, $("copy-snippet"), () => {
    getSelection().selectAllChildren($("snippet"));
    return "Press Ctrl+C";
  }));
}

// The key stays in this tab.

function listenToKey() {
  const key = $("key");
  if (!key) return;
  key.value = sessionStorage.getItem("rerankd-key") ?? "";
  key.addEventListener("input", () => {
    sessionStorage.setItem("rerankd-key", key.value.trim());
    rankSoon();
  });
  $("show-key").addEventListener("click", () => {
    const shown = key.type === "text";
    key.type = shown ? "password" : "text";
    $("show-key").textContent = shown ? "Show" : "Hide";
    $("show-key").setAttribute("aria-pressed", String(!shown));
  });
}

async function awaitModel() {
  for (;;) {
    const response = await fetch(`${BASE}/health`, { cache: "no-store" }).catch(() => null);
    if (response?.ok) return location.reload();
    const { progress } = (await response?.json().catch(() => null)) ?? {};
    if (progress) $("loading-share").value = progress;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

// Everything together.

const kept = (location.hash.length > 1 && (await unpack(location.hash))) || (await unpack(sessionStorage.getItem("rerankd-state") ?? ""));
fields.instructA.value = fields.instructB.value = server.defaultInstruct;
if (kept) writeState(kept);
else putExample("answer");

for (const field of Object.values(fields)) field.addEventListener("input", changed);
for (const chip of chips()) {
  chip.addEventListener("click", () => {
    $(`instruct-${chip.dataset.side}`).value = chip.dataset.instruct;
    changed();
  });
}
fields.documents.addEventListener("paste", () => setTimeout(() => { takeRequest(); changed(); }));
$("example").addEventListener("click", () => {
  putExample(fields.instructA.value === server.defaultInstruct ? "answer" : "similarity");
  changed();
});
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  await rank();
  if ($("output").getBoundingClientRect().top > innerHeight) $("output").scrollIntoView();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("snippets").open) {
    event.preventDefault();
    rank();
  }
});
addEventListener("hashchange", async () => {
  const state = await unpack(location.hash);
  if (state) { writeState(state); show(); }
});
$("share").addEventListener("click", share);
listenToKey();
listenToDrops();
listenToSnippets();
show();
page.dataset.started = "";
if (!server.ready) awaitModel();
