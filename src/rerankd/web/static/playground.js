// The playground: calls the public API with the form's fields, and shows the rankings.
import { Refused, rerankAll, sampleRanking } from "./api.js";
import { BASE } from "./base.js";
import { comparison } from "./compare.js";
import { $, button, copy, later, make, money, number, time } from "./dom.js";
import { estimatedTokens, learn } from "./estimate.js";
import { exports } from "./export.js";
import { callsNow, choose, documentsNow, fields, modelOf, page, readState, server, writeState } from "./fields.js";
import { listenToDrops } from "./drops.js";
import { NotText, readFile } from "./files.js";
import { forget, keep, listed } from "./history.js";
import { Mistake, refusal } from "./refusal.js";
import { ranking } from "./results.js";
import { MAX_LENGTH, pack, unpack } from "./share.js";
import { listenToSnippets } from "./snippet-dialog.js";

const LIVE_MS = 350, SAVE_MS = 300, CLOCK_MS = 100;

/** @type {AbortController | null} */
let running = null;

/** The sample in the fields, as long as nobody changed them. */
let sample = null;

/** Of the file in the field for documents. */
let note = "";

// What the visitor may do.

const keyField = $("key");
const keyNow = () => keyField?.value.trim() ?? "";
const canCall = () => !server.needsKey || Boolean(server.csrf || keyNow());

/** Whether a call costs the visitor nothing, so that the page may send one by itself. */
const isFree = () => !server.accounts || (server.free && !keyNow());

const keys = () => ({ needsKey: server.needsKey, canCreateKey: server.accounts, signedIn: Boolean(server.csrf) && !keyNow() });

// Fields.

/** @returns {NodeListOf<HTMLElement>} the buttons that fill in an instruct. */
const chips = () => document.querySelectorAll(".chip[data-instruct]");

const save = later(SAVE_MS, async () => {
  const fragment = await pack(readState());
  try { sessionStorage.setItem("rerankd-state", fragment); } catch { /* too large to keep */ }
  history.replaceState(null, "", fragment.length <= MAX_LENGTH ? fragment : location.pathname);
});

function show() {
  const comparing = fields.compare.checked;
  page.classList.toggle("comparing", comparing);
  $("side-b").hidden = !comparing;
  for (const chip of chips()) {
    const text = $(`instruct-${chip.dataset.side}`).value || server.defaultInstruct;
    chip.setAttribute("aria-pressed", String(text === chip.dataset.instruct));
  }
  for (const letter of ["a", "b"]) {
    const model = modelOf($(`model-${letter}`).value);
    $(`unread-${letter}`).hidden = !model || model.readsInstruct;
    for (const also of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(`#side-${letter} .also`))) also.hidden = also.dataset.model !== model?.name;
  }
  if (!fields.explain.checked) fields.promptOf.value = "";
  fields.promptOf.disabled = !fields.explain.checked;
  count();
}

/** Counts the documents, and says what ranking them would cost. */
function count() {
  let told, wrong = false, estimate = "";
  try {
    const { documents, columns, column } = documentsNow();
    const calls = Math.ceil(documents.length / server.maxDocuments);
    told = `${number(documents.length)}${calls > 1 ? `, in ${calls} requests` : ""}`;
    showColumns(columns, column);
    estimate = documents.length && fields.query.value.trim() ? estimated() : "";
  } catch (error) {
    [told, wrong] = [error.message, true];
  }
  $("count").textContent = told;
  $("note").textContent = note;
  $("estimate").textContent = estimate;
  $("live-cost").hidden = !fields.live.checked || isFree() || !canCall();
  fields.documents.setAttribute("aria-invalid", String(wrong));
}

function estimated() {
  const calls = callsNow();
  const tokens = calls.map(estimatedTokens);
  const micro = calls.reduce((sum, call, at) => sum + Math.ceil(tokens[at] * Number(modelOf(call.model)?.price ?? 0)), 0);
  const total = tokens.reduce((sum, one) => sum + one, 0);
  return `≈ ${number(Number(total.toPrecision(2)))} tokens · ${micro ? `≈ ${money(micro, server.currency)}` : "free"}`;
}

function showColumns(columns, column) {
  $("column-choice").hidden = !columns?.length;
  if (!columns?.length || [...fields.column.options].map((one) => one.value).join("\n") === columns.join("\n")) return;
  fields.column.replaceChildren(...columns.map((name) => new Option(name)));
  fields.column.value = column;
}

/** A whole request that was pasted also fills the other fields. */
function takeRequest() {
  try {
    const { documents, query, instruct } = documentsNow();
    if (query === undefined) return;
    fields.query.value = query;
    if (instruct !== undefined) fields.instructA.value = instruct;
    fields.documents.value = JSON.stringify(documents, null, 1);
  } catch { /* told beside the field */ }
}

