"""Addresses as people have them in their settings, and where the client then asks.

Each line: what is given, the dialect that is asked for, the one that is spoken, where the requests go.
"""

# a line an address

from __future__ import annotations

from typing import Any

import pytest

from rerankd.client.address import read_address
from rerankd.client.dialects import endpoint

ADDRESSES = """
http://localhost:8000 auto vllm http://localhost:8000/v1/rerank
http://localhost:8000/ auto vllm http://localhost:8000/v1/rerank
http://localhost:8000/v1 auto vllm http://localhost:8000/v1/rerank
http://localhost:8000/v1/ auto vllm http://localhost:8000/v1/rerank
http://localhost:8000/v1/rerank/ auto vllm http://localhost:8000/v1/rerank
http://localhost:7997/rerank auto vllm http://localhost:7997/rerank
http://h/V1 auto vllm http://h/V1/rerank
http://h/V1/Rerank auto vllm http://h/V1/Rerank
http://h/v1/score auto vllm http://h/v1/rerank
http://h/score auto vllm http://h/v1/rerank
http://h/v1/embeddings auto vllm http://h/v1/rerank
http://h/v1/models auto vllm http://h/v1/rerank
http://h:8000/v1?api-version=2024-02-01&x=y auto vllm http://h:8000/v1/rerank?api-version=2024-02-01&x=y
http://h/v1/rerank?a=b#part auto vllm http://h/v1/rerank?a=b
http://[::1]:8080 auto vllm http://[::1]:8080/v1/rerank
http://[fd00::7]:8080/v1/ auto vllm http://[fd00::7]:8080/v1/rerank
https://proxy.example/models/v1?version=2 auto vllm https://proxy.example/models/v1/rerank?version=2
http://h/llm/rerank-svc auto vllm http://h/llm/rerank-svc/v1/rerank
http://h/a%2Fb/v1 auto vllm http://h/a%2Fb/v1/rerank
https://gw.corp/api/v1 auto vllm https://gw.corp/api/v1/rerank
http://localhost:8000/api/v1 auto vllm http://localhost:8000/api/v1/rerank
https://gw.corp/api/v1/rerank auto vllm https://gw.corp/api/v1/rerank
https://gw.corp/api/v1 dashscope dashscope https://gw.corp/api/v1/services/rerank/text-rerank/text-rerank
https://gw.corp/v1 dashscope dashscope https://gw.corp/api/v1/services/rerank/text-rerank/text-rerank
https://gw.corp/api/v1/services/rerank auto dashscope https://gw.corp/api/v1/services/rerank/text-rerank/text-rerank
https://gw.corp/v1 dashscope-compatible dashscope-compatible https://gw.corp/v1/reranks
https://gw.corp/compatible-mode/v1 auto dashscope-compatible https://gw.corp/compatible-api/v1/reranks
https://openrouter.ai auto vllm https://openrouter.ai/api/v1/rerank
https://openrouter.ai/api/v1 auto vllm https://openrouter.ai/api/v1/rerank
https://openrouter.ai/api/v1/chat/completions auto vllm https://openrouter.ai/api/v1/rerank
https://api.siliconflow.cn/v1 auto vllm https://api.siliconflow.cn/v1/rerank
https://open.bigmodel.cn/api/paas/v4 auto vllm https://open.bigmodel.cn/api/paas/v4/rerank
https://7.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/qwen3 auto vllm https://7.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/qwen3/v1/rerank
https://dashscope.aliyuncs.com auto dashscope https://dashscope.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank
https://dashscope-intl.aliyuncs.com/api/v1 auto dashscope https://dashscope-intl.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank
https://dashscope.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank auto dashscope https://dashscope.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank
https://dashscope.aliyuncs.com/compatible-mode/v1 auto dashscope-compatible https://dashscope.aliyuncs.com/compatible-api/v1/reranks
https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions auto dashscope-compatible https://dashscope.aliyuncs.com/compatible-api/v1/reranks
https://dashscope-intl.aliyuncs.com/compatible-mode/v1/ auto dashscope-compatible https://dashscope-intl.aliyuncs.com/compatible-api/v1/reranks
https://dashscope.aliyuncs.com/compatible-api/v1 auto dashscope-compatible https://dashscope.aliyuncs.com/compatible-api/v1/reranks
https://dashscope.aliyuncs.com/compatible-mode/v1 dashscope dashscope https://dashscope.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank
https://dashscope.aliyuncs.com/compatible-mode/v1 dashscope-compatible dashscope-compatible https://dashscope.aliyuncs.com/compatible-api/v1/reranks
https://dashscope.aliyuncs.com/api/v1 dashscope-compatible dashscope-compatible https://dashscope.aliyuncs.com/compatible-api/v1/reranks
https://cn-hongkong.dashscope.aliyuncs.com/compatible-mode/v1 auto dashscope-compatible https://cn-hongkong.dashscope.aliyuncs.com/compatible-api/v1/reranks
https://vpc-cn-beijing.dashscope.aliyuncs.com/api/v1 auto dashscope https://vpc-cn-beijing.dashscope.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank
https://ws-1.eu-central-1.maas.aliyuncs.com/api/v1 auto dashscope https://ws-1.eu-central-1.maas.aliyuncs.com/api/v1/services/rerank/text-rerank/text-rerank
https://ws-1.eu-central-1.maas.aliyuncs.com/compatible-mode/v1 auto dashscope-compatible https://ws-1.eu-central-1.maas.aliyuncs.com/compatible-api/v1/reranks
http://localhost:8000/v1/reranks auto dashscope-compatible http://localhost:8000/v1/reranks
https://api.cohere.com auto cohere https://api.cohere.com/v2/rerank
https://api.cohere.com/v1 auto cohere https://api.cohere.com/v2/rerank
https://api.cohere.com/v2 auto cohere https://api.cohere.com/v2/rerank
https://api.cohere.com/v1/rerank auto cohere https://api.cohere.com/v1/rerank
https://api.cohere.com/compatibility/v1 auto cohere https://api.cohere.com/v2/rerank
https://api.cohere.ai/v1 auto cohere https://api.cohere.ai/v2/rerank
http://localhost:8000/v2/rerank auto cohere http://localhost:8000/v2/rerank
http://localhost:8000/v2 auto cohere http://localhost:8000/v2/rerank
https://gw.corp/v1 cohere cohere https://gw.corp/v2/rerank
http://localhost:8000/cohere auto cohere http://localhost:8000/cohere/v2/rerank
https://gw.corp/cohere/v1 auto cohere https://gw.corp/cohere/v2/rerank
https://api.jina.ai auto jina https://api.jina.ai/v1/rerank
https://api.jina.ai/v1 auto jina https://api.jina.ai/v1/rerank
https://api.jina.ai/v1/embeddings auto jina https://api.jina.ai/v1/rerank
http://localhost:8000/jina/v1 auto jina http://localhost:8000/jina/v1/rerank
https://api.voyageai.com/v1 auto voyage https://api.voyageai.com/v1/rerank
https://ai.mongodb.com/v1 auto voyage https://ai.mongodb.com/v1/rerank
https://api.mixedbread.com auto mixedbread https://api.mixedbread.com/v1/reranking
http://tei:8080 tei tei http://tei:8080/rerank
http://tei:8080/ tei tei http://tei:8080/rerank
http://tei:8080/v1 tei tei http://tei:8080/rerank
http://tei:8080/embed tei tei http://tei:8080/rerank
http://tei:8080/rerank tei tei http://tei:8080/rerank
http://localhost:8000/tei auto tei http://localhost:8000/tei/rerank
http://h:7997 infinity infinity http://h:7997/rerank
http://h:7997/v1 infinity infinity http://h:7997/v1/rerank
http://h:9997 xinference xinference http://h:9997/v1/rerank
http://h:9997/v1 xinference xinference http://h:9997/v1/rerank
http://localhost:8000/reranking auto llamacpp http://localhost:8000/reranking
http://nim:8000 nim nim http://nim:8000/v1/ranking
http://nim:8000/v1 nim nim http://nim:8000/v1/ranking
http://nim:8000/v1/ranking auto nim http://nim:8000/v1/ranking
https://ai.api.nvidia.com/v1/retrieval/nvidia/reranking auto nim https://ai.api.nvidia.com/v1/retrieval/nvidia/reranking
unix:/run/rerankd.sock auto vllm http://localhost/v1/rerank
unix:///run/rerankd.sock auto vllm http://localhost/v1/rerank
unix:/run/rerankd.sock:/tei auto tei http://localhost/tei/rerank
"""


@pytest.mark.parametrize("line", ADDRESSES.split("\n")[1:-1])
def test_an_address_is_completed(line: str) -> None:
    given, asked, spoken, expected = line.split()
    dialect: Any = asked
    name, url = endpoint(given, dialect)
    assert (name, str(url)) == (spoken, expected)


@pytest.mark.parametrize("line", ADDRESSES.split("\n")[1:-1])
def test_what_is_completed_is_taken_as_it_is(line: str) -> None:
    _, _, spoken, expected = line.split()
    dialect: Any = spoken
    assert str(endpoint(expected, dialect)[1]) == expected


@pytest.mark.parametrize(
    "text", ["unix:/run/r.sock", "unix:///run/r.sock", "unix:/run/r.sock:/v1", " UNIX:/run/r.sock "]
)
def test_a_socket_is_a_file(text: str) -> None:
    assert read_address(text).socket == "/run/r.sock"
    assert read_address("http://h").socket is None
