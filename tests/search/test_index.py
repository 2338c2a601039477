"""An index finds the same after any changes as one that was built from what is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rerankd import Hit, Index
from rerankd.cli.main import main
from rerankd.errors import InvalidRequest
from rerankd.files.lines import Line, lines_of
from rerankd.search.stored import StoredIndex
from support.word_embedder import WordEmbedder


def opened(folder: Path) -> Index:
    """The index of the folder `files` in a folder."""
    return Index(folder / "files", folder=folder / "index")


def written(folder: Path, **texts: str) -> Path:
    """The folder `files`, with a text in each NAME.txt."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, text in texts.items():
        (files / f"{name}.txt").write_text(text)
    return files


def test_a_query_finds_its_part_with_lines(tmp_path: Path) -> None:
    written(tmp_path, a="nothing here\n" * 60 + "\nthe key is rotated\n", b="北京是中国的首都。")
    index = opened(tmp_path)
    assert (index.last_update.added, index.last_update.kept) == (2, 0)
    best = index.search("KEY rotated?")[0]
    assert isinstance(best, Hit) and best.path == "a.txt" and best.first <= 62 <= best.last and best.score > 0
    assert best.source == "a.txt:62"
    assert [hit.path for hit in index.search("首都")] == ["b.txt"]
    assert index.search("absent") == index.search("…") == index.search("key", 0) == []


def test_headings_and_the_name_of_the_file_are_words_of_a_part(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "accounts.md").write_text("# Keys\n\n## Rotation\n\n" + "The old one works for an hour.\n" * 50)
    index = opened(tmp_path)
    first, second = sorted(index.search("rotation of keys, accounts"), key=lambda hit: hit.first)
    assert first.heading == "" and "## Rotation" in first.text
    assert second.heading == "Keys > Rotation" and second.document == f"{second.heading}\n{second.text}"


@pytest.mark.parametrize(
    ("only", "paths"),
    [
        (["guide/"], ["guide/a.txt", "guide/deep/b.md"]),
        (["*.md"], ["guide/deep/b.md", "notes.md"]),
        (["/*.md"], ["notes.md"]),
        (["guide/**", "!*.md"], ["guide/a.txt"]),
        ("*.txt", ["guide/a.txt"]),
        (["absent/"], []),
    ],
)
def test_only_some_files_are_searched(only: list[str], paths: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "files"
    for name in ("guide/a.txt", "guide/deep/b.md", "notes.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("solar power")
    index = Index(folder, folder=tmp_path / "index", first="hybrid", embedder=WordEmbedder())
    for first in ("bm25", "dense", "hybrid"):
        hits = index.search("solar", first=first, only=only)
        assert sorted(hit.path for hit in hits) == paths
        assert len(index.search("solar", 1, first=first, only=only)) == min(1, len(paths))
        whole = {hit.path: hit.score for hit in index.search("solar", first=first)}
        assert first == "hybrid" or all(hit.score == pytest.approx(whole[hit.path]) for hit in hits)
    with pytest.raises(InvalidRequest, match=r"cannot be read as one of a \.gitignore"):
        index.search("solar", only=["!"])


def test_an_index_is_opened_without_its_files_and_sees_updates(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="holds no index"):
        Index.open(tmp_path / "index")
    folder = written(tmp_path, a="solar power")
    writer, reader = opened(tmp_path), Index.open(tmp_path / "index")
    assert [hit.path for hit in reader.search("solar")] == ["a.txt"]
    (folder / "b.txt").write_text("solar power plants")
    writer.update()
    assert len(reader.search("solar")) == 2
    with pytest.raises(InvalidRequest, match="cannot be updated"):
        reader.update()


def test_an_unchanged_file_is_not_opened(tmp_path: Path) -> None:
    path = written(tmp_path, a="solar power") / "a.txt"
    StoredIndex(tmp_path / "index").update([("a.txt", path)], lines_of)

    def fail(path: Path) -> list[Line]:
        raise AssertionError(path)

    again = StoredIndex(tmp_path / "index")
    assert again.update([("a.txt", path)], fail).kept == 1 and len(again.search("solar")) == 1


def test_a_removed_file_is_found_no_more(tmp_path: Path) -> None:
    folder = written(tmp_path, a="solar power")
    index = opened(tmp_path)
    (folder / "a.txt").unlink()
    assert index.update().removed == 1 and not index.search("solar")


def test_a_folder_may_move_with_its_index(tmp_path: Path) -> None:
    written(tmp_path, a="solar power")
    opened(tmp_path)
    (tmp_path / "files").rename(tmp_path / "moved")
    assert Index(tmp_path / "moved", folder=tmp_path / "index").last_update.kept == 1


KILLED = """
import os, sys
from pathlib import Path
import rerankd.search.index as index
def lines_of(path, read=index.lines_of):
    if path.name == "7.txt":
        os.kill(os.getpid(), 9)
    return read(path)
index.lines_of = lines_of
index.Index(sys.argv[2], folder=sys.argv[1])
"""


def test_an_update_that_is_killed_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    folder = written(tmp_path)
    for number in range(5):
        (folder / f"{number}.txt").write_text("solar power")
    opened(tmp_path)
    for number in range(3, 9):
        (folder / f"{number}.txt").write_text("water and ice")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "index"), str(folder)])
    assert killed.returncode == -9
    index = Index.open(tmp_path / "index")
    assert len(index.search("solar")) == 5 and not index.search("water")
    index = opened(tmp_path)
    assert len(index.search("solar")) == 3 and len(index.search("water")) == 6


def test_two_updates_at_once_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, a="solar") / "a.txt"

    def again(path: Path) -> list[Line]:
        with pytest.raises(InvalidRequest, match="Another process updates the index"):
            opened(tmp_path)
        return lines_of(path)

    StoredIndex(tmp_path / "index").update([("a.txt", path)], again)


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
    assert printed.out.split("\t")[2] == "a.md:1-3" and "c.png: is a PNG image, not text" in printed.err
    assert main(["search", str(folder), "absent", *options]) == 1
    assert "has a word of the query" in capsys.readouterr().err
    assert main(["search", str(folder), "rotated", "--rebuild", "--json", *options]) == 0
    assert '"source": "a.md:1-3"' in capsys.readouterr().out
    assert main(["search", str(folder), "rotated", "--only", "b.*", *options]) == 1
    assert "fit --only has a word" in capsys.readouterr().err
    assert main(["search", str(folder), "about keys", "--only", "b.md", *options]) == 0
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == ["b.md:1"]
    assert main(["search", str(folder), "x", "--include", "!", *options]) == 1
    assert "cannot be read as one of a .gitignore" in capsys.readouterr().err
    assert main(["search", str(tmp_path / "none"), "x", *options]) == 1


def test_an_index_is_built_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, a="solar power", b="water")
    assert main(["index", str(folder), "--index", str(tmp_path / "index")]) == 0
    assert capsys.readouterr().out == "2 files added, 0 changed, 0 removed, 0 unchanged\n"
    assert [hit.path for hit in Index.open(tmp_path / "index").search("solar")] == ["a.txt"]


@pytest.mark.model
def test_the_model_ranks_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("bank bank bank bank: river bank erosion")
    (tmp_path / "b.txt").write_text("Your bank account can be opened online in ten minutes.")
    options = ["--index", str(tmp_path / "index"), "--model", "embedded", "--exclude", "index"]
    assert main(["search", str(tmp_path), "how do I open a bank account?", *options]) == 0
    assert capsys.readouterr().out.splitlines()[0].split("\t")[2].startswith("b.txt")