/** B begins with another model, or with another instruct: the same call twice shows nothing. */
function separate() {
  const same = fields.modelA.value === fields.modelB.value && fields.instructA.value === fields.instructB.value;
  if (!fields.compare.checked || !same) return;
  const other = server.models.find((one) => one.name !== modelOf(fields.modelA.value)?.name);
  if (other) return choose(fields.modelB, other.name);
  const [first, second] = Object.values(server.modes);
  fields.instructB.value = fields.instructA.value === second ? first : second;
}

// Calls.

function titleOf(call, answer) {
  const mode = Object.entries(server.modes).find(([, instruct]) => instruct === (call.instruct ?? server.defaultInstruct));
  return `${mode?.[0] ?? call.instruct} · ${answer.model}`;
}

function costOf(answer) {
  if (answer.given) return "free";
  const micro = answer.cost ?? Math.ceil(answer.tokens * Number(modelOf(answer.model)?.price ?? 0));
  return money(micro, server.currency);
}

/** Runs `act` with a clock and a way to cancel it; a newer one ends it. */
async function run(act) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  const started = performance.now();
  const clock = setInterval(() => { $("elapsed").textContent = time((performance.now() - started) / 1000); }, CLOCK_MS);
  busy(true);
  try {
    await act(mine.signal);
  } catch (error) {
    if (mine.signal.aborted && error.name === "AbortError") return;
    mine.abort(); // the other side
    const isTold = error instanceof Refused || error instanceof Mistake;
    $("output").replaceChildren(refusal(isTold ? error : new Mistake(`This is a bug in the page: ${error.message}`), keys(), rank));
  } finally {
    clearInterval(clock);
    if (running === mine) { running = null; busy(false); }
  }
}

function busy(yes) {
  page.classList.toggle("busy", yes);
  page.setAttribute("aria-busy", String(yes));
  $("elapsed").textContent = "";
  $("progress").textContent = "";
  $("working").hidden = !yes;
}

function cancel() {
  if (!running) return;
  running.abort();
  $("said").textContent = "Cancelled.";
}

function checkedCalls() {
  try {
    return callsNow();
  } catch (error) {
    throw new Mistake(`The documents cannot be read. ${error.message}`);
  }
}

function rank() {
  return run(async (signal) => {
    const calls = checkedCalls();
    if (!calls[0].query.trim()) throw new Mistake("The query is empty. Type what you are looking for.");
    if (!calls[0].documents.length) throw new Mistake("There are no documents. Paste some, or load a sample.");
    const who = { key: keyNow(), csrf: server.csrf };
    const progress = (done, all) => { $("progress").textContent = `${done} of ${all} requests`; };
    const answers = await Promise.all(calls.map((call) => rerankAll(call, who, signal, server, progress)));
    for (const [at, call] of calls.entries()) learn(call, answers[at].tokens);
    display(answers.map((answer, at) => ({ answer, documents: calls[at].documents, title: titleOf(calls[at], answer) })));
    remember(calls[0], answers[0]);
    count();
  });
}

/** The server's own ranking of a sample: for visitors who cannot call, and for those who would pay. */
function rankSample() {
  return run(async (signal) => {
    const answer = { ...(await sampleRanking(sample.id, signal)), given: true };
    display([{ answer, documents: sample.documents, title: sample.title }]);
  });
}

/** Ranks without being asked, where that costs nothing. */
function rankFreely() {
  if (!server.ready || !fields.query.value.trim() || !fields.documents.value.trim()) return;
  if (canCall() && isFree()) rank();
  else if (sample && !fields.compare.checked) rankSample();
}

function display(sides) {
  const tools = exports(sides);
  $("output").replaceChildren(sides.length > 1 ? comparison(sides[0], sides[1], costOf, tools) : ranking(sides[0], costOf, tools));
  const [{ answer }] = sides;
  const [first] = answer.results;
  const best = first ? ` The best is document ${first.index} with ${first.relevance_score.toFixed(3)}.` : "";
  $("said").textContent = `Ranked ${answer.results.length} documents in ${time(answer.seconds)}.${best}`;
}

async function remember(call, answer) {
  const { query, documents } = call;
  keep({ when: Date.now(), query: query.slice(0, 200), documents: documents.length, model: answer.model, state: await pack(readState()) });
}

const rankSoon = later(LIVE_MS, () => {
  if (fields.live.checked && fields.query.value.trim() && fields.documents.value.trim() && canCall()) rank();
});

function changed() {
  sample = null;
  $("sample").value = "";
  show();
  save();
  rankSoon();
}

// Samples, files, history.

function putSample(name) {
  sample = server.samples.find((one) => one.id === name);
  fields.query.value = sample.query;
  const isPlain = sample.documents.every((text) => !text.includes("\n"));
  fields.documents.value = isPlain ? sample.documents.join("\n") : JSON.stringify(sample.documents, null, 1);
  fields.format.value = "auto";
  fields.instructA.value = sample.instruct ?? server.defaultInstruct;
  note = "";
  show();
}

