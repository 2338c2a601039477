// A playground call as code. The code reads the key from the environment and never contains it.

const PATH = "/compatible-api/v1/reranks";
const KEY = "RERANKD_API_KEY";

/** By language: the code, and the package to install. */
export const SNIPPETS = {
  curl: { of: curl, needs: "" },
  Python: { of: python, needs: "pip install rerankd" },
  openai: { of: openai, needs: "pip install openai" },
  dashscope: { of: dashscope, needs: "pip install dashscope" },
  cohere: { of: cohere, needs: "pip install cohere" },
};

/**
 * @param {object} call the body of a compatible rerank, as the playground sends it.
 * @param {{origin: string, needsKey: boolean}} server
 */
export function snippet(name, call, server) {
  return SNIPPETS[name].of(call, server);
}

function curl(call, { origin, needsKey }) {
  const key = needsKey ? `  -H "Authorization: Bearer $${KEY}" \\\n` : "";
  // A document of several lines is one line in JSON, so that no line of the body can end it.
  return `curl ${origin}${PATH} \\\n${key}  -H 'Content-Type: application/json' \\\n  --data-binary @- <<'JSON'\n${JSON.stringify(call, null, 2)}\nJSON\n`;
}

function python(call, { origin, needsKey }) {
  const { model, query, documents, top_n, instruct, passages } = call;
  const options = named({ top_n, instruct, passages, model });
  return `${keyImport(needsKey)}from rerankd import Client

with Client(${literal(origin)}${needsKey ? `, os.environ["${KEY}"]` : ""}) as client:
    ranking = client.rank(
        ${literal(query)},
        ${indent(literal(documents), 8)},
${options.map((one) => `        ${indent(one, 8)},\n`).join("")}    )

for result in ranking.ranked:
    print(f"{result.score:.4f}", result.index, result.document)
print(ranking.usage.total_tokens, "tokens", *ranking.warnings, sep="\\n")
`;
}

function openai(call, { origin, needsKey }) {
  return `${keyImport(needsKey)}from openai import OpenAI

client = OpenAI(api_key=${keyValue(needsKey)}, base_url=${literal(`${origin}/compatible-api/v1`)})
reply = client.post("/reranks", cast_to=object, body=${literal(call)})

for result in reply["results"]:
    print(f"{result['relevance_score']:.4f}", result["index"])
print(reply["usage"]["total_tokens"], "tokens")
`;
}

function dashscope(call, { origin, needsKey }) {
  const options = named(without(call, ["explain"]));
  return `${keyImport(needsKey)}import dashscope

response = dashscope.TextReRank.call(
${options.map((one) => `    ${indent(one, 4)},\n`).join("")}    api_key=${keyValue(needsKey)},
    base_address=${literal(`${origin}/api/v1`)},
)
if response.status_code != 200:
    raise SystemExit(f"{response.code}: {response.message}")

for result in response.output.results:
    print(f"{result.relevance_score:.4f}", result.index)
print(response.usage.total_tokens, "tokens")
`;
}

function cohere(call, { origin, needsKey }) {
  const options = named(without(call, ["explain", "instruct", "passages", "return_documents"]));
  const { instruct, passages } = call;
  const own = literal({ additional_body_parameters: { instruct, passages } });
  return `${keyImport(needsKey)}import cohere

client = cohere.ClientV2(${keyValue(needsKey)}, base_url=${literal(`${origin}/cohere`)})
response = client.rerank(
${options.map((one) => `    ${indent(one, 4)},\n`).join("")}${instruct || passages ? `    request_options=${indent(own, 4)},\n` : ""})

for result in response.results:
    print(f"{result.relevance_score:.4f}", result.index)
`;
}

function keyImport(needsKey) {
  return needsKey ? "import os\n\n" : "";
}

function keyValue(needsKey) {
  return needsKey ? `os.environ["${KEY}"]` : '"none"';
}

function without(call, names) {
  return Object.fromEntries(Object.entries(call).filter(([name]) => !names.includes(name)));
}

/** Python keyword arguments, without missing ones. */
function named(values) {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => `${name}=${literal(value)}`);
}

/** A Python literal. Every JSON string is a Python string. */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null || value === undefined) return "None";
  if (Array.isArray(value)) return lines("[", value.map(literal), "]");
  if (typeof value === "object") {
    return lines("{", Object.entries(value).map(([name, item]) => `${literal(name)}: ${literal(item)}`), "}");
  }
  return JSON.stringify(value);
}

function lines(open, items, close) {
  return items.length ? `${open}\n${items.map((item) => `    ${indent(item, 4)},\n`).join("")}${close}` : open + close;
}

/** Strings contain no line feed, so every line may be indented. */
function indent(text, by) {
  return text.replaceAll("\n", `\n${" ".repeat(by)}`);
}
