"""The first stage over a corpus: found by id, made once, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerankd.errors import InvalidRequest
from rerankd.search.corpus import CorpusIndex

TEXTS = {"sun": "the sun is hot", "ice": "ice is cold", "北": "北京是中国的首都", "empty": ""}


def test_documents_are_found_by_their_words_in_any_script(tmp_path: Path) -> None:
    index = CorpusIndex.built(tmp_path / "index", TEXTS.items())
    assert [doc_id for doc_id, _ in index.search("a HOT sun", 10)] == ["sun"]
    assert [doc_id for doc_id, _ in index.search("首都", 10)] == ["北"]
    assert {doc_id for doc_id, _ in index.search("is", 10)} == {"sun", "ice"}
    assert len(index.search("is", 1)) == 1 and index.search("", 10) == index.search("nowhere", 10) == []


def test_equal_scores_are_in_the_order_of_trec_eval(tmp_path: Path) -> None:
    index = CorpusIndex.built(tmp_path / "index", [(f"d{place}", "same words") for place in (2, 9, 10, 1)])
    found = index.search("words", 10)
    assert [doc_id for doc_id, _ in found] == ["d9", "d2", "d10", "d1"] and len({score for _, score in found}) == 1


def test_an_index_is_made_once_and_a_failed_one_leaves_nothing(tmp_path: Path) -> None:
    def damaged() -> Iterator[tuple[str, str]]:
        yield "a", "text"
        raise InvalidRequest("corpus.jsonl:2 is not JSON")

    with pytest.raises(InvalidRequest, match="is not JSON"):
        CorpusIndex.built(tmp_path / "index", damaged())
    assert not list(tmp_path.iterdir())
    CorpusIndex.built(tmp_path / "index", TEXTS.items())
    assert CorpusIndex.built(tmp_path / "index", damaged()).search("hot", 1)[0][0] == "sun"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "meta.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="cannot be opened"):
        CorpusIndex(tmp_path / "other")


def test_a_document_that_stands_twice_is_found_once(tmp_path: Path) -> None:
    index = CorpusIndex.built(tmp_path / "index", [("a", "words"), ("a", "words"), ("b", "words")])
    assert [doc_id for doc_id, _ in index.search("words", 10)] == ["b", "a"]


def test_what_a_killed_process_left_long_ago_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".index-old", tmp_path / ".index-new"
    for folder in (old, new):
        (folder / "index").mkdir(parents=True)
    os.utime(old, (0, 0))
    CorpusIndex.built(tmp_path / "index", TEXTS.items())
    assert not old.exists() and new.exists()
