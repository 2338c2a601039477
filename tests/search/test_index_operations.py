"""Whatever happened to an index, it finds the same as one that is built from what is left.

One sequence of adds, edits, deletes and killed updates, at random from a seed. Longer, or another one:

    RERANKD_TEST_OPERATIONS=2000 RERANKD_TEST_SEED=7 pytest tests/search/test_index_operations.py
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from rerankd import Hit, Index
from support.killing import KILLED, Killer
from support.word_embedder import WordEmbedder

OPERATIONS = int(os.environ.get("RERANKD_TEST_OPERATIONS", "200"))
SEED = int(os.environ.get("RERANKD_TEST_SEED", "17"))
COMPARED_EVERY = 25
"""Operations between two comparisons with a new index."""

NAMES = 14
MOST_BYTES = 30_000
WORDS = "solar power plant key rotate limit query rank score water ice sun moon 北京 首都 タワー".split()

Found = dict[str, list[tuple[object, ...]]]


class Files:
    """The files that are indexed, as texts and as one corpus of records, with random changes to them."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder, self._chance, self._step = folder, chance, 0
        self._records: list[dict[str, str]] = []
        folder.mkdir()

    def change(self) -> str:
        """Adds, edits or deletes a file or a record; returns what it did."""
        self._step += 1
        name = self._chance.randrange(NAMES + 4)
        return self._change_record(name) if name >= NAMES else self._change_file(self._folder / f"{name}.md")

    def _change_file(self, path: Path) -> str:
        if path.exists() and self._chance.random() < 0.4:
            path.unlink()
            return "delete"
        did = "edit" if path.exists() else "add"
        self._write(path, "# Heading\n\n" + "\n\n".join(self._text() for _ in range(self._chance.randrange(4))))
        return did

    def _change_record(self, name: int) -> str:
        place = self._chance.randrange(len(self._records) + 1)
        did = "add" if place == len(self._records) else self._chance.choice(["edit", "delete", "add"])
        row = {"_id": f"d{self._step}", "text": self._text()}
        self._records[place : place + (did != "add")] = [] if did == "delete" else [row]
        path = self._folder / f"corpus{name % 2}.jsonl"
        self._write(path, "".join(f"{json.dumps(row)}\n" for row in self._records))
        return did

    def _write(self, path: Path, text: str) -> None:
        """With a time of its own, on any file system."""
        path.write_text(text)
        os.utime(path, ns=(self._step, self._step))

    def _text(self) -> str:
        return " ".join(self._chance.choices(WORDS, k=self._chance.randrange(1, 9))) + f" step{self._step}"


def everything(index: Index) -> Found:
    """What each word finds. A part that was removed counts in the statistics of BM25 until its segment is merged, so
    its scores are left out."""
    found: Found = {word: sorted(map(place, index.search(word, 1000, first="bm25"))) for word in WORDS}
    for word in WORDS[:3]:
        near = index.search(word, 1000, first="dense")
        found[f"{word}, dense"] = [(*place(hit), round(hit.score, 4)) for hit in near]
        found[f"{word}, hybrid"] = sorted(map(place, index.search(word, 1000, first="hybrid")))
    return found


def place(hit: Hit) -> tuple[object, ...]:
    return hit.path, hit.first, hit.last, hit.id, hit.heading, hit.text


@pytest.mark.slow
def test_after_any_operations_an_index_finds_what_a_new_one_finds(tmp_path: Path) -> None:
    chance, embedder, done = random.Random(SEED), WordEmbedder(), Counter[str]()
    files, folder = Files(tmp_path / "files", chance), tmp_path / "index"

    def updated() -> Index:
        return Index(tmp_path / "files", folder=folder, first="hybrid", embedder=embedder)

    before = everything(updated())
    with Killer("support.killed_index", tmp_path / "files", folder) as killed:
        for number in range(1, OPERATIONS + 1):
            done[files.change()] += 1
            if chance.random() < 0.2:
                kind, at = chance.choice([("step", chance.random()), ("bytes", round(MOST_BYTES ** chance.random()))])
                status = killed(kind, at)
                assert status in (0, *KILLED), (number, kind, at)
                done["kill" if status else "no kill"] += 1
                now = everything(Index.open(folder, first="hybrid", embedder=embedder))
                after = everything(updated())
                assert now in (before, after), (number, kind, at)
                before = after
            elif chance.random() < 0.1:
                Index(tmp_path / "files", folder=folder)  # by words only: the next update catches up
                before = everything(updated())
            elif chance.random() < 0.7:
                before = everything(updated())
            if number % COMPARED_EVERY == 0 or number == OPERATIONS:
                index = updated()
                new = Index(tmp_path / "files", folder=tmp_path / f"new{number}", first="hybrid", embedder=embedder)
                before = everything(index)
                assert before == everything(new) and len(index) == len(new) and index.has_all_vectors, number
    assert min(done[did] for did in ("add", "edit", "delete", "kill")) >= OPERATIONS // 20, done
