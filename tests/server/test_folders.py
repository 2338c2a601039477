"""Every API with its own path prefix gives the scores of /v1/rerank, and replies to any body in its own shape."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings

from rerankd.apis.base import ApiSettings
from rerankd.apis.registry import api_routes
from rerankd.engine.scorer import EngineScorer
from rerankd.types import LoadProgress
from support.fakes import NumberedModel, scorer_of
from support.server import Server, StartServer
from support.serving import serving
from support.surfaces import (
    COHERE_V1,
    COHERE_V2,
    DOCUMENTS,
    FOLDERS,
    JINA,
    MIXEDBREAD,
    NIM,
    QUERY,
    RERANK,
    VOYAGE,
    XINFERENCE,
    Surface,
)
from support.wild import EXAMPLES, bodies, mutations

ECHOING = tuple(folder for folder in FOLDERS if folder is not NIM)
"""The APIs that return documents on request."""

JSON_TYPE = {"content-type": "application/json"}
TEXT = "The capital of China is Beijing."


def each(folders: Sequence[Surface] = FOLDERS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("folder", folders, ids=str)


def post(server: Server, folder: Surface, *texts: Any, **options: Any) -> httpx2.Response:
    """A call with `options` beside query and documents (`texts`, if not the usual ones)."""
    return server.post(folder.path, folder.body(*texts, **options))


# Scores and order.


@each()
@pytest.mark.parametrize("instruct", [None, "Find texts about bread"])
def test_the_same_pairs_have_the_same_scores_as_on_the_shared_path(
    folder: Surface, instruct: str | None, qwen_server: Server
) -> None:
    options = {"use_activation": False} if folder is NIM else {}  # NIM's scores are logits
    expected = dict(RERANK.scores(qwen_server.post(RERANK.path, RERANK.body(instruct=instruct, **options))))
    scores = dict(folder.scores(post(qwen_server, folder, instruct=instruct)))
    if folder.decimals is not None:
        expected = {index: round(score, folder.decimals) for index, score in expected.items()}
    assert scores == pytest.approx(expected, abs=1e-6)
    assert len(set(scores.values())) == 3


@each()
def test_results_are_sorted_and_ties_keep_the_callers_order(folder: Surface, qwen_server: Server) -> None:
    documents = [DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[1]]
    results = folder.scores(post(qwen_server, folder, QUERY, documents))
    assert [score for _, score in results] == sorted((score for _, score in results), reverse=True)
    indexes = [index for index, _ in results]
    assert [index for index in indexes if index % 2] == [1, 3]
    assert [index for index in indexes if not index % 2] == [0, 2, 4]


@each()
def test_top_n(folder: Surface, qwen_server: Server) -> None:
    best = folder.scores(post(qwen_server, folder))
    for top_n, expected in ((1, 1), (2, 2), (99, 3), (None, 3), ("2", 2)):
        assert folder.scores(post(qwen_server, folder, top_n=top_n)) == best[:expected]


@each()
@pytest.mark.parametrize("name", ["instruct", "instruction"])
def test_the_instruct_has_two_names(folder: Surface, name: str, qwen_server: Server) -> None:
    plain = folder.scores(post(qwen_server, folder))
    instructed = post(qwen_server, folder, **{name: "Find texts about bread"})
    assert folder.scores(instructed) != plain
    assert "x-rerankd-warning" not in instructed.headers
    both = post(qwen_server, folder, instruct="Find texts about bread", instruction="Find rivers")
    assert folder.scores(both) == folder.scores(post(qwen_server, folder, instruct="Find texts about bread"))
    assert both.headers["x-rerankd-warning"] == "instruction ignored: instruct says something else"


@each()
def test_each_result_can_be_explained(folder: Surface, qwen_server: Server) -> None:
    for row in folder.rows(post(qwen_server, folder, explain={"prompt": 1}).json()):
        assert row["explain"]["prompt_tokens"] > row["explain"]["document_tokens"] > 0
        assert ("prompt" in row["explain"]) is (row["index"] == 1)


# Rules of the readers (collisions of paths, what clients send).

OPTIONAL = {
    COHERE_V1: ("model", "top_n", "rank_fields", "return_documents", "max_chunks_per_doc"),
    COHERE_V2: ("top_n", "max_tokens_per_doc", "priority", "relevant_spans"),
    JINA: ("model", "top_n", "top_k", "return_documents", "max_doc_length", "max_tokens_per_doc"),
    VOYAGE: ("top_k", "return_documents", "truncation"),
    MIXEDBREAD: ("model", "rank_fields", "top_k", "return_input", "rewrite_query"),
    XINFERENCE: ("top_n", "return_documents", "return_len", "max_chunks_per_doc", "kwargs"),
    NIM: ("model", "truncate", "top_k"),
}


@each(ECHOING)
def test_rule_1_a_document_is_an_object_with_a_text_or_absent(folder: Surface, qwen_server: Server) -> None:
    """Voyage has a string, Mixedbread the input; null is in the documented replies of Mixedbread and Xinference."""
    for asked in (None, False, True):
        for row in folder.rows(post(qwen_server, folder, return_documents=asked).json()):
            text = DOCUMENTS[row["index"]]
            if folder is MIXEDBREAD:
                assert row["input"] == (text if asked else None)
            elif folder is VOYAGE:
                assert row.get("document", "absent") == (text if asked else "absent")
            elif folder is XINFERENCE:
                assert row["document"] == ({"text": text} if asked else None)
            else:
                with_document = asked or (folder is JINA and asked is None)
                assert row.get("document", "absent") == ({"text": text} if with_document else "absent")


@each()
def test_rule_2_every_document_is_returned_when_no_number_is_asked_for(folder: Surface, qwen_server: Server) -> None:
    documents = [f"Text {number}" for number in range(40)]
    for options in ({}, {"top_n": None}):
        indexes = [index for index, _ in folder.scores(post(qwen_server, folder, QUERY, documents, **options))]
        assert sorted(indexes) == list(range(40))


@each()
def test_rule_3_null_is_accepted_for_every_optional_field(folder: Surface, qwen_server: Server) -> None:
    nulls = dict.fromkeys((*OPTIONAL[folder], "instruct", "instruction", "explain"))
    response = post(qwen_server, folder, **nulls)
    assert folder.scores(response) == folder.scores(post(qwen_server, folder))
    assert "x-rerankd-warning" not in response.headers


@each([COHERE_V1, JINA, VOYAGE, MIXEDBREAD, XINFERENCE])
def test_rule_4_booleans_may_be_written_as_strings(folder: Surface, qwen_server: Server) -> None:
    for text, value in (("true", True), ("false", False)):
        written, meant = (post(qwen_server, folder, return_documents=asked).json() for asked in (text, value))
        assert folder.rows(written) == folder.rows(meant)


@each()
def test_rule_5_unknown_fields_are_ignored_with_a_warning(folder: Surface, qwen_server: Server) -> None:
    response = post(qwen_server, folder, unheard_of=1, parameters={"extra_headers": {}})
    assert folder.scores(response) == folder.scores(post(qwen_server, folder))
    warning = response.headers["x-rerankd-warning"]
    assert warning == "fields ignored: 'unheard_of', 'parameters'"
    if "meta" in response.json():
        assert response.json()["meta"]["warnings"] == [warning]


@each()
def test_rule_6_a_good_answer_is_200_and_json(folder: Surface, qwen_server: Server) -> None:
    response = post(qwen_server, folder)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"


@each([JINA, VOYAGE, MIXEDBREAD])
def test_rules_7_and_8_usage_and_model_are_there(folder: Surface, qwen_server: Server) -> None:
    reply = post(qwen_server, folder).json()
    assert reply["model"] == "qwen3-rerank"
    assert reply["usage"]["total_tokens"] > 0


@each([COHERE_V1, JINA, MIXEDBREAD])
def test_the_model_may_be_left_out_where_it_is_optional(folder: Surface, qwen_server: Server) -> None:
    body = folder.body()
    del body["model"]
    assert len(folder.scores(qwen_server.post(folder.path, body))) == 3


@each([COHERE_V2, VOYAGE, XINFERENCE])
def test_the_model_must_be_there_where_it_is_required(folder: Surface, qwen_server: Server) -> None:
    body = folder.body()
    del body["model"]
    assert "model" in folder.error(qwen_server.post(folder.path, body), folder.wrong)


@each(ECHOING)
def test_rule_10_documents_are_texts_or_objects(folder: Surface, qwen_server: Server) -> None:
    objects: list[Any] = [{"text": TEXT, "id": 7}, DOCUMENTS[1], {"text": DOCUMENTS[2]}]
    response = post(qwen_server, folder, QUERY, objects, return_documents=True)
    assert folder.scores(response) == folder.scores(post(qwen_server, folder))
    rows = {row["index"]: row for row in folder.rows(response.json())}
    shown = [rows[index].get("input" if folder is MIXEDBREAD else "document") for index in range(3)]
    if folder is VOYAGE:
        assert shown == list(DOCUMENTS)
    elif folder is MIXEDBREAD:
        assert shown == objects
    elif folder is not COHERE_V2:
        assert shown == [{"text": TEXT, "id": 7}, {"text": DOCUMENTS[1]}, {"text": DOCUMENTS[2]}]


@each([JINA, VOYAGE, MIXEDBREAD, XINFERENCE])
def test_rule_10_text_parts_are_joined(folder: Surface, qwen_server: Server) -> None:
    parts = {"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}
    joined = folder.scores(post(qwen_server, folder, QUERY, ["one\ntwo", "three"]))
    assert folder.scores(post(qwen_server, folder, QUERY, [parts, "three"])) == joined
    image = {"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    assert f"{folder.documents}" in folder.error(post(qwen_server, folder, QUERY, [image]), folder.wrong)


# Which dialect a shared path speaks.


def test_top_k_or_truncation_without_top_n_is_voyage_on_the_shared_paths(qwen_server: Server) -> None:
    for path in ("/v1/rerank", "/rerank"):
        for options in ({"top_k": 1}, {"top_k": None}, {"truncation": True}, {"truncation": None}):
            reply = qwen_server.post(path, RERANK.body(**options)).json()  # no model: it may be left out here
            assert reply["object"] == "list" and "results" not in reply
            assert len(reply["data"]) == (1 if options.get("top_k") else 3)
            assert qwen_server.post(path, RERANK.body(**{**options, "top_k": 0})).json() == {
                "detail": "top_k: Input should be greater than or equal to 1"
            }
        for options in ({}, {"top_n": 1}, {"top_n": 1, "top_k": 1}, {"top_n": None, "truncation": None}):
            assert "results" in qwen_server.post(path, RERANK.body(**options)).json()


def test_the_key_input_is_mixedbread_on_the_shared_paths(qwen_server: Server) -> None:
    for path in ("/v1/reranking", "/reranking"):
        reply = qwen_server.post(path, MIXEDBREAD.body()).json()
        assert [set(row) for row in reply["data"]] == [{"index", "score", "input", "object"}] * 3
        assert qwen_server.post(path, MIXEDBREAD.body(top_n=0)).json()["type"] == "validation_error"


def test_version_2_is_served_as_the_superset(qwen_server: Server) -> None:
    """cohere's client reads results, id and meta; the model may be left out, as vLLM has it."""
    reply = qwen_server.post("/v2/rerank", RERANK.body()).json()
    assert set(reply) >= {"id", "results", "meta", "usage"}


