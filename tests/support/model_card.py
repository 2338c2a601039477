"""The model card's own code on transformers: the yardstick for rerankd's prompts and logits.

Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B, README, "Transformers Usage". Written out here, so
that nothing of it comes from the package under test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

MAX_LENGTH = 8192
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

Triple = tuple[str, str, str]
"""instruct, query, document."""


def prompt_ids(tokenizer: Any, triples: list[Triple]) -> list[list[int]]:
    """Prefix, body and suffix are tokenised apart; only the body is truncated."""
    prefix, suffix = (tokenizer.encode(text, add_special_tokens=False) for text in (PREFIX, SUFFIX))
    bodies = tokenizer(
        [f"<Instruct>: {instruct}\n<Query>: {query}\n<Document>: {document}" for instruct, query, document in triples],
        padding=False,
        truncation="longest_first",
        return_attention_mask=False,
        max_length=MAX_LENGTH - len(prefix) - len(suffix),
    )["input_ids"]
    return [prefix + body + suffix for body in bodies]


@torch.no_grad()
def logits(folder: Path, tokenizer: Any, prompts: list[list[int]], batch_size: int = 8) -> list[float]:
    """logit(yes) − logit(no) at the last position, in left-padded batches, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    yes, no = (tokenizer.convert_tokens_to_ids(token) for token in ("yes", "no"))
    differences: list[float] = []
    for start in range(0, len(prompts), batch_size):
        chosen = {"input_ids": prompts[start : start + batch_size]}
        batch = tokenizer.pad(chosen, padding=True, return_tensors="pt")
        last = model(**batch, logits_to_keep=1).logits[:, -1]
        differences += (last[:, yes] - last[:, no]).tolist()
    return differences
