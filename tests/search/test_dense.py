"""Dense and hybrid search: every part that can be found has its vector, after whatever happened to the index."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rerankd import Hit, Index
from rerankd.cli.main import main
from rerankd.errors import InvalidRequest
from rerankd.search.made_by import MadeBy
from rerankd.search.vectors import Vectors
from support.word_embedder import WordEmbedder

WORDS = "solar power plant key rotate limit query document rank score water ice sun moon river stone".split()


def written(folder: Path, **texts: str) -> Path:
    """The folder `files`, with a text in each NAME.txt."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, text in texts.items():
        (files / f"{name}.txt").write_text(text)
    return files


def opened(folder: Path, embedder: WordEmbedder) -> Index:
    return Index(folder / "files", folder=folder / "index", first="hybrid", embedder=embedder)


def found(hits: list[Hit]) -> list[tuple[str, int, str, float]]:
    return [(hit.path, hit.first, hit.text, round(hit.score, 4)) for hit in hits]


def test_meaning_finds_what_words_do_not(tmp_path: Path) -> None:
    written(tmp_path, a="The car is red.", b="A river of water.", c="The automobile insurance of the plant.")
    index = opened(tmp_path, WordEmbedder())
    assert index.last_update.embedded == index.last_update.to_embed == 3
    assert [hit.path for hit in index.search("automobile", first="bm25")] == ["c.txt"]
    dense = index.search("automobile", first="dense")
    assert {hit.path for hit in dense[:2]} == {"a.txt", "c.txt"} and len(dense) == 3
    assert all(one.score >= other.score for one, other in pairwise(dense)) and dense[0].score <= 1
    hybrid = index.search("automobile")
    assert hybrid[0].path == "c.txt" and hybrid[0].score == pytest.approx(1 / 61 + 1 / (61 + place(dense, "c.txt")))
    assert hybrid[1].path == "a.txt" and hybrid[1].score == pytest.approx(1 / (61 + place(dense, "a.txt")))
    assert len(index.search("automobile", 1)) == len(index.search("automobile", 1, first="dense")) == 1
    assert index.search("", first="dense") == index.search("car", 0, first="dense") == []


def place(hits: list[Hit], path: str) -> int:
    return [hit.path for hit in hits].index(path)


def test_scores_are_the_cosines_of_all_vectors(tmp_path: Path) -> None:
    chance, embedder = random.Random(1), WordEmbedder()
    texts = {f"f{number}": " ".join(chance.choices(WORDS, k=9)) for number in range(40)}
    written(tmp_path, **texts)
    hits = opened(tmp_path, embedder).search("solar plant water", 15, first="dense")
    cosines = embedder.documents(list(texts.values())) @ embedder.queries(["solar plant water"])[0]
    assert [hit.score for hit in hits] == pytest.approx(sorted(cosines, reverse=True)[:15], abs=1e-5)
    assert [hit.text for hit in hits] == [list(texts.values())[row] for row in np.argsort(-cosines)[:15]]


def test_only_new_texts_are_embedded(tmp_path: Path) -> None:
    folder, embedder = written(tmp_path, a="solar power", b="water"), WordEmbedder()
    opened(tmp_path, embedder)
    assert sorted(embedder.embedded) == ["solar power", "water"]
    embedder.embedded.clear()
    index = opened(tmp_path, embedder)
    (folder / "b.txt").rename(folder / "c.txt")
    (folder / "d.txt").write_text("solar power")
    index.update()
    assert embedder.embedded == []  # the same texts in other files
    assert [hit.path for hit in index.search("solar power", first="dense")] == ["a.txt", "d.txt", "c.txt"]
    (folder / "c.txt").write_text("ice")
    index.update()
    assert embedder.embedded == ["ice"]
    assert "water" not in [hit.text for hit in index.search("water", first="dense")]


def test_an_update_without_an_embedder_is_caught_up(tmp_path: Path) -> None:
    folder, embedder = written(tmp_path, a="solar power", b="water"), WordEmbedder()
    plain = Index(folder, folder=tmp_path / "index")
    with pytest.raises(InvalidRequest, match="has no vectors: rerankd index PATH"):
        plain.search("solar", first="dense")
    assert plain.made_by is None
    assert opened(tmp_path, embedder).has_all_vectors and sorted(embedder.embedded) == ["solar power", "water"]
    (folder / "c.txt").write_text("moon")
    plain.update()
    reader = Index.open(tmp_path / "index", first="dense", embedder=embedder)
    assert "c.txt" not in [hit.path for hit in reader.search("moon")]
    assert [plain.has_all_vectors, reader.has_all_vectors] == [False, False]
    opened(tmp_path, embedder)
    assert embedder.embedded[-1] == "moon"
    assert [plain.has_all_vectors, reader.has_all_vectors] == [True, True]
    assert reader.search("moon")[0].path == "c.txt"  # without being opened again


def test_another_embedder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = written(tmp_path, a="solar power")
    opened(tmp_path, WordEmbedder())
    for other in (WordEmbedder("other"), WordEmbedder(dimensions=32)):
        with pytest.raises(InvalidRequest, match=r"come from words with 64 dimensions.*--rebuild"):
            opened(tmp_path, other)
    rebuilt = Index(folder, folder=tmp_path / "index", first="dense", embedder=WordEmbedder("other"), rebuild=True)
    assert rebuilt.made_by is not None and rebuilt.made_by.embedder == "other"
    assert rebuilt.search("solar")[0].path == "a.txt"


