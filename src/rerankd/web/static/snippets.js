// A playground call as code. The code reads the key from the environment and never contains it.

import { KEY, indent, keyImport, keyValue, keywords, literal, without } from "./python-code.js";

const PATH = "/compatible-api/v1/reranks";

/** By language or package: the code, and what to install. */
export const SNIPPETS = {
  curl: { of: curl, needs: "" },
  Python: { of: python, needs: "pip install .  # in a clone of rerankd" },
  JavaScript: { of: javascript, needs: "Node.js 18 or newer" },
  openai: { of: openai, needs: "pip install openai" },
  dashscope: { of: dashscope, needs: "pip install dashscope" },
  cohere: { of: cohere, needs: "pip install cohere" },
  jina: { of: jina, needs: "pip install requests" },
  voyage: { of: voyage, needs: "pip install voyageai" },
  LangChain: { of: langchain, needs: "pip install '.[langchain]'  # in a clone of rerankd" },
  LlamaIndex: { of: llamaIndex, needs: "pip install '.[llama-index]'  # in a clone of rerankd" },
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

function javascript(call, { origin, needsKey }) {
  const key = needsKey ? `,\n    Authorization: \`Bearer \${process.env.${KEY}}\`` : "";
  return `const response = await fetch(${JSON.stringify(origin + PATH)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json"${key},
  },
  body: JSON.stringify(${indent(JSON.stringify(call, null, 2), 2)}),
});
const reply = await response.json();
if (!response.ok) throw new Error(reply.error.message);

for (const { index, relevance_score } of reply.results) {
  console.log(relevance_score.toFixed(4), index);
}
console.log(reply.usage.total_tokens, "tokens");
`;
}

function python(call, { origin, needsKey }) {
  const { model, query, documents, top_n, instruct } = call;
  const passages = call.passages?.highlight ? "        passages=Passages(highlight=True),\n" : "";
  const options = keywords({ top_n, instruct, passages: passages ? undefined : call.passages, model }, 8);
  return `${keyImport(needsKey)}from rerankd import Client${passages ? ", Passages" : ""}

with Client(${literal(origin)}${needsKey ? `, os.environ["${KEY}"]` : ""}) as client:
    ranking = client.rank(
        ${literal(query)},
        ${indent(literal(documents), 8)},
${options}${passages}    )

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
  return `${keyImport(needsKey)}import dashscope

response = dashscope.TextReRank.call(
${keywords(without(call, ["explain"]), 4)}    api_key=${keyValue(needsKey)},
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
  const { instruct, passages } = call;
  const own = literal({ additional_body_parameters: { instruct, passages } });
  return `${keyImport(needsKey)}import cohere

client = cohere.ClientV2(${keyValue(needsKey)}, base_url=${literal(`${origin}/cohere`)})
response = client.rerank(
${keywords(without(call, ["explain", "instruct", "passages", "return_documents"]), 4)}${instruct || passages ? `    request_options=${indent(own, 4)},\n` : ""})

for result in response.results:
    print(f"{result.relevance_score:.4f}", result.index)
`;
}

function jina(call, { origin, needsKey }) {
  const key = needsKey ? `    headers={"Authorization": f"Bearer {os.environ['${KEY}']}"},\n` : "";
  return `${keyImport(needsKey)}import requests

response = requests.post(
    ${literal(`${origin}/jina/v1/rerank`)},
${key}    json=${indent(literal(without(call, ["explain"])), 4)},
    timeout=60,
)
response.raise_for_status()

for result in response.json()["results"]:
    print(f"{result['relevance_score']:.4f}", result["index"])
`;
}

function voyage(call, { origin, needsKey }) {
  const { query, documents, model, top_n } = call;
  const lost = call.instruct ? "# voyageai sends no instruct: the server's default holds.\n" : "";
  return `${keyImport(needsKey)}import voyageai

${lost}client = voyageai.Client(${keyValue(needsKey)}, base_url=${literal(`${origin}/voyage/v1`)})
reply = client.rerank(
${keywords({ query, documents, model, top_k: top_n }, 4)})

for result in reply.results:
    print(f"{result.relevance_score:.4f}", result.index)
`;
}

function langchain({ query, documents, top_n, instruct, model }, { origin, needsKey }) {
  return `${keyImport(needsKey)}from langchain_core.documents import Document

from rerankd import Client
from rerankd.integrations.langchain import RerankdCompressor

texts = ${literal(documents)}
client = Client(${clientOptions(origin, needsKey, model)})
compressor = RerankdCompressor(client=client, top_n=${top_n ?? "None"}, instruct=${literal(instruct)})
documents = [Document(text, metadata={"index": index}) for index, text in enumerate(texts)]

for document in compressor.compress_documents(documents, ${literal(query)}):
    print(f"{document.metadata['relevance_score']:.4f}", document.metadata["index"])
client.close()
`;
}

function llamaIndex({ query, documents, top_n, instruct, model }, { origin, needsKey }) {
  return `${keyImport(needsKey)}from llama_index.core.schema import NodeWithScore, TextNode

from rerankd import Client
from rerankd.integrations.llama_index import RerankdPostprocessor

texts = ${literal(documents)}
client = Client(${clientOptions(origin, needsKey, model)})
reranker = RerankdPostprocessor(client=client, top_n=${top_n ?? "None"}, instruct=${literal(instruct)})
nodes = [NodeWithScore(node=TextNode(text=text, id_=str(index))) for index, text in enumerate(texts)]

for node in reranker.postprocess_nodes(nodes, query_str=${literal(query)}):
    print(f"{node.score:.4f}", node.node_id)
client.close()
`;
}

function clientOptions(origin, needsKey, model) {
  return `${literal(origin)}${needsKey ? `, os.environ["${KEY}"]` : ""}, model=${literal(model)}`;
}
