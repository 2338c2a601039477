"""Documents that are split: the same on every path, with its bill, its limits and its warnings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd.apis.base import ApiSettings
from rerankd.apis.cohere import CohereV1
from rerankd.types import Passages
from support.server import Server, StartServer
from support.surfaces import (
    COHERE_V1,
    COHERE_V2,
    COMPATIBLE,
    FOLDERS,
    INFINITY,
    JINA,
    LLAMA_CPP,
    NATIVE,
    NIM,
    ONE_EACH,
    RERANK,
    TEI,
    XINFERENCE,
    Surface,
)

QUERY = "Where are cloves grown?"
INSTRUCT = "Find texts that answer the question"
TOWN = "The harbour town ships nutmeg and cinnamon in wooden boats. "
LONG = TOWN * 20 + "Farmers on the island of Pemba harvest most cloves in autumn. 🌴 " + (TOWN * 20).strip()
DOCUMENTS = (LONG, "Gravity is a force.", "面包是烤的。水在一百度沸腾。" * 30)
WANTED = {"max_tokens": 60, "top_n": 100}
SHARED: dict[str, Any] = {"passages": WANTED, "explain": True, "instruct": INSTRUCT}
Row = dict[str, Any]


def rows_of(surface: Surface, answer: httpx2.Response) -> list[Row]:
    assert answer.status_code == 200, answer.text[:500]
    return surface.rows(answer.json())


def body_of(surface: Surface, documents: Sequence[str], **options: Any) -> Row:
    """NIM's documents are called passages, so our field has another name there."""
    if surface is NIM and "passages" in options:
        options["passage_options"] = options.pop("passages")
    return surface.body(QUERY, list(documents), **options)


def rows(server: Server, surface: Surface, documents: Sequence[str] = DOCUMENTS, **options: Any) -> list[Row]:
    return rows_of(surface, server.post(surface.path, body_of(surface, documents, **options)))


@pytest.fixture(scope="module")
def expected(qwen_server: Server) -> list[Row]:
    """The results on the shared path, by index."""
    return sorted(rows(qwen_server, RERANK, **SHARED), key=lambda row: row["index"])


@pytest.mark.parametrize("surface", [*ONE_EACH, *FOLDERS], ids=str)
def test_every_path_has_the_same_logits_and_passages(
    surface: Surface, qwen_server: Server, expected: list[Row]
) -> None:
    found = {row["index"]: row for row in rows(qwen_server, surface, **SHARED)}
    for row in expected:
        same = found[row["index"]]
        assert same["explain"]["logit"] == row["explain"]["logit"], "to the bit"
        assert same["passages"] == row["passages"] and same["num_passages"] == row["num_passages"]


def test_a_document_has_the_logit_of_its_best_passage_which_is_that_of_its_text_alone(
    qwen_server: Server, expected: list[Row]
) -> None:
    for text, row in zip(DOCUMENTS, expected, strict=True):
        passages = row["passages"]
        assert row["num_passages"] == len(passages) == (1 if row["index"] == 1 else len(passages))
        logits = [passage["logit"] for passage in passages]
        assert row["explain"]["logit"] == logits[0] == max(logits) and logits == sorted(logits, reverse=True)
        texts = [text[passage["start"] : passage["end"]] for passage in passages]
        alone = rows(qwen_server, RERANK, texts, explain=True, instruct=INSTRUCT)
        by_index = {one["index"]: one["explain"]["logit"] for one in alone}
        assert [by_index[index] for index in range(len(texts))] == pytest.approx(logits, abs=1e-6)
        in_order = sorted(passages, key=lambda passage: passage["start"])
        assert in_order[0]["start"] == 0 and in_order[-1]["end"] == len(text)


@pytest.mark.parametrize("surface", [NATIVE, COMPATIBLE], ids=str)
def test_the_bill_counts_the_query_for_each_passage(surface: Surface, qwen_server: Server) -> None:
    answer = qwen_server.post(surface.path, surface.body(QUERY, list(DOCUMENTS), **SHARED))
    results = rows_of(surface, answer)
    passages = [passage for row in results for passage in row["passages"]]
    of_query = results[0]["explain"]["query_tokens"]
    assert surface.tokens(answer) == of_query * len(passages) + sum(passage["tokens"] for passage in passages)
    assert surface.warnings(answer) == f"2 of 3 documents were split: {len(passages)} passages in all"


