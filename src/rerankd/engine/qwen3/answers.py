"""The answer tokens of a checkpoint: those of its format, or those that its LogitScore names."""

from __future__ import annotations

from pathlib import Path

from rerankd.engine.loading.checkpoint_files import CONFIG, read_modules
from rerankd.engine.loading.checkpoint_json import Field, check_fields, read_object
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.errors import CheckpointInvalid

MODULE = "LogitScore"


def answer_ids(folder: Path, prompt: Qwen3Prompt, vocab_size: int) -> tuple[int, int | None]:
    """Returns the ids of `yes` and `no`; None where the format has a single answer.

    Args:
        vocab_size: the rows of the embedding.

    Raises:
        CheckpointInvalid: the tokenizer has more ids than the embedding has rows, or LogitScore's configuration is
            damaged or lacks a token that the format has.
    """
    if prompt.max_token_id >= vocab_size:
        raise CheckpointInvalid(
            f"{folder / 'tokenizer.json'} has token ids up to {prompt.max_token_id}, and the embedding has only "
            f"{vocab_size} rows (vocab_size in config.json): they belong to different models."
        )
    modules = read_modules(folder)
    for path, kind in modules.folders() if modules else ():
        if kind == MODULE:
            return _configured_ids(folder / path / CONFIG, vocab_size, prompt.no_id is None)
    return prompt.yes_id, prompt.no_id


def _configured_ids(path: Path, vocab_size: int, single: bool) -> tuple[int, int | None]:
    config = read_object(path)
    token_id = Field(int, 0, vocab_size - 1)
    wanted = {"true_token_id": token_id} | ({} if single else {"false_token_id": token_id})
    check_fields(str(path), config, wanted)
    return config["true_token_id"], None if single else config["false_token_id"]