def test_a_reader_sees_an_index_that_was_built_again(tmp_path: Path) -> None:
    folder, embedder = written(tmp_path, a="solar power", b="water"), WordEmbedder()
    opened(tmp_path, embedder)
    reader = Index.open(tmp_path / "index", first="dense", embedder=embedder)
    assert reader.search("water")[0].path == "b.txt"
    (folder / "b.txt").write_text("ice")
    Index(folder, folder=tmp_path / "index", first="dense", embedder=embedder, rebuild=True)
    assert found(reader.search("ice")) == found(opened(tmp_path, embedder).search("ice", first="dense"))


def test_the_instruct_reaches_the_embedder(tmp_path: Path) -> None:
    written(tmp_path, a="solar power")
    embedder = WordEmbedder()
    opened(tmp_path, embedder).search("solar", first="dense", instruct="Find plants")
    assert embedder.instructs == ["Find plants"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path, a="solar")
    with pytest.raises(InvalidRequest, match="it may be bm25, dense, hybrid"):
        Index(folder, folder=tmp_path / "index", first="sparse")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="it may be bm25, dense, hybrid"):
        Index(folder, folder=tmp_path / "index").search("x", first="")  # type: ignore[arg-type]
    opened(tmp_path, WordEmbedder())
    (tmp_path / "index" / "vectors" / "made-by.json").write_text("{")
    with pytest.raises(InvalidRequest, match=r"cannot be read.*--rebuild"):
        opened(tmp_path, WordEmbedder())


# After whatever happened

KILLED = """
import os, random, sys
from pathlib import Path
from rerankd import Index
from support.word_embedder import WordEmbedder
import rerankd.search.embedding as embedding
import rerankd.search.vectors as vectors

embedding.BATCH = 3
left = int(sys.argv[2])  # writes until it is killed, the last one only half done
write = vectors._append
def append(path, end, content):
    global left
    left -= 1
    if left <= 0:
        write(path, end, content[: len(content) // 2])
        os.kill(os.getpid(), 9)
    write(path, end, content)
vectors._append = append
Index(Path(sys.argv[1], "files"), folder=Path(sys.argv[1], "index"), first="hybrid", embedder=WordEmbedder())
"""


def killed(folder: Path, writes: int) -> int:
    tests = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path]), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", KILLED, str(folder), str(writes)], env=env).returncode


def test_a_killed_update_leaves_the_index_as_it_was_and_keeps_its_vectors(tmp_path: Path) -> None:
    folder, embedder = (
        written(tmp_path, **{f"f{n}": f"solar {word}" for n, word in enumerate(WORDS[2:6])}),
        WordEmbedder(),
    )
    before = found(opened(tmp_path, embedder).search("solar", first="dense"))
    for number, word in enumerate(WORDS):
        (folder / f"f{number}.txt").write_text(f"water {word}")
    assert killed(tmp_path, 6) == -9  # two batches of three are whole; the keys of the third are half written
    reader = Index.open(tmp_path / "index", first="dense", embedder=embedder)
    assert found(reader.search("solar")) == before and not reader.search("water", first="bm25")
    embedder.embedded.clear()
    index = opened(tmp_path, embedder)
    assert len(embedder.embedded) == len(WORDS) - 6 - 1  # of the third batch one key is whole
    assert len(index.search("water", first="bm25")) == len(WORDS) == len(index.search("water", first="dense"))


def test_vectors_without_texts_are_removed_once_they_are_the_most(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, MadeBy("words", "digest", 8))
    rows = np.eye(8, dtype=np.float32)
    keys = [f"{number:032x}" for number in range(1, 3001)]
    for start in range(0, 3000, 1000):
        vectors.add(keys[start : start + 1000], np.repeat(rows[start // 1000][None], 1000, 0))
    reader = Vectors(tmp_path, MadeBy("words", "digest", 8))
    assert not vectors.is_sparse(1500) and vectors.is_sparse(900)
    vectors.keep_only(set(keys[2000:2010]))
    assert len(vectors) == 10 and vectors.made.generation == 2
    assert [key for key, _ in vectors.nearest(rows[2])] == keys[2000:2010]
    assert next(reader.nearest(rows[0])) == (keys[0], 1.0)  # what it has mapped stays
    reader.reload()
    assert len(reader) == 10
    vectors.add(keys[:1], rows[:1])
    vectors.reload()
    assert next(vectors.nearest(rows[0])) == (keys[0], 1.0)


# The commands


@pytest.mark.model
def test_the_commands_find_by_meaning_across_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(
        tmp_path,
        zug="Der Zug nach Berlin fährt jeden Morgen um acht Uhr ab.",
        hund="Der Hund schläft den ganzen Tag im Garten.",
        brot="Brot wird aus Mehl, Wasser und Salz gebacken.",
    )
    options = ["--index", str(tmp_path / "index")]
    assert main(["index", str(folder), "--first", "dense", *options]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "3 parts embedded by embedded"
    question = [str(folder), "when does the train leave?", "--no-rerank"]
    assert main(["search", *question, *options]) == 1  # no word of it is there
    capsys.readouterr()
    for first in ("dense", "hybrid"):
        assert main(["search", *question, "--first", first, *options]) == 0
        assert capsys.readouterr().out.splitlines()[0].split("\t")[2] == "zug.txt:1"
    assert main(["search", *question, "--embedder", "embedded", *options]) == 1
    assert "--embedder needs --first" in capsys.readouterr().err
    assert main(["search", *question, "--first", "dense", "--dimensions", "64", *options]) == 1
    assert "--dimensions needs --embedder" in capsys.readouterr().err
