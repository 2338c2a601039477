// Reads and writes tables: CSV as RFC 4180 has it, with commas, semicolons or tabs. Knows no page.

const NAMES = /^(text|content|contents|document|passage|body|abstract|description|title)$/i;

/**
 * @param {string} column its name; without one, the column named like a text, else that of the longest texts.
 * @returns {{documents: string[], columns: string[], column: string}}
 */
export function readTable(text, column) {
  const rows = readRows(text, delimiterOf(text)).filter((row) => row.some((cell) => cell.trim()));
  if (!rows.length) return { documents: [], columns: [], column: "" };
  const [head, ...body] = rows;
  const columns = head.map((name, at) => name.trim() || `column ${at + 1}`);
  const named = columns.includes(column) ? column : columns[bestColumn(columns, body)];
  const at = columns.indexOf(named);
  return { documents: body.map((row) => (row[at] ?? "").trim()).filter(Boolean), columns, column: named };
}

function bestColumn(columns, rows) {
  const named = columns.findIndex((name) => NAMES.test(name));
  if (named >= 0) return named;
  const lengths = columns.map((_, at) => rows.reduce((sum, row) => sum + (row[at]?.length ?? 0), 0));
  return lengths.indexOf(Math.max(...lengths));
}

/** The one that the first line has most of. */
function delimiterOf(text) {
  const [first] = text.split("\n", 1);
  const counts = [",", ";", "\t"].map((sign) => first.split(sign).length);
  return [",", ";", "\t"][counts.indexOf(Math.max(...counts))];
}

function readRows(text, delimiter) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  const endCell = () => { row.push(cell); cell = ""; };
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (text[at + 1] === '"') { cell += '"'; at += 1; }
      else quoted = false;
    } else if (sign === '"' && !cell) quoted = true;
    else if (sign === delimiter) endCell();
    else if (sign === "\n") { endCell(); rows.push(row); row = []; }
    else if (sign !== "\r") cell += sign;
  }
  endCell();
  return [...rows, row];
}

/** @param {(string | number)[][]} rows */
export function writeTable(rows) {
  return rows.map((row) => `${row.map(written).join(",")}\r\n`).join("");
}

/** A text that a spreadsheet would run as a formula gets an apostrophe, as in the server's own CSV. */
function written(cell) {
  const text = typeof cell === "string" && /^[=+\-@\t\r]/.test(cell) ? `'${cell}` : String(cell ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
