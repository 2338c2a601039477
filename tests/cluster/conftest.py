"""One Ray cluster for all tests of this folder that need one: it takes some ten seconds to start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Ray reads these when it is imported; a server that starts a Ray of its own sets others.
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")

STORE_BYTES = 78_643_200
TESTS = Path(__file__).parent.parent


class RayCluster:
    """A head that computes nothing, and two nodes with a processor each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        options = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
        self.address: str = self._cluster.address
        for _ in range(2):
            self._add()

    def _add(self) -> None:
        self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)

    def lose_a_node(self) -> None:
        """Kills a node that computes; an empty one takes its place."""
        self._cluster.remove_node(self._cluster.worker_nodes.copy().pop(), allow_graceful=False)
        self._add()

    def end_replicas(self) -> None:
        """They stay when a front ends."""
        import ray
        from ray import serve

        ray.init(address=self.address, log_to_driver=False)
        serve.shutdown()
        ray.shutdown()

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])))
    cluster = RayCluster()
    yield cluster
    cluster.close()