def test_a_document_that_fits_has_the_same_bits_with_and_without(qwen_server: Server) -> None:
    plain = rows(qwen_server, RERANK, explain=True)
    split = rows(qwen_server, RERANK, explain=True, passages=True)
    assert [row["explain"]["logit"] for row in split] == [row["explain"]["logit"] for row in plain]
    assert all(row["passages"][0]["start"] == 0 and row["num_passages"] == 1 for row in split)
    assert not any("passages" in row for row in plain)


@pytest.fixture(scope="module")
def short_context(tiny_checkpoint: Any, start_server: StartServer) -> Server:
    options = ("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test", "--max-context", "200")
    return start_server(*options, "--max-passages", "6", key="test-key")


def test_what_is_refused_or_cut_is_split_where_it_is_asked_for(short_context: Server) -> None:
    body = RERANK.body(QUERY, [LONG])
    assert short_context.post(RERANK.path, body).status_code == 400
    for asked in ({"passages": True}, {"max_chunks_per_doc": 1024, "overlap_tokens": 80}):
        answer = short_context.post(RERANK.path, {**body, **asked})
        assert RERANK.warnings(answer).startswith("1 of 1 documents were split: ")
        assert ("passages" in answer.json()["results"][0]) is ("passages" in asked)
    assert short_context.post(LLAMA_CPP.path, LLAMA_CPP.body(QUERY, [LONG])).status_code == 400
    cut = short_context.post(COHERE_V2.path, COHERE_V2.body(QUERY, [LONG]))
    assert "truncated" in cut.headers["x-rerankd-warning"]


def test_what_is_not_read_is_told(short_context: Server) -> None:
    text = LONG * 4
    answer = short_context.post(RERANK.path, RERANK.body(QUERY, [text], passages={"top_n": 9}))
    [row] = answer.json()["results"]
    assert row["num_passages"] == 6
    end = max(passage["end"] for passage in row["passages"])
    told = f"1 of 1 documents were read only to their last passage (document 0: {end} of {len(text)} characters)"
    assert f"{told}: allow more passages, or longer ones" in answer.json()["meta"]["warnings"]


def test_cohere_v1_and_xinference_split_as_they_document(short_context: Server) -> None:
    for surface, options in (
        (COHERE_V1, {}),
        (COHERE_V1, {"max_chunks_per_doc": 3}),
        (XINFERENCE, {"max_chunks_per_doc": 3}),
    ):
        answer = short_context.post(surface.path, surface.body(QUERY, [LONG, "A text."], **options))
        assert answer.status_code == 200
        number = options.get("max_chunks_per_doc", 5)
        assert f"1 of 2 documents were split: {number + 1} passages" in answer.headers["x-rerankd-warning"]
        assert "passages" not in answer.text.partition("meta")[0]
    units = short_context.post(COHERE_V1.path, COHERE_V1.body(QUERY, [LONG] * 60)).json()["meta"]["billed_units"]
    assert units == {"search_units": 3}, "300 passages"
    assert CohereV1(ApiSettings()).parse(CohereV1.body(query="q", documents=["a"])).passages == Passages(max_per_doc=10)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"max_tokens": 15}, "passages.max_tokens"),
        ({"max": 3}, "passages.max"),
        ({"max": 3}, "1 validation error"),
        ("yes please", "passages"),
        (7, "passages"),
    ],
)
def test_wrong_options(asked: Any, problem: str, qwen_server: Server) -> None:
    assert problem in RERANK.error(qwen_server.post(RERANK.path, RERANK.body(passages=asked)), 400)


