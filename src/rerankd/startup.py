"""Loads a model, starts its engine and checks its scores. Knows no HTTP."""

from __future__ import annotations

import logging
import time

from rerankd.config.models import EngineSettings
from rerankd.engine.engine import Engine
from rerankd.engine.loading.open import Choice, open_model
from rerankd.engine.scorer import EngineScorer
from rerankd.selftest import run_self_test
from rerankd.types import LoadProgress

logger = logging.getLogger(__name__)


def chosen(settings: EngineSettings, model: str, *, fallback: bool = True) -> Choice:
    """The choice of a model with the settings of a command."""
    return Choice(model, settings.device, settings.dtype, settings.deterministic, settings.offline, fallback)


def start_scorer(
    choice: Choice,
    *,
    max_queue: int = 256,
    score_cache_mb: int = 64,
    skip_self_test: bool = False,
    progress: LoadProgress | None = None,
) -> EngineScorer:
    """Loads the model, starts the engine and checks its scores.

    Raises:
        ModelError: the model cannot be loaded, or fails its known-answer check.
        SettingsError: the device cannot be used here.
    """
    started = time.monotonic()
    model = open_model(choice, progress)
    scorer = EngineScorer(Engine(model, max_queue, score_cache_mb * 1_000_000), model.prompts)
    info = scorer.info
    logger.info(
        "Loaded %s: %.0f M parameters, %s on %s, in %.1f s",
        info.name,
        info.num_parameters / 1e6,
        info.dtype,
        info.device,
        time.monotonic() - started,
    )
    if skip_self_test:
        return scorer
    if progress is not None:
        progress("checking the scores", 1.0)
    try:
        outcome = run_self_test(scorer)
        outcome.raise_if_failed()
    except Exception:
        scorer.close()
        raise
    logger.info("Known-answer check: %s", outcome.verdict)
    return scorer
