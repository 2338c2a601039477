"""The settings of replicas: the model, their number, their share of a machine. Knows no ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from rerankd.config import ClusterSettings
from rerankd.engine.loading.open import Choice
from rerankd.engine.loading.processors import num_processors
from rerankd.engine.scorer import EngineScorer
from rerankd.startup import start_scorer

MANY = 10_000
"""Parts that a replica may have: the fronts limit them before, by their tokens."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """The replicas of one model.

    Attributes:
        cpus: processors and threads of each.
        address: of a Ray cluster; `auto` for the one that this machine belongs to; None: Ray is started here, for
            this process only.
    """

    choice: Choice
    number: int = 1
    cpus: int = 1
    address: str | None = None
    skip_self_test: bool = False

    @property
    def as_text(self) -> str:
        """Everything that the scores and the speed of a replica depend on."""
        values = {**asdict(self.choice), "threads": self.cpus}
        return ", ".join(f"{name} {value}" for name, value in values.items())

    @property
    def start(self) -> Callable[[], EngineScorer]:
        """Starts the engine of a replica, in its process. Its queue and its cache of scores are those of the front.

        Ray sets the number of threads (OMP_NUM_THREADS), unless this process's environment does.
        """
        return partial(start_scorer, self.choice, max_queue=MANY, score_cache_mb=0, skip_self_test=self.skip_self_test)


def replicas_of(settings: ClusterSettings, choice: Choice) -> ReplicaSettings:
    """The replicas that a command's settings ask for."""
    number = settings.replicas or 1
    cpus = settings.replica_cpus or max(1, num_processors() // number)
    return ReplicaSettings(choice, number, cpus, settings.ray, settings.skip_self_test)