def test_the_sentences_of_the_best_passages_are_scored_and_billed(qwen_server: Server) -> None:
    wanted = {"passages": {**WANTED, "highlight": True}, "explain": True, "instruct": INSTRUCT, "top_n": 2}
    answer = qwen_server.post(NATIVE.path, NATIVE.body(QUERY, list(DOCUMENTS), **wanted))
    plain = qwen_server.post(NATIVE.path, NATIVE.body(QUERY, list(DOCUMENTS), **{**SHARED, "top_n": 2}))
    results = rows_of(NATIVE, answer)
    assert len(results) == 2
    sentences = []
    for row in results:
        best, *others = row["passages"]
        assert not any("sentences" in passage for passage in others)
        found = best.pop("sentences")
        text = DOCUMENTS[row["index"]]
        assert "".join(text[one["start"] : one["end"]] for one in found) == text[best["start"] : best["end"]]
        sentences += [(text[one["start"] : one["end"]], one["logit"]) for one in found]
    assert results == rows_of(NATIVE, plain)
    alone = rows(qwen_server, RERANK, [text for text, _ in sentences], explain=True, instruct=INSTRUCT)
    logits = {row["index"]: row["explain"] for row in alone}
    for place, (_, logit) in enumerate(sentences):
        assert logit == pytest.approx(logits[place]["logit"], abs=1e-6)
    more = sum(one["query_tokens"] + one["document_tokens"] for one in logits.values())
    assert NATIVE.tokens(answer) == NATIVE.tokens(plain) + more


def test_limits_count_passages(qwen_server: Server) -> None:
    body = NATIVE.body(QUERY, [TOWN * 4000], passages={"max_tokens": 16, "max_per_doc": 64})
    assert qwen_server.post(NATIVE.path, body).status_code == 200
    many = NATIVE.body(QUERY, [TOWN * 4000] * 90, passages={"max_tokens": 32})
    assert "120000" in NATIVE.error(qwen_server.post(NATIVE.path, many), 400)


TEN_MEGABYTES = {"English": TOWN * 170_000, "one word": "x" * 10_000_000}


@pytest.mark.parametrize("language", TEN_MEGABYTES)
def test_ten_megabytes_are_read_only_as_far_as_the_passages_go(language: str, qwen_server: Server) -> None:
    """On several APIs; the memory is bounded by a multiple of the text, and the work by the number of passages."""
    text = TEN_MEGABYTES[language]
    pid = qwen_server.process.pid
    for surface in (RERANK, NATIVE, TEI, COHERE_V1):
        content = json.dumps(body_of(surface, [text], passages=WANTED), ensure_ascii=False).encode()
        before = memory_mb(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak before
        answer = qwen_server.post(surface.path, content=content, headers={"content-type": "application/json"})
        [row] = rows_of(surface, answer)
        assert row["num_passages"] == 64 and max(passage["end"] for passage in row["passages"]) < 64 * 60 * 8
        assert f"of {len(text)} characters" in answer.headers["x-rerankd-warning"]
        assert memory_mb(pid, "VmHWM") < before + 20 * len(text.encode()) / 1e6


def memory_mb(pid: int, field: str) -> float:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) / 1000 for line in file if line.startswith(field))


def test_offsets_count_in_the_text_as_it_was_sent(qwen_server: Server) -> None:
    """Also where an API removes the white space around it."""
    texts = [" \t\n" + text + "\n " for text in DOCUMENTS]
    wanted = {"passages": {**WANTED, "highlight": True}}
    for surface in (INFINITY, RERANK):
        for row in rows(qwen_server, surface, texts, **wanted):
            parts = [texts[row["index"]][one["start"] : one["end"]] for one in row["passages"]]
            alone = rows(qwen_server, RERANK, parts, explain=True)
            logits = {one["index"]: one["explain"]["logit"] for one in alone}
            assert [logits[place] for place in range(len(parts))] == pytest.approx(
                [one["logit"] for one in row["passages"]], abs=1e-6
            )
            sentences = [texts[row["index"]][one["start"] : one["end"]] for one in row["passages"][0]["sentences"]]
            assert "".join(sentences).strip() == parts[0].strip()


def test_a_query_that_leaves_no_room_is_told(short_context: Server) -> None:
    answer = short_context.post(JINA.path, JINA.body("clove " * 300, [LONG], passages=True))
    assert "passages ignored: the query leaves no room for them" in answer.headers["x-rerankd-warning"]
