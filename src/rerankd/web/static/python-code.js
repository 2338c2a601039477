// Python values as code. Every JSON string is a Python string.

export const KEY = "RERANKD_API_KEY";

export function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null || value === undefined) return "None";
  if (Array.isArray(value)) return lines("[", value.map(literal), "]");
  if (typeof value === "object") {
    return lines("{", Object.entries(value).map(([name, item]) => `${literal(name)}: ${literal(item)}`), "}");
  }
  return JSON.stringify(value);
}

/** Keyword arguments, one a line, without missing ones. */
export function keywords(values, by) {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => `${" ".repeat(by)}${name}=${indent(literal(value), by)},\n`)
    .join("");
}

/** Strings contain no line feed, so every line may be indented. */
export function indent(text, by) {
  return text.replaceAll("\n", `\n${" ".repeat(by)}`);
}

export function keyImport(needsKey) {
  return needsKey ? "import os\n\n" : "";
}

export function keyValue(needsKey) {
  return needsKey ? `os.environ["${KEY}"]` : '"none"';
}

export function without(call, names) {
  return Object.fromEntries(Object.entries(call).filter(([name]) => !names.includes(name)));
}

function lines(open, items, close) {
  return items.length ? `${open}\n${items.map((item) => `    ${indent(item, 4)},\n`).join("")}${close}` : open + close;
}
