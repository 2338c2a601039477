"""`POST /v1/search`: BM25 finds parts of the server's index, the model ranks them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd import Index
from rerankd.accounts.store import Store
from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import InvalidRequest
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.testing import FakeModel
from support.payers import new_payer
from support.serving import serving_model, wait_until

PAGES = {
    "keys.md": "# Accounts\n\n## Keys\n\n"
    + "A key opens the door. " * 12
    + "\n\nA key is rotated. The old one ends.\n",
    "bills.md": "# Bills\n\nA bill comes by mail.\n",
}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text)
    Index(folder, folder=tmp_path / "index")
    return tmp_path / "index"


def models(model: FakeModel) -> Models:
    return Models(ServedModel(lambda _: EngineScorer(Engine(model), model)))


@pytest.fixture
def client(index: Path) -> Iterator[httpx2.Client]:
    with serving_model(models(FakeModel()), index=index) as client:
        yield client


def search(client: httpx2.Client, query: str, status: int = 200, **options: Any) -> Any:
    answer = client.post("/v1/search", json={"query": query, **options})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_parts_of_files_are_found_and_ranked(client: httpx2.Client) -> None:
    reply = search(client, "how is a key rotated? bill")
    assert reply["found"] == 2 and [one["path"] for one in reply["results"]] == ["keys.md", "bills.md"]
    best = reply["results"][0]
    assert set(best) == {"path", "first", "last", "heading", "id", "text", "score"} and best["id"] == ""
    assert (best["first"], best["last"], best["heading"]) == (1, 7, "") and best["text"].startswith("# Accounts")
    assert reply["usage"]["total_tokens"] > 0 and reply["warnings"] == []
    assert len(search(client, "key bill", top_n=1)["results"]) == 1
    assert search(client, "key bill", depth=1)["found"] == 1


def test_only_some_files_are_searched(client: httpx2.Client) -> None:
    reply = search(client, "key bill", only=["b*.md"])
    assert reply["found"] == 1 and reply["results"][0]["path"] == "bills.md"
    assert search(client, "key bill", only=["absent/"])["found"] == 0
    assert ".gitignore" in search(client, "key", 400, only=["!"])["error"]["message"]
    assert "only" in search(client, "key", 400, only="*.md")["error"]["message"]


def test_nothing_found_is_an_answer_of_no_tokens(client: httpx2.Client) -> None:
    reply = search(client, "absent")
    assert reply["found"] == 0 and reply["results"] == [] and reply["usage"]["total_tokens"] == 0
    assert search(client, "")["results"] == []


def test_the_best_sentence_is_marked_in_the_text(client: httpx2.Client, index: Path) -> None:
    docs = index.parent / "docs"
    (docs / "keys.md").write_text("# Accounts\n\n## Keys\n\n" + "A door opens. " * 70 + "\n\nA key ends. Ask Ada.\n")
    Index(docs, folder=index)  # a running server sees it
    reply = search(client, "when does a key end? ends.", passages={"highlight": True})
    best = reply["results"][0]
    assert best["heading"] == "Accounts > Keys" and best["text"] == "A key ends. Ask Ada."
    [passage] = best["passages"]
    sentences = {best["text"][one["start"] : one["end"]].strip(): one["score"] for one in passage["sentences"]}
    assert max(sentences, key=lambda text: sentences[text]) == "A key ends."
    assert (passage["start"], passage["end"]) == (0, len(best["text"]))


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "query"),
        ({"query": "key", "top_n": 0}, 400, "top_n"),
        ({"query": "key", "depth": 1001}, 400, "depth"),
        ({"query": ["key"]}, 400, "query"),
        ({"query": "key", "model": "absent"}, 404, "absent"),
    ],
)
def test_mistakes_are_named(client: httpx2.Client, body: dict[str, Any], status: int, said: str) -> None:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


def test_unknown_fields_are_named_in_a_warning(client: httpx2.Client) -> None:
    answer = client.post("/v1/search", json={"query": "key", "topn": 3})
    assert "'topn'" in answer.headers["x-rerankd-warning"] and "'topn'" in answer.json()["warnings"][0]


def test_it_is_charged_as_a_rerank_call_of_what_was_found(index: Path, store: Store) -> None:
    payer = new_payer(store)
    with serving_model(models(FakeModel()), store=store, accounts=True, index=index) as client:
        assert client.post("/v1/search", json={"query": "bill"}).status_code == 401
        headers = {"authorization": f"Bearer {payer.secret}"}
        found = client.post("/v1/search", json={"query": "bill", "model": "qwen3-rerank"}, headers=headers)
        [text] = [one["text"] for one in found.json()["results"]]
        body = {"query": "bill", "documents": [text], "model": "qwen3-rerank"}
        ranked = client.post("/v1/rerank", json=body, headers=headers)
        assert found.headers["x-rerankd-tokens"] == ranked.headers["x-rerankd-tokens"]
        metrics = client.get("/metrics").text
    assert re.search(r'rerankd_requests_total\{[^}]*dialect="search"[^}]*\} 1', metrics), metrics


def test_the_description_has_it_where_there_is_an_index(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/search"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["example"]["query"] == "How are keys rotated?"
    with serving_model(models(FakeModel())) as without:
        assert "/v1/search" not in without.get("/openapi.json").json()["paths"]
        assert without.post("/v1/search", json={"query": "key"}).status_code == 404


def test_a_folder_without_an_index_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="rerankd index PATH"), serving_model(models(FakeModel()), index=tmp_path):
        pass


def test_a_record_of_a_corpus_has_its_id(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    rows = [{"_id": "k1", "title": "Keys", "text": "A key is rotated."}, {"_id": "k2", "text": "A key ends."}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Index(path, folder=tmp_path / "index")
    with serving_model(models(FakeModel()), index=tmp_path / "index") as client:
        results = search(client, "is a key rotated?")["results"]
    assert [(one["path"], one["first"], one["id"], one["heading"]) for one in results] == [
        ("corpus.jsonl", 1, "k1", "Keys"),
        ("corpus.jsonl", 2, "k2", ""),
    ]


# With vectors


def test_words_are_the_first_stage_where_the_index_has_no_vectors(client: httpx2.Client) -> None:
    answer = client.post("/v1/search", json={"query": "key", "first": "dense"})
    assert answer.status_code == 400 and "has no vectors: rerankd index PATH" in answer.json()["error"]["message"]
    assert "first" in search(client, "key", 400, first="sparse")["error"]["message"]


@pytest.mark.model
def test_meaning_finds_what_words_do_not(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "zug.md").write_text("Der Zug nach Berlin fährt um acht Uhr ab.\n")
    (docs / "hund.md").write_text("Der Hund schläft im Garten.\n")
    Index(docs, folder=tmp_path / "index", first="dense")
    with serving_model(models(FakeModel()), index=tmp_path / "index") as client:
        question = "when does the train leave?"
        assert search(client, question)["found"] == 0
        for first in ("dense", "hybrid"):
            reply = search(client, question, first=first, depth=1)
            assert [one["path"] for one in reply["results"]] == ["zug.md"] and reply["warnings"] == []
        (docs / "neu.md").write_text("Ein Satz ohne Zahlen.\n")
        Index(docs, folder=tmp_path / "index")
        [warning] = search(client, question, first="hybrid")["warnings"]
        assert "no vectors yet" in warning and "--first hybrid" in warning
        assert search(client, question)["warnings"] == []


@pytest.mark.model
def test_another_embedder_than_that_of_the_index_is_named(index: Path) -> None:
    Index(index.parent / "docs", folder=index, first="dense")
    other = str(index.parent / "docs")
    with serving_model(models(FakeModel()), index=index, embedder=other) as client:
        assert search(client, "key")["found"] == 1  # words need no embedder
        assert "config.json" in str(search(client, "key", 500, first="dense"))


@pytest.mark.model
def test_the_embedder_loads_at_the_start_where_there_are_vectors(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    docs = index.parent / "docs"

    def started(said: str, **settings: Any) -> None:
        """Waits for a line of the log; nobody searches."""
        with serving_model(models(FakeModel()), index=index, **settings):
            wait_until(lambda: said in caplog.text)

    with caplog.at_level(logging.INFO, "rerankd"):
        started("--embedder is not used: the index in", embedder="embedded")
        Index(docs, folder=index, first="dense")
        started("Ready: embedded finds by meaning")
        started("Searches by meaning will fail: ", embedder=str(docs))
