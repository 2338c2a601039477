"""A model's name → the loaded model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from rerankd.engine.loading.adapters import adapter_in
from rerankd.engine.loading.checkpoint import find_checkpoint, local_folder
from rerankd.engine.loading.devices import Execution, choose_device, prepare_cpu
from rerankd.engine.loading.kinds import layout_of
from rerankd.engine.protocols import LoadedModel
from rerankd.errors import CheckpointInvalid, CheckpointNotFound, HubUnreachable
from rerankd.types import LoadProgress

logger = logging.getLogger(__name__)

AUTO_MODEL = "Qwen/Qwen3-Reranker-0.6B"

FALLBACK_NOTICE = (
    f"{AUTO_MODEL} could not be loaded: the scores come from embedded-multilingual, "
    "which is small and not a Qwen model, reads 16 languages and ignores the instruct."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The model to load, and how.

    model: `auto`, `embedded`, a hub id or a folder. device, dtype, deterministic: see devices.py. offline: the hub is
    not asked. fallback: under `auto`, the embedded model will do.
    """

    model: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    deterministic: bool = False
    offline: bool = False
    fallback: bool = True


def open_model(choice: Choice, progress: LoadProgress | None = None) -> LoadedModel:
    """Finds and loads a model.

    `auto` is Qwen3-Reranker-0.6B from a folder of that name, the cache or the hub; where none is available, and
    `fallback` allows it, the embedded model of 16 languages. Any other name is served as it is or not at all.

    Raises:
        ModelError: it cannot be found or loaded; the message lists the attempts.
        SettingsError: the device cannot be used here.
    """
    prepare_cpu()
    if choice.model == "embedded":
        return _open_embedded(choice)
    if choice.model != "auto":
        return _open_named(choice.model, choice, progress)
    name = Path(AUTO_MODEL).name
    here = local_folder(name)
    if here is not None:
        logger.warning("%s is loaded from %s, a folder in the working directory.", AUTO_MODEL, here)
    try:
        return _open_named(str(here or AUTO_MODEL), choice, progress, AUTO_MODEL)
    except (HubUnreachable, CheckpointNotFound) as error:
        if not choice.fallback:
            raise
        logger.warning("%s is not available: %s", AUTO_MODEL, error)
        return _open_embedded(choice, FALLBACK_NOTICE)


def _open_named(where: str, choice: Choice, progress: LoadProgress | None, name: str | None = None) -> LoadedModel:
    """Args:
    where: hub id or folder; `name`: what callers know the model by, else the hub id or the folder's last part.
    """
    here = local_folder(where)
    adapter = adapter_in(here) if here else None
    folder = _find(adapter.base if adapter else str(here or where), choice, progress)
    name = name or ((here if adapter else folder).resolve().name if here else where)
    report = progress or (lambda stage, share: None)
    device = choose_device(choice.device)
    if (layout := layout_of(adapter.base if adapter else name, folder)) is not None:
        from rerankd.engine.loading.dtypes import choose_dtype, explain_auto, lacks_int8
        from rerankd.engine.qwen3.loaded import Qwen3Model

        dtype = choose_dtype(choice.dtype, device)
        if choice.dtype == "auto" and device.type == "cpu":
            logger.info("%s", explain_auto())
        served = str(dtype).removeprefix("torch.")
        return Qwen3Model(
            name,
            folder,
            Execution(device, dtype, choice.deterministic),
            lambda done, in_all: report("loading the weights", done / in_all),
            None if choice.dtype in ("auto", served) else f"{lacks_int8(device)}: the scores are computed in {served}",
            layout,
            adapter,
        )
    if adapter:
        raise CheckpointInvalid(f"{name} is an adapter for a model that is not a reranker on a Qwen network.")
    try:
        from rerankd.engine.encoders import CrossEncoderModel
    except ImportError as error:
        raise CheckpointInvalid(
            f"{name} is no Qwen3-Reranker; to serve it as a cross-encoder: pip install 'rerankd[embedded]'."
        ) from error
    report("loading the weights", 0.0)
    return CrossEncoderModel(name, folder, device, _ignored(choice))


def _find(where: str, choice: Choice, progress: LoadProgress | None) -> Path:
    if progress is None:
        return find_checkpoint(where, offline=choice.offline)
    report = progress
    report("finding the checkpoint", 0.0)
    return find_checkpoint(
        where, offline=choice.offline, progress=lambda share: report("downloading the checkpoint", share)
    )


def _open_embedded(choice: Choice, notice: str | None = None) -> LoadedModel:
    from rerankd.engine.embedded.model import EmbeddedModel

    notices = [text for text in (notice, _ignored(choice)) if text]
    return EmbeddedModel(choose_device(choice.device), " ".join(notices) or None, is_fallback=notice is not None)


def _ignored(choice: Choice) -> str | None:
    """The ignored options, which only Qwen3-Reranker supports, as a sentence for every caller."""
    asked = [f"--dtype {choice.dtype}"] if choice.dtype not in ("auto", "float32") else []
    asked += ["--deterministic"] if choice.deterministic else []
    return f"{' and '.join(asked)} ignored: only Qwen3-Reranker can do that." if asked else None
