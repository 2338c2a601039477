"""A node that dies, a replica that hangs or is slow, and a front that is killed cost no call and no row; replicas that
cannot be started are an error: a Ray cluster of several nodes on this machine."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rerankd.batch.run import run_batch
from rerankd.cluster.engine import ClusterEngine
from rerankd.cluster.settings import ReplicaSettings
from rerankd.cluster.start import start_on_replicas
from rerankd.engine.engine import Engine
from rerankd.engine.loading.open import Choice
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import Busy, ModelError, SettingsError
from rerankd.types import Logits, RerankRequest
from support.ray_batch import front, manifest_of
from support.ray_fakes import GivesUpTwice, SleepingModel, fail_to_start, start_sleeping
from support.waiting import wait_until

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")


@contextmanager
def replicas(cluster: Any, folder: Path, seconds: float = 0.01, number: int = 2) -> Iterator[EngineScorer]:
    """A scorer over replicas, which end with it."""
    scorer = front(cluster.address, folder, seconds, number)
    try:
        yield scorer
    finally:
        scorer.close()
        cluster.end_replicas()


@pytest.fixture
def scorer(cluster: Any, tmp_path: Path) -> Iterator[EngineScorer]:
    with replicas(cluster, tmp_path) as scorer:
        yield scorer


def ask(scorer: EngineScorer, *documents: str) -> Future[Logits]:
    return scorer.submit(scorer.prepare(RerankRequest(("q",), documents)))


def running(scorer: EngineScorer) -> int:
    assert isinstance(scorer.engine, ClusterEngine)
    return scorer.engine.num_replicas


def all_answered(asking: list[Future[Logits]], number: int) -> None:
    """Each call has the numbers of its documents as logits."""
    for i, one in enumerate(asking):
        assert one.result(120).values == [number * i + j for j in range(number)]


def calls(scorer: EngineScorer, number: int, documents: int) -> list[Future[Logits]]:
    return [ask(scorer, *(str(documents * i + j) for j in range(documents))) for i in range(number)]


def test_r2_r4_r7_dead_nodes_hung_replicas_and_fewer_replicas_cost_no_call(
    cluster: Any, scorer: EngineScorer, tmp_path: Path
) -> None:
    asking = calls(scorer, 60, 20)
    asking[5].result(120)
    cluster.lose_a_node()
    all_answered(asking, 20)
    wait_until(lambda: running(scorer) == 2)
    # R4: one batch never ends; its replica is replaced, and the call is answered elsewhere
    hung = ask(scorer, "hang7")
    all_answered(calls(scorer, 50, 1), 1)
    assert hung.result(120).values == [7]
    assert (tmp_path / "hung").exists()
    wait_until(lambda: running(scorer) == 2)
    # R7: fewer replicas, under load
    asking = calls(scorer, 60, 20)
    asking[5].result(120)
    scale(1, tmp_path)
    all_answered(asking, 20)
    wait_until(lambda: running(scorer) == 1)


def scale(number: int, folder: Path) -> None:
    from ray import serve

    from rerankd.cluster.ray_serve import APPLICATION, deployment_of

    settings = ReplicaSettings(Choice("fake"), number, 1)
    bound = deployment_of(settings, partial(start_sleeping, 0.01, folder, stuck_s=2))
    serve.run(bound, name=APPLICATION, route_prefix=None)


def test_a_second_front_uses_the_replicas_that_run_or_is_refused(cluster: Any, tmp_path: Path) -> None:
    first = front(cluster.address, tmp_path)
    first.close()
    with pytest.raises(SettingsError, match="other settings"):
        front(cluster.address, tmp_path, dtype="float32")
    with replicas(cluster, tmp_path) as again:
        assert ask(again, "1", "2").result(120).values == [1, 2]


def test_r4_a_slow_replica_gets_a_smaller_share(scorer: EngineScorer, tmp_path: Path) -> None:
    (tmp_path / "slow").touch()  # the first replica that sees it takes it, and is 5 times slower from then on
    all_answered(calls(scorer, 100, 20), 20)
    [slow] = [int(path.stem) for path in tmp_path.glob("*.slow")]
    counts = {int(path.stem): len(path.read_bytes()) for path in tmp_path.glob("*.prompts")}
    assert len(counts) == 2 and sum(counts.values()) >= 2000
    assert counts[slow] / sum(counts.values()) <= 1 / 3, f"{counts}; by speed it would be one in six"


@contextmanager
def driver(cluster: Any, records: Path, output: Path, unit_bytes: int) -> Iterator[Any]:
    """A batch over the replicas that run. It ends with the block, and after an hour."""
    command = [sys.executable, "-m", "support.ray_batch", cluster.address, records, output, str(unit_bytes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    bound = threading.Timer(3600, process.kill)
    bound.start()
    try:
        yield process
    finally:
        bound.cancel()
        process.kill()
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def units_of(process: Any) -> Iterator[tuple[float, float]]:
    """(pairs so far, MB of memory) after each unit; Ray writes lines of its own."""
    for line in process.stdout:
        if found := re.fullmatch(r"(\d+) ([\d.]+)\n", line):
            yield float(found[1]), float(found[2])


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def times_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}


def test_r8_two_lost_nodes_and_a_killed_front_leave_the_files_of_an_undisturbed_run(
    cluster: Any, tmp_path: Path
) -> None:
    records = tmp_path / "pairs.jsonl"
    lines = (
        json.dumps({"query": f"q{i % 7}", "documents": [f"{1000 + 3 * i + j}" for j in range(3)]}) for i in range(300)
    )
    records.write_text("".join(f"{line}\n" for line in lines))
    unit_bytes = len(records.read_bytes()) // 300
    manifest = manifest_of(records, unit_bytes)
    assert len(manifest.parts) == 300
    model = SleepingModel(0, tmp_path)
    here = EngineScorer(Engine(model), model)
    run_batch(manifest, tmp_path / "here", here)
    here.close()
    output = tmp_path / "there"
    with replicas(cluster, tmp_path, 0.05):
        with driver(cluster, records, output, unit_bytes) as first:
            for number, _ in enumerate(units_of(first), 1):
                if number == 90:
                    cluster.lose_a_node()
                if number == 150:
                    first.kill()
        before = times_of(output)
        assert 150 <= len(before) < 300
        with driver(cluster, records, output, unit_bytes) as second:
            for number, _ in enumerate(units_of(second), 1):
                if number == max(1, 180 - len(before)):
                    cluster.lose_a_node()
            assert second.wait(60) == 0
    after = times_of(output)
    assert number == 300 - len(before), "only what was in flight was computed again"
    assert before.items() <= after.items(), "and nothing was written twice"
    assert files_in(output) == files_in(tmp_path / "here")
    assert {path.name for path in (output / "_rerankd").iterdir()} == {"lock", "manifest.json"}


def records_of(path: Path, rows: int) -> Path:
    """A file of queries with 20 documents each."""
    with path.open("w") as file:
        for i in range(rows // 20):
            print(json.dumps({"query": f"q{i}", "documents": [str(20 * i + j) for j in range(20)]}), file=file)
    return path


def test_r10_the_memory_of_the_front_does_not_grow_with_the_rows(cluster: Any, tmp_path: Path) -> None:
    """A million rows: RERANKD_R10_ROWS=1000000 and `-o timeout=3600`."""
    rows = int(os.environ.get("RERANKD_R10_ROWS", "60000"))
    records = records_of(tmp_path / "pairs.jsonl", rows)
    with replicas(cluster, tmp_path, 0.0), driver(cluster, records, tmp_path / "out", 20_000) as process:
        seen = [*units_of(process)]
        assert process.wait(60) == 0
    assert seen[-1][0] == rows
    memory = [mb for _, mb in seen]
    third = len(memory) // 3
    print(f"{rows} rows, {len(seen)} units, MB: {memory[:: 1 + len(memory) // 30]}")
    assert max(memory[third:]) - memory[third] < 30


def score_rows(scorer: EngineScorer, folder: Path, rows: int) -> None:
    manifest = manifest_of(records_of(folder / f"{rows}.jsonl", rows), 20_000)
    assert run_batch(manifest, folder / str(rows), scorer, at_once=3).pairs == rows


def num_objects() -> int:
    """Of this process, also those that the garbage collector does not see, as texts."""
    gc.collect()
    return sys.getallocatedblocks()


def test_r10_the_front_keeps_no_object_of_the_rows_that_it_has_scored(cluster: Any, tmp_path: Path) -> None:
    """It counts when nothing is in work. One text kept for each row would be 50 MB in a million."""
    with replicas(cluster, tmp_path, 0.0) as scorer:
        score_rows(scorer, tmp_path, 1_000)
        before = num_objects()
        score_rows(scorer, tmp_path, 10_000)
        wait_until(lambda: num_objects() < before + 1_000, attempts=20)


def test_r5_replicas_that_cannot_start_are_an_error_and_the_next_start_replaces_them(
    cluster: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="cannot be started"):
        start_on_replicas(ReplicaSettings(Choice("fake"), 1, 1, cluster.address), start=fail_to_start)
    with replicas(cluster, tmp_path) as scorer:
        assert ask(scorer, "1", "2").result(120).values == [1, 2]


def test_r5_a_front_does_not_wait_for_replicas_that_another_one_cannot_start(cluster: Any) -> None:
    import ray
    from ray import serve

    from rerankd.cluster.ray_serve import APPLICATION, ServeReplicas, deployment_of

    settings = ReplicaSettings(Choice("fake"), 1, 1)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        serve.start(proxy_location="Disabled")
        failing = serve.RunTarget(deployment_of(settings, fail_to_start), name=APPLICATION, route_prefix=None)
        serve.run_many([failing], wait_for_applications_running=False)
        for _ in ("while they are started", "afterwards"):
            with pytest.raises(ModelError, match="cannot be started"):
                ServeReplicas(APPLICATION, settings)
    finally:
        serve.shutdown()
        ray.shutdown()


def test_r5_replicas_that_are_shut_down_leave_their_front_without_any(cluster: Any, scorer: EngineScorer) -> None:
    assert ask(scorer, "1", "2").result(120).values == [1, 2]
    program = f"import ray, ray.serve; ray.init(address={cluster.address!r}); ray.serve.shutdown()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300, capture_output=True)
    wait_until(lambda: running(scorer) == 0)
    with pytest.raises(Busy, match="No replica"):
        ask(scorer, "3").result(120)


def test_a_part_that_a_replica_gives_up_is_scored_again(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerankd.cluster.ray_serve.Replica", GivesUpTwice)
    with replicas(cluster, tmp_path, number=1) as scorer:
        assert ask(scorer, "1", "2").result(120).values == [1, 2]
        assert (found := scorer.engine.stats.replicas) is not None and found.lost_parts == 2


def test_a_thread_that_asks_after_the_end_starts_no_other_ray() -> None:
    program = "from rerankd.cluster.ray_serve import import_ray; import_ray().get_actor('controller')"
    done = subprocess.run([sys.executable, "-c", program], timeout=300, capture_output=True, text=True)
    assert done.stderr.strip().endswith("Ray has not been started yet. You can start Ray with 'ray.init()'.")
