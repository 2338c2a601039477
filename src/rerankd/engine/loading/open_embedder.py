"""An embedding model's name → the loaded model, and what its vectors depend on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rerankd.engine.loading.checkpoint import find_checkpoint, local_folder
from rerankd.engine.loading.devices import Execution, choose_device, prepare_cpu
from rerankd.engine.loading.embedding_files import digest_of, is_qwen3_embedding, prompts_of
from rerankd.engine.loading.open import Choice
from rerankd.engine.protocols import EmbeddingModel
from rerankd.errors import MissingExtra, SettingsError
from rerankd.types import LoadProgress

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class Embedding:
    """A loaded embedding model.

    Attributes:
        name: as it was given; a folder with its whole path.
        digest: what the vectors depend on, beside the dimensions.
    """

    name: str
    digest: str
    model: EmbeddingModel


def open_embedder(choice: Choice, dimensions: int | None = None, progress: LoadProgress | None = None) -> Embedding:
    """Finds and loads an embedding model.

    Args:
        choice: its model is `embedded`, a hub id or a folder.
        dimensions: cuts the vectors; None: all.

    Raises:
        ModelError: it cannot be found or loaded.
        SettingsError: the device or the dimensions are not possible.
    """
    prepare_cpu()
    if choice.model == EMBEDDED:
        from rerankd.engine.embedded.sentence_vectors import DIGEST, EmbeddedEmbedder

        _check_dimensions(dimensions, EmbeddedEmbedder.dimensions, least=EmbeddedEmbedder.dimensions)
        return Embedding(EMBEDDED, DIGEST, EmbeddedEmbedder(choose_device(choice.device)))
    here = local_folder(choice.model)
    report = progress or (lambda stage, share: None)
    folder = find_checkpoint(
        str(here or choice.model),
        offline=choice.offline,
        progress=None if progress is None else lambda share: report("downloading the embedder", share),
        embedding=True,
    )
    name = str(here) if here else choice.model
    return Embedding(name, digest_of(folder), _loaded(name, folder, choice, dimensions, report))


def _loaded(name: str, folder: Path, choice: Choice, dimensions: int | None, report: LoadProgress) -> EmbeddingModel:
    device = choose_device(choice.device)
    if is_qwen3_embedding(name, folder):
        from rerankd.engine.loading.dtypes import choose_dtype
        from rerankd.engine.qwen3.embedding import LEAST_DIMENSIONS, Qwen3Embedder

        execution = Execution(device, choose_dtype(choice.dtype, device))
        loading = "loading the embedder"
        model = Qwen3Embedder(
            folder, execution, lambda done, in_all: report(loading, done / in_all), prompts_of(folder), dimensions
        )
        _check_dimensions(dimensions, model.full_dimensions, LEAST_DIMENSIONS)
        return model
    try:
        from rerankd.engine.sentence_encoders import SentenceEncoderModel
    except ImportError as error:
        raise MissingExtra(f"The embedder {name}", error, "take Qwen3-Embedding", "cross-encoders") from error
    encoder = SentenceEncoderModel(name, folder, device, dimensions)
    _check_dimensions(dimensions, encoder.full_dimensions, least=1)
    return encoder


def _check_dimensions(asked: int | None, full: int, least: int) -> None:
    if asked is not None and not least <= asked <= full:
        possible = f"{full}" if least == full else f"from {least} to {full}"
        raise SettingsError(f"{asked} dimensions are not possible: this embedder's vectors have {possible}.")
