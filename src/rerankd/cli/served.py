"""The models of `rerankd serve`: engines that load in the background, and pools of upstreams."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from rerankd.cli.progress import LoadingBar
from rerankd.config import ServerSettings
from rerankd.errors import CheckpointNotFound, SettingsError
from rerankd.server.interpreter import spare_collector
from rerankd.server.models import Cascade, Models, Served
from rerankd.server.served import LocalScorer, ServedModel
from rerankd.server.served_pool import ServedPool
from rerankd.types import LoadProgress
from rerankd.upstreams.models_file import ModelsFile
from rerankd.upstreams.settings import ModelSettings, short_form

logger = logging.getLogger(__name__)

DEFAULT_MODEL = ("auto",)


def make_models(settings: ServerSettings) -> Models:
    """The models to serve: those with upstreams, and engines.

    With upstreams, an engine runs only if `model` names it, or if it is itself one of the upstreams.

    Raises:
        SettingsError: the settings of an upstream are invalid, or contradict others.
        CheckpointNotFound: there is no folder of a model's name.
    """
    file = ModelsFile(settings.config)
    short = short_form(settings.upstream, settings.upstream_key) if settings.upstream else None
    with_upstreams: dict[str | None, ModelSettings] = {None: short} if short else {}
    with_upstreams.update(file.current())
    _refuse_uncounted(settings, with_upstreams)
    has_local = any(model.local for model in with_upstreams.values())
    engines: list[Served] = []
    if short and not has_local:
        _refuse_model(settings)
    _refuse_several_on_ray(settings)
    if not with_upstreams or has_local or settings.model != DEFAULT_MODEL:
        engines = [_served(name, settings) for name in settings.model]
    pools: list[Served] = [
        _pool(name, model, file, settings, engines[0] if engines else None) for name, model in with_upstreams.items()
    ]
    then = _second(settings, engines, pools)
    served = [*pools, *engines] if has_local else [*engines, *pools]
    served += [then.served] if then else []
    any_size = served[0] in engines and settings.model[0] == "auto"
    return Models(*served, aliases=settings.alias, any_size=any_size, cascade=then)


def _second(settings: ServerSettings, engines: list[Served], pools: list[Served]) -> Cascade | None:
    """The second stage of a cascade.

    Raises:
        SettingsError: the first model does not run in this process, or is the same one.
    """
    if settings.then is None:
        return None
    if settings.then in settings.model:
        raise SettingsError(f"--then {settings.then} is a --model, too: name another one, or drop one of them.")
    if not engines or pools or settings.on_ray:
        raise SettingsError(
            "--then needs a first model in this process: drop --upstream, the upstreams and --replicas."
        )
    return Cascade(_served(settings.then, settings), settings.then_top, settings.then_required)


def _refuse_model(settings: ServerSettings) -> None:
    """With upstreams alone no model runs here, so --model has no meaning.

    Raises:
        SettingsError: it is given.
    """
    if settings.model != DEFAULT_MODEL:
        raise SettingsError(
            f"--model {settings.model[0]} runs in this process, and with --upstream no model does: drop one of them, "
            'or write a section [models."…"] for the upstreams. There, model is the name that they are asked for, and '
            'local = "last" makes the engine of --model one of them.'
        )


def _refuse_several_on_ray(settings: ServerSettings) -> None:
    """Raises SettingsError: the replicas of a cluster run one model."""
    if settings.on_ray and len(settings.model) > 1:
        raise SettingsError("With --replicas or --ray there is one --model: start a server for each.")


def _pool(
    name: str | None, model: ModelSettings, file: ModelsFile, settings: ServerSettings, engine: Served | None
) -> ServedPool:
    return ServedPool(
        name,
        (lambda: model) if name is None else (lambda: file.current()[name]),
        max_waiting=settings.max_queue,
        offline=settings.offline,
        local=engine if isinstance(engine, ServedModel) else None,
    )


def _refuse_uncounted(settings: ServerSettings, models: Mapping[str | None, ModelSettings]) -> None:
    """A bill by estimated tokens is somebody's decision.

    Raises:
        SettingsError: with accounts, a model has neither a tokenizer nor `estimate`.
    """
    for name, model in models.items():
        if settings.accounts and model.tokenizer is None and not model.estimate:
            where = f'[models."{name}"]' if name else 'a section [models."…"] in place of --upstream'
            raise SettingsError(f"With accounts, tokens are counted: set tokenizer (or estimate = true) in {where}.")


def _check_folder(model: str) -> None:
    """Refuses a missing folder before the server listens.

    Raises:
        CheckpointNotFound: the folder does not exist.
    """
    path = os.path.abspath(os.path.expanduser(model))
    if model.startswith((".", os.sep, "~")) and not os.path.exists(path):
        raise CheckpointNotFound(f"There is no folder {path}. Pass the folder that holds config.json.")


def _served(model: str, settings: ServerSettings) -> ServedModel:
    _check_folder(model)
    if settings.on_ray:
        return ServedModel(lambda progress: _start_on_replicas(model, settings, progress))
    return ServedModel(
        lambda progress: _start(model, settings, progress, fallback=settings.may_fall_back),
        retry=lambda: _start(model, settings, lambda stage, share: None, fallback=False),
    )


def _start(model: str, settings: ServerSettings, progress: LoadProgress, *, fallback: bool) -> LocalScorer:
    # Imported on the loading thread: the server listens before torch is loaded.
    from rerankd.startup import chosen, start_scorer

    choice = chosen(settings, model, fallback=fallback)
    with LoadingBar() as bar:

        def both(stage: str, share: float) -> None:
            progress(stage, share)
            bar(stage, share)

        scorer = start_scorer(
            choice,
            max_queue=settings.max_queue,
            score_cache_mb=settings.score_cache_mb,
            skip_self_test=settings.skip_self_test,
            progress=both,
        )
    if settings.skip_self_test:
        logger.warning("The known-answer check was skipped: these scores may be meaningless.")
    if scorer.info.notice:
        logger.warning(scorer.info.notice)
    spare_collector()
    logger.info("Ready: %s answers", scorer.info.name)
    return scorer


def _start_on_replicas(model: str, settings: ServerSettings, progress: LoadProgress) -> LocalScorer:
    """No replica falls back: replicas must not differ."""
    from rerankd.cluster.settings import replicas_of
    from rerankd.cluster.start import start_on_replicas
    from rerankd.startup import chosen

    choice = chosen(settings, model, fallback=False)
    scorer = start_on_replicas(
        replicas_of(settings, choice),
        max_queue=settings.max_queue,
        score_cache_mb=settings.score_cache_mb,
        progress=progress,
    )
    spare_collector()
    logger.info("Ready: %s answers", scorer.info.name)
    return scorer
