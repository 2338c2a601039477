// Parses pasted or dropped text into documents. Knows no page.

import { readTable } from "./csv.js";

/** Parsers by format. `auto` reads JSON if the text is JSON, else lines. */
export const FORMATS = ["auto", "lines", "paragraphs", "json", "csv"];

/**
 * @param {string} [column] of a table; its longest texts without one.
 * @returns {{documents: string[], query?: string, instruct?: string, columns?: string[], column?: string}}
 *   query, instruct: of a whole request, if one was pasted. columns, column: of a table.
 * @throws {SyntaxError} the text is not what `format` says; its message is for people.
 */
export function readDocuments(text, format, column = "") {
  if (format === "paragraphs") return { documents: parts(text, /\r?\n[^\S\n]*\r?\n/) };
  if (format === "lines") return { documents: parts(text, /\r?\n/) };
  if (format === "json") return fromJSON(text);
  if (format === "csv") return readTable(text, column);
  if (/^\s*[[{]/.test(text)) {
    try {
      return fromJSON(text);
    } catch (error) {
      // Lines that only look like JSON; but JSON with a mistake is told as such.
      if (!(error instanceof SyntaxError) || looksLikeJSON(text)) throw error;
    }
  }
  return { documents: parts(text, /\r?\n/) };
}

/** Whether it was meant to be JSON: an array of strings or objects, or an object with a quoted key. */
function looksLikeJSON(text) {
  return /^\s*(\[\s*["{]|\{\s*")/.test(text) && /["}\]]\s*,?\s*$/.test(text);
}

function parts(text, separator) {
  return text.split(separator).map((part) => part.trim()).filter(Boolean);
}

function fromJSON(text) {
  if (!text.trim()) return { documents: [] };
  const value = parsed(text);
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

/** JSON, or JSON Lines. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    const lines = text.split(/\r?\n/).map((line, at) => ({ line: line.trim(), at })).filter(({ line }) => line);
    const whole = lines.length > 1 && lines.every(({ line }) => /^["{[\d].*["}\]\d]$/.test(line));
    if (!whole) throw new SyntaxError(`Line ${lineOf(error.message, text)} is not valid JSON: ${reason(error.message)}`);
    return lines.map(({ line, at }) => {
      try {
        return JSON.parse(line);
      } catch (inner) {
        throw new SyntaxError(`Line ${at + 1} is not valid JSON: ${reason(inner.message)}`);
      }
    });
  }
}

/** The line of a mistake. Browsers tell a position, a line, or the text around it. */
function lineOf(message, text) {
  const line = /line (\d+)/.exec(message);
  if (line) return line[1];
  const position = /position (\d+)/.exec(message);
  if (position) return text.slice(0, Number(position[1])).split("\n").length;
  const around = /(\.\.\.)?"([\s\S]+?)"(?:\.\.\.)? is not valid JSON$/.exec(message);
  const at = around ? text.indexOf(around[2]) : -1;
  return text.slice(0, at < 0 ? text.length : at + (around[1] ? 10 : 1)).split("\n").length;
}

/** Without the text around the mistake, which may be a whole document. */
function reason(message) {
  const found = /^(Unexpected (?:token '[\s\S]+?'|end of JSON input)|[^"]*?(?= in JSON|$))/.exec(message);
  return `${(found?.[1] || "it cannot be read").toLowerCase().replace("json", "JSON").replace(/^unexpected token/, "unexpected")}.`;
}

const KEYS = ["text", "content", "document", "passage", "body", "contents"];

function textOf(item, index) {
  if (typeof item === "string") return item;
  if (typeof item === "number") return String(item);
  const key = item && KEYS.find((name) => typeof item[name] === "string");
  if (!key) throw new SyntaxError(`Document ${index} has no text: a string, or an object with the key "text", is needed.`);
  return item[key];
}
