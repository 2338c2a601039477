"""Which files of a Hugging Face snapshot belong to which collection."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from rerankd.errors import InvalidRequest
from rerankd.runs.collection import Collection, collection_in


def snapshot(folder: Path, *files: str, readme: str = "") -> Path:
    """A folder with these files, each a table of one row."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.table({"_id": ["a"], "text": ["t"]}), folder / name)
    if readme:
        (folder / "README.md").write_text(f"---\nlicense: mit\n{readme}\n---\n# A set\n")
    return folder


def names(folder: Path, found: Collection) -> list[list[str]]:
    kinds = (found.queries, found.corpus, found.qrels)
    return [[path.relative_to(folder).as_posix() for path in paths] for paths in kinds]


def listed(**configs: str) -> str:
    """The list of a README: config → pattern of its split `test`."""
    lines = [
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {path}"
        for name, path in ((key.replace("_", "-"), path) for key, path in configs.items())
    ]
    return "\n".join(["configs:", *lines])


def test_files_of_other_names_are_found_where_the_readme_lists_them(tmp_path: Path) -> None:
    readme = listed(corpus="data/docs-*.parquet", queries="data/asked.parquet", default="data/judged.parquet")
    files = ("data/docs-0.parquet", "data/docs-1.parquet", "data/asked.parquet", "data/judged.parquet")
    folder = snapshot(tmp_path, *files, "data/other.parquet", readme=readme)
    assert names(folder, collection_in(folder)) == [[files[2]], [*files[:2]], [files[3]]]


LANGUAGES = [f"{language}-{kind}" for language in ("ar", "de") for kind in ("corpus", "queries", "qrels")]


@pytest.mark.parametrize("has_readme", [True, False])
def test_one_of_several_languages_is_chosen(has_readme: bool, tmp_path: Path) -> None:
    readme = listed(**{name.replace("-", "_"): f"{name}/test-*" for name in LANGUAGES}) if has_readme else ""
    folder = snapshot(tmp_path, *(f"{name}/test-00000-of-00001.parquet" for name in LANGUAGES), readme=readme)
    found = names(folder, collection_in(folder, subset="de"))
    assert found == [[f"de-{kind}/test-00000-of-00001.parquet"] for kind in ("queries", "corpus", "qrels")]
    with pytest.raises(InvalidRequest, match="has 2 collections: pass --subset with one of ar, de"):
        collection_in(folder)
    with pytest.raises(InvalidRequest, match="no collection 'fr': there is ar, de"):
        collection_in(folder, subset="fr")


def test_judgements_may_have_the_name_of_the_collection_alone(tmp_path: Path) -> None:
    readme = listed(corpus_fas="c.parquet", queries_fas="q.parquet", fas="j.parquet")
    folder = snapshot(tmp_path, "c.parquet", "q.parquet", "j.parquet", readme=readme)
    assert names(folder, collection_in(folder)) == [["q.parquet"], ["c.parquet"], ["j.parquet"]]


def test_a_split_has_its_own_documents_where_they_are_divided(tmp_path: Path) -> None:
    files = [f"{kind}/{split}-00000-of-00001.parquet" for kind in ("corpus", "queries", "qrels") for split in "ab"]
    folder = snapshot(tmp_path, *files)
    assert names(folder, collection_in(folder, "b")) == [[files[3]], [files[1]], [files[5]]]
    assert names(folder, collection_in(folder, None)) == [files[2:4], files[:2], []]
    with pytest.raises(InvalidRequest, match="no judgements of the split 'test': pass --split with one of a, b"):
        collection_in(folder)


@pytest.mark.parametrize(
    "readme",
    [
        "configs: 7",
        "configs:\n- x",
        "configs:\n- config_name: corpus\n  data_files: 7",
        "configs:\n- config_name: corpus\n  data_files: ../outside/*",
        "configs:\n- config_name: corpus\n  data_files:\n  - split: test\n    path: [/etc/*, 'hf://x']",
        "nothing: here",
    ],
)
def test_a_readme_that_lists_nothing_of_use_leaves_the_names_of_the_folders(readme: str, tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "corpus/0.parquet", "queries/0.parquet", "default/0.parquet", readme=readme)
    assert names(folder, collection_in(folder)) == [["queries/0.parquet"], ["corpus/0.parquet"], ["default/0.parquet"]]


def test_a_readme_whose_head_is_damaged_is_named(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "corpus/0.parquet", readme="configs: [")
    with pytest.raises(InvalidRequest, match=r"head of .*README\.md is not YAML"):
        collection_in(folder)
