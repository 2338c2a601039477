"""Use rerankd through openai's SDK, as an application does that has one OpenAI-compatible upstream.

pip install openai
RERANKD_URL=http://127.0.0.1:8000 python examples/openai_sdk.py
"""

from __future__ import annotations

import os

from openai import BaseModel, OpenAI


class Result(BaseModel):
    index: int
    relevance_score: float


class Reply(BaseModel):
    model: str
    results: list[Result]


QUERY = "What is the capital of China?"
DOCUMENTS = ["Gravity is a force.", "The capital of China is Beijing."]


def main() -> None:
    client = OpenAI(base_url=f"{os.environ['RERANKD_URL']}/v1", api_key=os.environ.get("RERANKD_API_KEY", "none"))
    print("models:", ", ".join(sorted(model.id for model in client.models.list())))
    body = {"model": "qwen3-rerank", "query": QUERY, "documents": DOCUMENTS, "top_n": 1}
    reply = client.post("/reranks", body=body, cast_to=Reply)  # with the SDK's retries, timeouts and errors
    for result in reply.results:
        print(f"{result.relevance_score:.4f}  {DOCUMENTS[result.index]}")


if __name__ == "__main__":
    main()
