// The clients of JavaScript, each by the same tests as those of Python (../contract.py). Run by ../run.py.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, describe, test } from "node:test";

import { createCohere } from "@ai-sdk/cohere";
import { createTogetherAI } from "@ai-sdk/togetherai";
import { rerank } from "ai";
import { CohereClient, CohereClientV2 } from "cohere-ai";
import { VoyageAIClient } from "voyageai";

const QUERY = "What is the capital of China?";
const DOCUMENTS = ["Paris is the capital of France.", "The capital of China is Beijing.", "Gravity is a force."];
const ORDER = [1, 0, 2];
const { CLIENTS_SERVER, CLIENTS_LIMITED_SERVER, CLIENTS_KEY, CLIENTS_RESULTS } = process.env;

const ofCohere = (response) =>
  response.results.map((result) => ({ index: result.index, score: result.relevanceScore }));

/** A model of the AI SDK as a client: it tries again by itself, so it is told not to. */
const withAI = (model) => async ({ key, url, documents, topN, name }) => {
  const { ranking } = await rerank({ model: model({ key, url }, name), query: QUERY, documents, topN, maxRetries: 0 });
  return ranking.map((result) => ({ index: result.originalIndex, score: result.score }));
};

const CLIENTS = [
  {
    client: "cohere-ai",
    call: "CohereClient().rerank",
    reached: 'environment: "URL/cohere"',
    rank: async ({ key, url, documents, topN, name }) =>
      ofCohere(
        await new CohereClient({ token: key, environment: `${url}/cohere` }).rerank(
          { model: name, query: QUERY, documents, topN },
          { maxRetries: 0 },
        ),
      ),
    refusals: { wrong_key: "UnauthorizedError", unknown_model: "NotFoundError", rate_limit: "TooManyRequestsError" },
  },
  {
    client: "cohere-ai",
    call: "CohereClientV2().rerank",
    reached: 'environment: "URL"',
    rank: async ({ key, url, documents, topN, name }) =>
      ofCohere(
        await new CohereClientV2({ token: key, environment: url }).rerank(
          { model: name, query: QUERY, documents, topN },
          { maxRetries: 0 },
        ),
      ),
    refusals: { wrong_key: "UnauthorizedError", unknown_model: "NotFoundError", rate_limit: "TooManyRequestsError" },
  },
  {
    client: "voyageai",
    call: "VoyageAIClient().rerank",
    reached: 'environment: "URL/voyage/v1"',
    rank: async ({ key, url, documents, topN, name }) => {
      const client = new VoyageAIClient({ apiKey: key, environment: `${url}/voyage/v1` });
      const request = { model: name, query: QUERY, documents, topK: topN };
      const response = await client.rerank(request, { maxRetries: 0 });
      return response.data.map((result) => ({ index: result.index, score: result.relevanceScore }));
    },
    refusals: {
      wrong_key: "VoyageAIError",
      unknown_model: "VoyageAIError",
      too_many: "VoyageAIError",
      rate_limit: "VoyageAIError",
    },
    tooMany: 1001,
  },
  {
    client: "@ai-sdk/cohere",
    call: "rerank({ model: cohere.reranking(…) })",
    reached: 'baseURL: "URL/v2"',
    rank: withAI(({ key, url }, name) => createCohere({ apiKey: key, baseURL: `${url}/v2` }).reranking(name)),
    refusals: { wrong_key: "AI_APICallError", unknown_model: "AI_APICallError", rate_limit: "AI_APICallError" },
  },
  {
    client: "@ai-sdk/togetherai",
    call: "rerank({ model: togetherai.reranking(…) })",
    reached: 'baseURL: "URL/v1"',
    rank: withAI(({ key, url }, name) => createTogetherAI({ apiKey: key, baseURL: `${url}/v1` }).reranking(name)),
    refusals: { wrong_key: "AI_APICallError", unknown_model: "AI_APICallError", rate_limit: "AI_APICallError" },
  },
];

const rows = [];

for (const { client, call, reached, rank, refusals, tooMany = 501 } of CLIENTS) {
  const path = new URL(`node_modules/${client}/package.json`, import.meta.url);
  const { version } = JSON.parse(readFileSync(path));
  const told = (name, seen) => rows.push({ client, version, call, reached, test: name, seen });
  const request = (changes) => ({
    key: CLIENTS_KEY, url: CLIENTS_SERVER, documents: DOCUMENTS, topN: undefined, name: "qwen3-rerank", ...changes,
  });

  describe(`${call} at ${reached}`, () => {
    test("ranks", async () => {
      const results = await rank(request());
      assert.deepEqual(results.map((result) => result.index), ORDER);
      const scores = results.map((result) => result.score);
      assert.deepEqual(scores, [...new Set(scores)].sort((a, b) => b - a));
      assert.ok(scores.every((score) => score >= 0 && score <= 1));
      told("test_ranks", "yes");
    });

    test("returns the best", async () => {
      const results = await rank(request({ topN: 2 }));
      assert.deepEqual(results.map((result) => result.index), ORDER.slice(0, 2));
      told("test_returns_the_best", "yes");
    });

    const many = [...DOCUMENTS, ...Array(tooMany - DOCUMENTS.length).fill("Bread is baked.")];
    const wrong = {
      wrong_key: { key: "wrong-key" },
      unknown_model: { name: "nobody/nothing" },
      too_many: { documents: many },
      rate_limit: { url: CLIENTS_LIMITED_SERVER },
    };
    for (const [condition, changes] of Object.entries(wrong)) {
      test(condition, async () => {
        if (condition === "rate_limit") await spendTheMinute();
        if (!(condition in refusals)) {
          assert.equal((await rank(request(changes)))[0].index, ORDER[0]);
          told(condition, "–");
          return;
        }
        const error = await rank(request(changes)).then(() => undefined, (raised) => raised);
        const seen = error?.name === "Error" ? error.constructor.name : error?.name;
        assert.equal(seen, refusals[condition], String(error));
        told(condition, seen);
      });
    }
  });
}

/** The limited server takes one call a minute; less than 5 s of it could end in the middle of a test. */
async function spendTheMinute() {
  for (;;) {
    const answer = await fetch(`${CLIENTS_LIMITED_SERVER}/v1/rerank`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ query: "a", documents: ["b"] }),
    });
    const wait = answer.status === 429 ? Number(answer.headers.get("retry-after")) : 0;
    if (wait >= 5) return;
    await new Promise((resolve) => setTimeout(resolve, wait * 1000));
  }
}

after(() => writeFileSync(CLIENTS_RESULTS, JSON.stringify(rows, null, 1) + "\n"));
