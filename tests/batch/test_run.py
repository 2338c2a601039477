"""A batch ends with the same files however often it was killed, and never continues what differs."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from rerankd.batch import manifest as manifest_module
from rerankd.batch.manifest import Manifest, plan
from rerankd.batch.rows import Columns
from rerankd.batch.run import Progress, run_batch
from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import Busy, InvalidRequest
from rerankd.ranking import Prepared
from rerankd.testing import FakeModel
from rerankd.types import DEFAULT_INSTRUCT, Logits, Passages, RerankRequest

MODEL = {"name": "fake", "dtype": "float32"}

BATCH = """
import sys, time
from rerankd.batch import manifest
from rerankd.batch.folder import OutputFolder
from rerankd.cli.main import main
manifest.UNIT_BYTES = 2_000
write = OutputFolder.write
def slowly(*arguments):
    time.sleep(0.03)
    write(*arguments)
OutputFolder.write = slowly
sys.exit(main(["batch", *sys.argv[1:]]))
"""


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "UNIT_BYTES", 2_000)
    monkeypatch.setattr(manifest_module, "UNIT_ROWS", 20)


@pytest.fixture
def scorer() -> Iterator[EngineScorer]:
    model = FakeModel()
    scorer = EngineScorer(Engine(model), model)
    yield scorer
    scorer.close()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """300 records of three documents, some of them faulty."""
    numbers = random.Random(1)
    path = tmp_path / "pairs.jsonl"
    with path.open("w") as file:
        for number in range(300):
            query = f"{numbers.choice(['tea', 'coffee'])} from {numbers.choice(['India', 'Kenya'])}"
            documents = [f"{numbers.choice(['tea', 'coffee', 'milk'])} number {number} {i}" for i in range(3)]
            print(json.dumps({"id": f"r{number}", "query": query, "documents": documents}), file=file)
            if number % 50 == 7:
                print("this line is not JSON", file=file)
    return path


def planned(path: Path, **changes: object) -> Manifest:
    given = {"instruct": DEFAULT_INSTRUCT, "columns": Columns(), "model": MODEL} | changes
    return plan([path], **given)  # type: ignore[arg-type]


def records_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("part-*.jsonl")) for row in records_in(path)]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def test_every_pair_is_scored_once_in_the_inputs_order(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    seen: list[Progress] = []
    manifest = planned(pairs)
    ended = run_batch(manifest, tmp_path / "out", scorer, lambda progress: seen.append(progress))
    rows = rows_in(tmp_path / "out")
    scored = [row for row in rows if not row["error"]]
    assert [(row["id"], row["index"]) for row in scored] == [
        (f"r{number}", i) for number in range(300) for i in range(3)
    ]
    assert len(rows) - len(scored) == ended.errors == 6
    assert ended.pairs == len(rows) and ended.share == pytest.approx(1) and ended.queries < ended.pairs / 5
    assert len(seen) == len(manifest.parts) > 10
    requests = {record["id"]: record for record in records_in(pairs)}
    for row in scored[:50]:
        request = requests[row["id"]]
        expected = scorer.prepare(_request(request["query"], request["documents"]))
        [logit] = [
            score.logit
            for score in expected.finish(scorer.submit(expected).result()).scores
            if score.index == row["index"]
        ]
        assert row["logit"] == pytest.approx(logit, abs=1e-6)


@pytest.mark.parametrize("name", ["long.jsonl", "long.parquet"])
def test_long_documents_are_split_as_in_a_ranking(tmp_path: Path, name: str, scorer: EngineScorer) -> None:
    long = "".join(f"Sentence {number} of the harbour town has some words. " for number in range(30))
    documents = ["tea", long + "Tea grows in Kenya. " + long, long * 60]
    record = {"id": "r", "query": "tea in Kenya", "documents": documents}
    path = tmp_path / name
    if name.endswith("jsonl"):
        path.write_text(f"{json.dumps(record)}\n{json.dumps({'id': 's', 'query': 'q'})}\n")
    else:
        pyarrow.parquet.write_table(pa.table({key: [value] for key, value in record.items()}), path)
    split = Passages(32)
    run_batch(planned(path, passages=split, output="jsonl"), tmp_path / "out", scorer)
    rows = [row for row in rows_in(tmp_path / "out") if not row["error"]]
    request = replace(_request("tea in Kenya", documents), passages=split)
    prepared = scorer.prepare(request)
    ranking = prepared.finish(scorer.submit(prepared).result())
    for row, score in zip(rows, ranking.scores, strict=True):
        best = score.passages[0]
        assert (row["passage_start"], row["passage_end"], row["num_passages"]) == (
            best.start,
            best.end,
            score.num_passages,
        )
        assert row["logit"] == pytest.approx(score.logit, abs=1e-6)
    assert "Kenya" in documents[1][rows[1]["passage_start"] : rows[1]["passage_end"]]
    assert [row["truncated"] for row in rows] == [False, False, True], "64 passages do not hold the last one"
    assert sum(row["tokens"] for row in rows) == sum(len(prompt.token_ids) for prompt in prepared.prompts)
    run_batch(planned(path, output="parquet", passages=split), tmp_path / "columns", scorer)
    files = sorted((tmp_path / "columns").glob("part-*"))
    table = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    kept = ("passage_start", "passage_end", "num_passages", "tokens")
    assert [[row[key] for key in kept] for row in table[:3]] == [[row[key] for key in kept] for row in rows]
    with pytest.raises(InvalidRequest, match="passages"):
        run_batch(planned(path, output="jsonl"), tmp_path / "out", scorer)


class Narrow(EngineScorer):
    """Holds the model until the queue has refused a unit."""

    refused = 0
    gate: threading.Event

    def submit(self, prepared: Prepared, progress: Callable[[int], None] | None = None) -> Future[Logits]:
        try:
            return super().submit(prepared, progress)
        except Busy:
            self.refused += 1
            self.gate.set()
            raise


def test_a_unit_waits_while_the_queue_is_full(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    run_batch(planned(pairs), tmp_path / "one", scorer)
    model = FakeModel()
    model.gate.clear()
    narrow = Narrow(Engine(model, max_queue=1), model)
    narrow.gate = model.gate
    try:
        run_batch(planned(pairs), tmp_path / "many", narrow, at_once=9)
    finally:
        narrow.close()
    assert narrow.refused and files_in(tmp_path / "many") == files_in(tmp_path / "one")


def _request(query: str, documents: list[str]) -> RerankRequest:
    return RerankRequest((query,), tuple(documents))


def test_parquet_in_and_out(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    records = records_in(pairs)
    table = pa.table(
        {
            "qid": [record["id"] for record in records],
            "title": [record["query"] for record in records],
            "passages": [record["documents"] for record in records],
        }
    )
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=70)
    run_batch(planned(pairs), tmp_path / "lines", scorer)
    run_batch(planned(path, columns=Columns("title", "passages", "qid")), tmp_path / "table", scorer)
    lines = [row for row in rows_in(tmp_path / "lines") if not row["error"]]
    found = [row for part in sorted((tmp_path / "table").glob("*.parquet")) for row in _table(part)]
    assert [(row["id"], row["index"]) for row in found] == [(row["id"], row["index"]) for row in lines]
    assert [row["logit"] for row in found] == pytest.approx([row["logit"] for row in lines], abs=1e-6)


def _table(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


@pytest.mark.slow
@pytest.mark.model
def test_a_batch_that_is_killed_again_and_again_has_the_files_of_one_that_was_not(
    pairs: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    command = [sys.executable, "-c", BATCH, "--model", str(tiny_checkpoint), "--skip-self-test", str(pairs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    subprocess.run([*command, str(undisturbed)], check=True, env=environment, capture_output=True, timeout=300)
    kills, chance = 0, random.Random(3)
    for allowed in (0, 3, 8, 15):  # finished units at the kill
        process = subprocess.Popen([*command, str(disturbed)], env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(disturbed.glob("part-*"))) <= allowed:
            pass
        time.sleep(chance.random() * 0.04)  # a unit takes about so long
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait(60)
    assert kills >= 3
    subprocess.run([*command, str(disturbed)], check=True, env=environment, capture_output=True, timeout=300)
    assert files_in(disturbed) == files_in(undisturbed) and len(files_in(disturbed)) > 15
    assert {path.name for path in (disturbed / "_rerankd").iterdir()} == {"lock", "manifest.json"}


def test_a_file_that_cannot_be_written_ends_the_run_and_leaves_nothing_half(
    pairs: Path, tmp_path: Path, scorer: EngineScorer
) -> None:
    output = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    manifest = planned(pairs)
    try:
        with pytest.raises(InvalidRequest, match=r"cannot be written: File too large.*The same command continues"):
            run_batch(manifest, output, scorer, _limit_after(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(files_in(output)) == 3 and not list((output / "_rerankd").glob("unfinished-*"))
    run_batch(manifest, output, scorer)
    run_batch(manifest, tmp_path / "undisturbed", scorer)
    assert files_in(output) == files_in(tmp_path / "undisturbed")


def _limit_after(units: int) -> Callable[[Progress], None]:
    """Limits the size of files once some units are written."""
    seen = []

    def report(progress: Progress) -> None:
        seen.append(progress.pairs)
        if len(seen) == units:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return report


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instruct": "Find the opposite"}, r"instruct \(.*'Find the opposite' now\)"),
        ({"model": {"name": "fake", "dtype": "int8"}}, r"dtype \('float32' then, 'int8' now\)"),
        ({"columns": Columns(document="text")}, r"document \('document' then, 'text' now\)"),
        ({"passages": Passages(max_tokens=32)}, r"passages \(none then, max_tokens 32, max_per_doc 64 now\)"),
    ],
)
def test_r9_another_batch_is_not_resumed(
    pairs: Path, tmp_path: Path, scorer: EngineScorer, changes: dict[str, object], words: str
) -> None:
    run_batch(planned(pairs), tmp_path / "out", scorer)
    with pytest.raises(InvalidRequest, match=words):
        run_batch(planned(pairs, **changes), tmp_path / "out", scorer)


def test_r9_a_changed_input_is_not_resumed(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    run_batch(planned(pairs), tmp_path / "out", scorer)
    with pairs.open("a") as file:
        print('{"query": "tea", "document": "tea"}', file=file)
    with pytest.raises(InvalidRequest, match="differs in the input files"):
        run_batch(planned(pairs), tmp_path / "out", scorer)


def test_a_changed_manifest_is_refused(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    run_batch(planned(pairs), tmp_path / "out", scorer)
    kept = tmp_path / "out" / "_rerankd" / "manifest.json"
    kept.write_text(kept.read_text().replace("pairs.jsonl", "other.jsonl"))
    with pytest.raises(InvalidRequest, match="was changed"):
        run_batch(planned(pairs), tmp_path / "out", scorer)


def test_a_folder_with_results_of_something_else_is_refused(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-000000.jsonl").touch()
    with pytest.raises(InvalidRequest, match=r"holds part-000000\.jsonl and no manifest"):
        run_batch(planned(pairs), tmp_path / "out", scorer)


def test_two_at_once_do_not_write_to_one_folder(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    manifest, entered, leave = planned(pairs), threading.Event(), threading.Event()

    def hold(_: Progress) -> None:
        entered.set()
        assert leave.wait(60)

    first = threading.Thread(target=run_batch, args=(manifest, tmp_path / "out", scorer, hold))
    first.start()
    try:
        assert entered.wait(60)
        with pytest.raises(InvalidRequest, match="Another process writes"):
            run_batch(manifest, tmp_path / "out", scorer)
    finally:
        leave.set()
        first.join(60)
    assert len(files_in(tmp_path / "out")) == len(manifest.parts)


def test_many_errors_end_the_run_where_they_were_limited(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    with pytest.raises(InvalidRequest, match=r"More than 2 rows have an error \(--max-errors\)"):
        run_batch(planned(pairs), tmp_path / "out", scorer, max_errors=2)


def test_a_wrong_field_is_seen_at_once(pairs: Path, tmp_path: Path, scorer: EngineScorer) -> None:
    with pytest.raises(InvalidRequest, match="No row of the first unit can be scored: 'title' is missing"):
        run_batch(planned(pairs, columns=Columns(query="title")), tmp_path / "out", scorer)
