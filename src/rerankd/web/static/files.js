// Reads a file as text, or refuses it by name: only text can be ranked. Nothing leaves the browser.

const MAX_BYTES = 50_000_000;

/** First bytes, and what such a file is. */
const KINDS = [
  ["%PDF", "a PDF", "Save its text (for example with pdftotext), and drop that file."],
  ["PK\x03\x04", "a ZIP, Word or Excel file", "Save it as text or CSV, and drop that file."],
  ["\xd0\xcf\x11\xe0", "an old Office file", "Save it as text or CSV, and drop that file."],
  ["\x89PNG", "a picture", "Only texts can be ranked."],
  ["\xff\xd8\xff", "a picture", "Only texts can be ranked."],
  ["GIF8", "a picture", "Only texts can be ranked."],
  ["\x1f\x8b", "compressed", "Unpack it first."],
  ["SQLite format", "a database", "Export a table as CSV, and drop that file."],
  ["PAR1", "a Parquet file", "rerankd batch reads it; here, save it as CSV or JSON Lines."],
];

/** A file that is not ranked. Its message is for people. */
export class NotText extends Error {}

/**
 * @param {File} file
 * @returns {Promise<{text: string, format: string, note: string}>} format: of `documents.js`.
 * @throws {NotText}
 */
export async function readFile(file) {
  if (file.size > MAX_BYTES) throw new NotText(`${file.name} has more than ${MAX_BYTES / 1e6} MB.`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const start = String.fromCharCode(...bytes.subarray(0, 16));
  const kind = KINDS.find(([magic]) => start.startsWith(magic));
  if (kind) throw new NotText(`${file.name} is ${kind[1]}. ${kind[2]}`);
  const { text, note } = decoded(bytes, file.name);
  if (/\.html?$/i.test(file.name) || /^\s*(<!doctype html|<html)/i.test(text)) {
    return { text: textOfPage(text), format: "paragraphs", note: note || "The text of the page, by paragraphs." };
  }
  if (/\.(jsonl?|ndjson)$/i.test(file.name)) return { text, format: "json", note };
  return { text, format: /\.(csv|tsv)$/i.test(file.name) ? "csv" : "auto", note };
}

function decoded(bytes, name) {
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return { text: new TextDecoder("utf-16le").decode(bytes), note: "" };
  if (first === 0xfe && second === 0xff) return { text: new TextDecoder("utf-16be").decode(bytes), note: "" };
  if (bytes.subarray(0, 4096).includes(0)) throw new NotText(`${name} is not a text file.`);
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), note: "" };
  } catch {
    return { text: new TextDecoder("windows-1252").decode(bytes), note: `${name} is not UTF-8; it was read as Windows-1252.` };
  }
}

const BLOCKS = "p, li, h1, h2, h3, h4, h5, h6, td, th, blockquote, pre, dt, dd, figcaption";

/** Of an HTML page: the text of each block. The page's scripts and pictures are not loaded. */
function textOfPage(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const one of page.querySelectorAll("script, style, noscript, template, nav, header, footer")) one.remove();
  const blocks = [...page.querySelectorAll(BLOCKS)].filter((one) => !one.querySelector(BLOCKS));
  const texts = (blocks.length ? blocks : [page.body]).map((one) => one.textContent.replace(/\s+/g, " ").trim());
  return texts.filter(Boolean).join("\n\n");
}
