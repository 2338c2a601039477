"""A node that dies and a replica that hangs cost no call: a Ray cluster of several nodes on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rerankd.batch import manifest as manifest_module
from rerankd.batch.manifest import plan
from rerankd.batch.rows import Columns
from rerankd.batch.run import Progress, run_batch
from rerankd.cluster.engine import ClusterEngine
from rerankd.cluster.settings import ReplicaSettings
from rerankd.cluster.start import start_on_replicas
from rerankd.engine.engine import Engine
from rerankd.engine.loading.open import Choice
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import SettingsError
from rerankd.types import Logits, RerankRequest
from support.ray_fakes import SleepingModel, start_sleeping
from support.serving import wait_until

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")

STORE_BYTES = 78_643_200
TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and two nodes with a processor each."""
    os.environ["PYTHONPATH"] = os.pathsep.join((str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])))
    from ray.cluster_utils import Cluster

    options = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    yield cluster
    cluster.shutdown()


def front(cluster: Any, folder: Path, **changes: Any) -> EngineScorer:
    return start_on_replicas(
        ReplicaSettings(Choice("fake", **changes), 2, 1, cluster.address),
        score_cache_mb=0,
        start=partial(start_sleeping, 0.01, folder, stuck_s=2),
        prompts=SleepingModel(0, folder),
    )


def ask(scorer: EngineScorer, *documents: str) -> Future[Logits]:
    return scorer.submit(scorer.prepare(RerankRequest(("q",), documents)))


def test_r2_r4_a_node_that_dies_and_a_replica_that_hangs_cost_no_call(cluster: Any, tmp_path: Path) -> None:
    scorer = front(cluster, tmp_path)
    try:
        asking = [ask(scorer, *(str(20 * i + j) for j in range(20))) for i in range(60)]
        asking[5].result(120)
        lost = cluster.worker_nodes.copy().pop()
        cluster.remove_node(lost, allow_graceful=False)
        asking[20].result(120)
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        for i, one in enumerate(asking):
            assert one.result(120).values == [20 * i + j for j in range(20)]
        wait_until(lambda: running(scorer) == 2)
        # R4: one batch never ends; its replica is replaced, and the call is answered elsewhere
        hung = ask(scorer, "hang7")
        others = [ask(scorer, str(i)) for i in range(50)]
        assert hung.result(120).values == [7]
        assert [one.result(120).values for one in others] == [[i] for i in range(50)]
        assert (tmp_path / "hung").exists()
        wait_until(lambda: running(scorer) == 2)
    finally:
        scorer.close()
    with pytest.raises(SettingsError, match="other settings"):
        front(cluster, tmp_path, dtype="float32")
    again = front(cluster, tmp_path)  # the replicas stayed
    try:
        assert ask(again, "1", "2").result(120).values == [1, 2]
    finally:
        again.close()


def running(scorer: EngineScorer) -> int:
    assert isinstance(scorer.engine, ClusterEngine)
    return scorer.engine.num_replicas


def test_r8_a_batch_that_loses_a_node_has_the_files_of_one_that_did_not(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "UNIT_BYTES", 500)
    pairs = tmp_path / "pairs.jsonl"
    records = ({"query": f"q{i % 7}", "documents": [f"{3 * i + j}" for j in range(3)]} for i in range(300))
    pairs.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    manifest = plan([pairs], {"name": "fake"}, "", Columns())
    assert len(manifest.parts) > 20
    model = SleepingModel(0, tmp_path)
    here = EngineScorer(Engine(model), model)
    run_batch(manifest, tmp_path / "here", here)
    here.close()
    lost: list[Any] = []

    def lose_a_node(progress: Progress) -> None:
        if progress.share > 0.3 and not lost:
            lost.append(cluster.worker_nodes.copy().pop())
            cluster.remove_node(lost[0], allow_graceful=False)
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)

    scorer = front(cluster, tmp_path)
    try:
        ended = run_batch(manifest, tmp_path / "there", scorer, lose_a_node, at_once=3)
    finally:
        scorer.close()
    assert lost and ended.pairs == 900 and ended.errors == 0
    found, expected = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("part-*")} for name in ("there", "here")
    )
    assert found == expected
    assert {path.name for path in (tmp_path / "there" / "_rerankd").iterdir()} == {"lock", "manifest.json"}
