// Parses pasted or dropped text into documents. Knows no page.

/** Parsers by format. `auto` reads JSON if the text is JSON, else lines. */
export const FORMATS = ["auto", "lines", "paragraphs", "json"];

/**
 * @returns {{documents: string[], query?: string, instruct?: string}} query, instruct: of a whole
 *   request, if one was pasted.
 * @throws {SyntaxError} the text is not what `format` says.
 */
export function readDocuments(text, format) {
  if (format === "paragraphs") return { documents: parts(text, /\r?\n[^\S\n]*\r?\n/) };
  if (format === "lines") return { documents: parts(text, /\r?\n/) };
  if (format === "json") return fromJSON(text);
  if (/^\s*[[{]/.test(text)) {
    try {
      return fromJSON(text);
    } catch {
      // lines that only look like JSON
    }
  }
  return { documents: parts(text, /\r?\n/) };
}

function parts(text, separator) {
  return text.split(separator).map((part) => part.trim()).filter(Boolean);
}

function fromJSON(text) {
  if (!text.trim()) return { documents: [] };
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const lines = parts(text, /\r?\n/);
    if (lines.length < 2) throw error;
    value = lines.map((line) => JSON.parse(line)); // JSON Lines
  }
  if (Array.isArray(value)) return { documents: value.map(textOf) };
  const input = value?.input ?? value; // DashScope's native body
  const list = input?.documents ?? input?.texts ?? input?.passages;
  if (!Array.isArray(list)) return { documents: [textOf(value, 0)] };
  const said = { documents: list.map(textOf) };
  if (typeof input.query === "string") said.query = input.query;
  const instruct = value.instruct ?? value.instruction ?? value.parameters?.instruct;
  if (typeof instruct === "string") said.instruct = instruct;
  return said;
}

const KEYS = ["text", "content", "document", "passage", "body", "contents"];

function textOf(item, index) {
  if (typeof item === "string") return item;
  if (typeof item === "number") return String(item);
  const key = item && KEYS.find((name) => typeof item[name] === "string");
  if (!key) throw new SyntaxError(`Document ${index} has no text: a string, or an object with the key "text", is needed.`);
  return item[key];
}
