"""An index finds the same after any changes as one that was built from what is left."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from rerankd.cli.main import main
from rerankd.errors import InvalidRequest
from rerankd.search.index import Index

WORDS = "solar power plant key rotate limit query document rank score water ice sun 北京 首都 タワー".split()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.txt"))


def found(index: Index, query: str) -> list[tuple[str, int, str]]:
    return [(hit.path, hit.first, hit.text) for hit in index.search(query, 1000)]


def test_a_query_finds_its_part_with_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("nothing here\n" * 60 + "\nthe key is rotated\n")
    (tmp_path / "b.txt").write_text("北京是中国的首都。")
    index = Index(tmp_path / "index")
    update = index.update(files(tmp_path), read)
    assert (update.added, update.kept) == (2, 0)
    best = index.search("KEY rotated?")[0]
    assert best.path.endswith("a.txt") and best.first <= 62 <= best.last and best.score > 0
    assert [hit.path for hit in index.search("首都")] == [str(tmp_path / "b.txt")]
    assert index.search("absent") == index.search("…") == index.search("key", 0) == []


@pytest.mark.slow
def test_an_index_that_was_changed_again_and_again_equals_one_that_is_built_anew(tmp_path: Path) -> None:
    chance, folder = random.Random(3), tmp_path / "files"
    folder.mkdir()
    index = Index(tmp_path / "index")
    for step in range(60):
        for _ in range(4):
            path = folder / f"{chance.randrange(12)}.txt"
            if chance.random() < 0.3:
                path.unlink(missing_ok=True)
            else:
                path.write_text(" ".join(chance.choices(WORDS, k=chance.randrange(1, 40))) + f" step{step}")
        index.update(files(folder), read)
    rebuilt = Index(tmp_path / "rebuilt")
    rebuilt.update(files(folder), read)
    assert len(index) == len(rebuilt)
    for word in WORDS:
        assert sorted(found(index, word)) == sorted(found(rebuilt, word))


def test_an_unchanged_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("solar power")
    Index(tmp_path / "index").update(files(tmp_path), read)

    def fail(path: Path) -> str:
        raise AssertionError(path)

    again = Index(tmp_path / "index")
    assert again.update(files(tmp_path), fail).kept == 1 and len(again.search("solar")) == 1


def test_a_removed_file_is_found_no_more(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("solar power")
    index = Index(tmp_path / "index")
    index.update(files(tmp_path), read)
    (tmp_path / "a.txt").unlink()
    assert index.update([], read).removed == 1 and not index.search("solar")


KILLED = """
import os, sys
from pathlib import Path
from rerankd.search.index import Index
def read(path):
    if path.name == "7.txt":
        os.kill(os.getpid(), 9)
    return path.read_text()
Index(Path(sys.argv[1])).update(sorted(Path(sys.argv[2]).glob("*.txt")), read)
"""


def test_an_update_that_is_killed_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text("solar power")
    Index(tmp_path / "index").update(files(folder), read)
    for number in range(3, 9):
        (folder / f"{number}.txt").write_text("water and ice")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "index"), str(folder)])
    assert killed.returncode == -9
    index = Index(tmp_path / "index")
    assert len(index.search("solar")) == 5 and not index.search("water")
    index.update(files(folder), read)
    assert len(index.search("solar")) == 3 and len(index.search("water")) == 6


def test_two_updates_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("solar")
    index = Index(tmp_path / "index")

    def again(path: Path) -> str:
        with pytest.raises(InvalidRequest, match="Another process updates the index"):
            Index(tmp_path / "index").update([], read)
        return "solar"

    index.update(files(tmp_path), again)


# The command


def test_the_command_prints_file_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Keys\n\nA key is rotated on the page.\n")
    (folder / "b.md").write_text("Nothing about it.\n")
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    options = ["--index", str(tmp_path / "index"), "--no-rerank"]
    assert main(["search", str(folder), "rotated keys", *options]) == 0
    printed = capsys.readouterr()
    assert printed.out.split("\t")[2] == "a.md:1-3" and "1 new files are not text" in printed.err
    assert main(["search", str(folder), "absent", *options]) == 1
    assert "has a word of the query" in capsys.readouterr().err
    assert main(["search", str(folder), "rotated", "--rebuild", "--json", *options]) == 0
    assert '"source": "a.md:1-3"' in capsys.readouterr().out
    assert main(["search", str(tmp_path / "none"), "x", *options]) == 1


@pytest.mark.model
def test_the_model_ranks_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("bank bank bank bank: river bank erosion")
    (tmp_path / "b.txt").write_text("Your bank account can be opened online in ten minutes.")
    options = ["--index", str(tmp_path / "index"), "--model", "embedded", "--exclude", "index"]
    assert main(["search", str(tmp_path), "how do I open a bank account?", *options]) == 0
    assert capsys.readouterr().out.splitlines()[0].split("\t")[2].startswith("b.txt")