async function takeFile(file) {
  try {
    const read = await readFile(file);
    fields.documents.value = read.text;
    fields.format.value = read.format;
    note = read.note || file.name;
    takeRequest();
    changed();
  } catch (error) {
    if (!(error instanceof NotText)) throw error;
    $("output").replaceChildren(refusal(new Mistake(error.message), keys(), rank));
    $("count").textContent = error.message;
  }
}

function listenToHistory() {
  const restore = async (past) => {
    const state = await unpack(past.state);
    $("runs").close();
    if (!state) return;
    writeState(state);
    note = "";
    changed();
    rankFreely();
  };
  const fill = () => $("runs-list").replaceChildren(listed(restore));
  $("history").addEventListener("click", () => { fill(); $("runs").showModal(); });
  $("close-runs").addEventListener("click", () => $("runs").close());
  $("forget").addEventListener("click", () => { forget(); fill(); });
}

async function share() {
  const fragment = await pack(readState());
  if (fragment.length > MAX_LENGTH) {
    $("output").replaceChildren(refusal(new Mistake("There is too much text for a link. Send the documents as a file."), {}, rank));
    return;
  }
  history.replaceState(null, "", fragment);
  await copy(location.href, $("share"), () => "Copy the address");
}

// The key stays in this tab.

function listenToKey() {
  if (!keyField) return;
  keyField.value = sessionStorage.getItem("rerankd-key") ?? "";
  if (keyField.value && $("own-key")) $("own-key").open = true;
  keyField.addEventListener("input", () => {
    sessionStorage.setItem("rerankd-key", keyNow());
    count();
    rankSoon();
  });
  $("show-key").addEventListener("click", () => {
    const shown = keyField.type === "text";
    keyField.type = shown ? "password" : "text";
    $("show-key").textContent = shown ? "Show" : "Hide";
    $("show-key").setAttribute("aria-pressed", String(!shown));
  });
}

function listenToFields() {
  for (const [name, field] of Object.entries(fields)) {
    field.addEventListener("input", () => {
      if (name === "compare") { separate(); showSettings(true); }
      if (name === "documents" || name === "format") note = "";
      changed();
    });
  }
  for (const chip of chips()) {
    chip.addEventListener("click", () => { $(`instruct-${chip.dataset.side}`).value = chip.dataset.instruct; changed(); });
  }
  for (const preset of /** @type {NodeListOf<HTMLSelectElement>} */ (document.querySelectorAll(".preset"))) {
    preset.addEventListener("change", () => {
      if (preset.value) $(`instruct-${preset.dataset.side}`).value = preset.value;
      preset.value = "";
      changed();
    });
  }
  for (const name of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".also button"))) {
    name.addEventListener("click", () => { choose($(`model-${name.dataset.side}`), name.textContent); changed(); });
  }
  fields.documents.addEventListener("paste", () => setTimeout(() => { takeRequest(); changed(); }));
  $("sample").addEventListener("change", () => {
    if (!$("sample").value) return;
    putSample($("sample").value);
    save();
    rankFreely();
  });
}

function showSettings(yes) {
  $("settings").classList.toggle("shown", yes);
  $("show-settings").setAttribute("aria-expanded", String(yes));
}

function listenToCalls() {
  $("show-settings").addEventListener("click", () => showSettings(!$("settings").classList.contains("shown")));
  $("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    await rank();
    if ($("output").getBoundingClientRect().top > innerHeight) $("output").scrollIntoView();
  });
  $("cancel").addEventListener("click", cancel);
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") cancel();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      rank();
    }
  });
  addEventListener("hashchange", async () => {
    const state = await unpack(location.hash);
    if (state) { writeState(state); sample = null; show(); rankFreely(); }
  });
  $("share").addEventListener("click", share);
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

const linked = location.hash.length > 1 ? await unpack(location.hash) : null;
const kept = linked ?? (await unpack(sessionStorage.getItem("rerankd-state") ?? ""));
fields.instructA.value = fields.instructB.value = server.defaultInstruct;
listenToKey();
if (kept) writeState(kept);
else putSample(server.samples[0].id);
const sent = server.samples.find((one) => one.query === fields.query.value && one.documents.join("\n") === fields.documents.value);
sample ??= sent ?? null;
listenToFields();
listenToCalls();
listenToDrops(takeFile);
listenToHistory();
listenToSnippets();
show();
page.dataset.started = "";
if (server.ready) rankFreely();
else awaitModel();
if (!running && server.ready) $("output").replaceChildren(waiting());

/** What to do where the page does not rank by itself. */
function waiting() {
  if (!canCall()) return make("p", { class: "empty" }, "Enter a key to rank your own texts, or load a sample.");
  const press = button("Rank", () => rank(), "primary");
  return make("p", { class: "empty" }, "Ready to rank. ", press, make("span", { class: "hint" }, ` ${$("estimate").textContent}`));
}
