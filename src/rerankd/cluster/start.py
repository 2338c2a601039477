"""A model on replicas → a scorer as for an engine in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rerankd.cluster.engine import ClusterEngine, Replicas
from rerankd.cluster.ray_serve import start_replicas
from rerankd.cluster.settings import ReplicaSettings
from rerankd.engine.formats import FORMATS
from rerankd.engine.loading.hub import download_file
from rerankd.engine.loading.open import Choice, open_model
from rerankd.engine.protocols import Prompts
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.scorer import EngineScorer
from rerankd.types import LoadProgress, ModelInfo

logger = logging.getLogger(__name__)


def start_on_replicas(
    settings: ReplicaSettings,
    *,
    max_queue: int = 256,
    score_cache_mb: int = 64,
    progress: LoadProgress = lambda stage, share: None,
    start: Callable[[], EngineScorer] | None = None,
    prompts: Prompts | None = None,
) -> EngineScorer:
    """Starts the replicas, or finds those that the cluster runs.

    Args:
        start: starts the engine of a replica; by default what the settings say.
        prompts: makes the prompts; by default those of the model.

    Raises:
        ModelError: the replicas cannot be started.
        SettingsError: the cluster runs replicas with other settings, or cannot be reached.
    """
    progress("starting the replicas", 0.0)
    return scorer_over(
        partial(start_replicas, settings, start),
        settings,
        max_queue=max_queue,
        score_cache_mb=score_cache_mb,
        prompts=prompts,
    )


def scorer_over(
    connect: Callable[[], Replicas],
    settings: ReplicaSettings,
    *,
    max_queue: int,
    score_cache_mb: int,
    prompts: Prompts | None = None,
) -> EngineScorer:
    """A scorer over replicas; see `ClusterEngine` and `start_on_replicas`."""
    engine = ClusterEngine(connect, max_queue, score_cache_mb * 1_000_000)
    try:
        scorer = EngineScorer(engine, prompts or _prompts_of(engine.info, settings.choice))
    except Exception:
        engine.close()
        raise
    logger.info("%d replicas of %s, %d threads each", settings.number, engine.info.name, settings.cpus)
    return scorer


def _prompts_of(info: ModelInfo, choice: Choice) -> Prompts:
    """Makes prompts as the replicas' model does. Qwen's networks need no weights for it; the other models are small."""
    layout = next((one for one in FORMATS if one.prompt_id == info.prompt_id), None)
    if layout is None:
        return open_model(choice).prompts
    here = Path(info.folder)
    if not (here / "tokenizer.json").is_file():  # the replicas are on other machines
        here = download_file(info.name, "tokenizer.json", offline=choice.offline).parent
    return Qwen3Prompt(here, info.max_tokens, layout)