@each()
def test_a_folder_speaks_its_dialect_whatever_the_body_looks_like(folder: Surface, qwen_server: Server) -> None:
    others = {"texts": ["a"], "top_k": 1, "truncation": True, "label_token_ids": [1, 2], "inputs": ["a"]}
    others |= {} if folder is VOYAGE else {"top_n": 1}  # which Voyage refuses by name
    body = others | {"input": ["a"]} | folder.body()
    assert folder.rows(qwen_server.post(folder.path, body).json())
    folder.error(qwen_server.post(folder.path, {**others, folder.top: "x"}), folder.wrong)


# Errors, row by row.


@each()
def test_error_missing_or_wrong_key(folder: Surface, qwen_server: Server) -> None:
    missing = httpx2.post(qwen_server.url + folder.path, json=folder.body())
    wrong = qwen_server.post(folder.path, folder.body(), key="wrong")
    for response in (missing, wrong):
        assert folder.error(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert folder.error(missing, 401) != folder.error(wrong, 401)


@each()
def test_error_unknown_model(folder: Surface, qwen_server: Server) -> None:
    message = folder.error(post(qwen_server, folder, model="no-such-model"), folder.unknown_model)
    assert "no-such-model" in message and "qwen3-rerank" in message  # what was wrong, and the way out


@each()
def test_error_empty_documents(folder: Surface, qwen_server: Server) -> None:
    assert folder.error(post(qwen_server, folder, QUERY, []), folder.wrong)


@each()
def test_error_top_n_out_of_range(folder: Surface, qwen_server: Server) -> None:
    for top_n in (-2, 0):
        response = post(qwen_server, folder, top_n=top_n)
        if folder is XINFERENCE and top_n == 0:
            assert len(folder.scores(response)) == 3
        else:
            assert folder.top in folder.error(response, folder.wrong)


WRONG_TYPES: tuple[tuple[str, Any], ...] = (
    ("query", 3),
    ("query", None),
    ("query", {"no": "text"}),
    ("documents", 3),
    ("documents", None),
    ("documents", "one text"),
    ("documents", ["a", 3]),
    ("documents", [{"title": "a"}]),
    ("documents", [{"text": 3}]),
    ("top_n", "many"),
    ("top_n", 1.5),
    ("top_n", [1]),
    ("model", 3),
    ("instruct", ["a"]),
    ("explain", {"prompts": 1}),
)


@each()
def test_error_wrong_types(folder: Surface, qwen_server: Server, subtests: pytest.Subtests) -> None:
    for name, value in WRONG_TYPES:
        with subtests.test(f"{name}: {value!r}"):
            body = folder.body()
            field = {"documents": folder.documents, "top_n": folder.top}.get(name, name)
            body[field] = value
            message = folder.error(qwen_server.post(folder.path, body), folder.wrong)
            assert field in message.replace(" -> ", ".")


@each()
def test_error_missing_fields_are_named(folder: Surface, qwen_server: Server) -> None:
    for field in ("query", folder.documents):
        body = {**folder.body(), "misspelt": 1}
        del body[field]
        message = folder.error(qwen_server.post(folder.path, body), folder.wrong)
        assert field in message and "required" in message


@each()
def test_error_not_json(folder: Surface, qwen_server: Server) -> None:
    for content in (b"{", b"", b"[]", b"\xff", b'{"query": NaN}'):
        assert folder.error(qwen_server.post(folder.path, content=content, headers=JSON_TYPE), folder.wrong)


@each()
def test_error_another_method(folder: Surface, qwen_server: Server) -> None:
    response = httpx2.get(qwen_server.url + folder.path)
    assert "GET" in folder.error(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.fixture(scope="module")
def exhausted_server(start_server: StartServer) -> Server:
    """Allows one request a minute, which is used up."""
    server = start_server("--model", "embedded", "--requests-per-minute", "1", key="test-key")
    assert server.post(RERANK.path, RERANK.body()).status_code == 200
    return server


@each()
def test_error_rate_limit(folder: Surface, exhausted_server: Server) -> None:
    response = post(exhausted_server, folder)
    assert "1 requests a minute" in folder.error(response, 429)
    assert 1 <= int(response.headers["retry-after"]) <= 60


@pytest.fixture(scope="module")
def small_server(start_server: StartServer) -> Server:
    """Reads at most 1 MB."""
    return start_server("--model", "embedded", "--max-body-mb", "1", key="test-key")


@each()
def test_error_a_body_over_the_limit(folder: Surface, small_server: Server) -> None:
    response = small_server.post(folder.path, content=b" " * 1_000_001, headers=JSON_TYPE)
    assert "1 MB" in folder.error(response, 413 if folder in (JINA, NIM) else folder.wrong)


def test_error_loading() -> None:
    loaded = threading.Event()

    def start(progress: LoadProgress) -> EngineScorer:
        progress("loading the weights", 0.25)
        assert loaded.wait(60)
        return scorer_of(NumberedModel())

    with serving(start, wait=False) as client:
        for folder in FOLDERS:
            response = client.post(folder.path, json=folder.body())
            assert "loading the weights" in folder.error(response, 503)
            assert int(response.headers["retry-after"]) >= 1
        loaded.set()


def test_error_the_model_fails() -> None:
    """Told without the cause."""
    with serving(lambda progress: scorer_of(NumberedModel())) as client:
        for folder in FOLDERS:
            message = folder.error(client.post(folder.path, json=folder.body(documents=["1", "nan"])), 500)
            assert "nan" not in message.lower()
            assert len(folder.scores(client.post(folder.path, json=folder.body(documents=["1", "2"])))) == 2


# Limits.


@each([folder for folder in FOLDERS if folder is not COHERE_V1])  # it splits documents
def test_a_document_over_the_served_context_is_cut_visibly(folder: Surface, qwen_server: Server) -> None:
    options = {"truncate": "END"} if folder is NIM else {}  # without it, NIM refuses the call
    response = post(qwen_server, folder, QUERY, ["short", " the" * 9000], **options)
    assert len(folder.scores(response)) == 2
    warning = response.headers["x-rerankd-warning"]
    kept = int(warning.removeprefix("document 1 truncated from 9000 to ").removesuffix(" tokens"))
    assert kept == 4096 if folder is COHERE_V2 else 8000 < kept < 8192
    if "meta" in response.json():
        assert response.json()["meta"]["warnings"] == [warning]


@each()
def test_a_fallback_model_is_told(folder: Surface, embedded_server: Server) -> None:
    """The embedded model reads no instruct, and the caller learns of it."""
    response = post(embedded_server, folder, QUERY, ["some words", "short"], instruct="Find rivers")
    assert len(folder.scores(response)) == 2
    assert "instruct ignored" in response.headers["x-rerankd-warning"]


# The description, and any input.


@each()
def test_replies_and_errors_are_as_described(folder: Surface, qwen_server: Server) -> None:
    """The documented shape, and nothing that is not documented."""
    [dialect] = api_routes(ApiSettings())["POST", folder.path]
    for options in ({}, {"return_documents": True}, {"unheard_of": 1}, {"explain": True}, {"return_len": True}):
        reply = post(qwen_server, folder, **options).json()
        dialect.reply_body.model_validate(reply, strict=True, extra="forbid")
    objects = [{"text": "a", "more": 1}, "b"]
    reply = post(qwen_server, folder, QUERY, objects, return_documents=True).json()
    dialect.reply_body.model_validate(reply, strict=True)
    errors = [
        qwen_server.post(folder.path, {}),
        qwen_server.post(folder.path, content=b"{", headers=JSON_TYPE),
        post(qwen_server, folder, QUERY, []),
        post(qwen_server, folder, QUERY, [3]),
        post(qwen_server, folder, top_n=0.5),
        post(qwen_server, folder, model="unknown"),
        qwen_server.post(folder.path, folder.body(), key="wrong"),
    ]
    for response in errors:
        assert response.status_code in dialect.statuses
        dialect.error_body.model_validate(response.json(), strict=True, extra="forbid")


@pytest.mark.slow
@each()
@pytest.mark.parametrize("make", [bodies, mutations], ids=["wild bodies", "changed bytes"])
def test_any_body_is_answered_in_the_dialect(folder: Surface, make: Any, qwen_server: Server) -> None:
    seen: Counter[int] = Counter()
    headers = {"authorization": f"Bearer {qwen_server.key}", **JSON_TYPE}
    with httpx2.Client(base_url=qwen_server.url, headers=headers, timeout=60) as client:

        @settings(EXAMPLES, max_examples=300)
        @given(make(folder))
        def check(content: bytes) -> None:
            response = client.post(folder.path, content=content)
            seen[response.status_code] += 1
            if response.status_code == 200:
                scores = folder.scores(response)
                assert [score for _, score in scores] == sorted((score for _, score in scores), reverse=True)
                assert len({index for index, _ in scores}) == len(scores) <= len(json.loads(content)[folder.documents])
            else:
                assert response.status_code in (folder.wrong, folder.unknown_model, 400), response.text[:500]
                assert folder.error(response, response.status_code)

        check()
    assert seen[200] > 10 and seen[folder.wrong] > 10, seen
