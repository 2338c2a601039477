"""Small random checkpoints of Qwen3-Embedding, with the files of the published ones, and the README's own code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, Qwen3Config, Qwen3Model

from support.checkpoints import TINY

END, END_ID = "<|endoftext|>", 151643
TASK = "Given a web search query, retrieve relevant passages that answer the query"


def write_embedding_checkpoint(
    folder: Path, tokenizer_folder: Path, *, template: bool = True, modules: bool = True, **changes: Any
) -> None:
    """Writes one.

    Args:
        template: whether its tokenizer appends the end token; that of the first revisions did not.
        modules: whether it has the files of sentence-transformers.
        changes: of the configuration.
    """
    torch.manual_seed(0)
    Qwen3Model(Qwen3Config(**{**TINY, **changes})).eval().save_pretrained(folder)  # names without `model.`
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen3ForCausalLM"]}))
    for file in tokenizer_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if template:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        end = processors.TemplateProcessing(
            single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, END_ID)]
        )
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), end])
        tokenizer.save(str(folder / "tokenizer.json"))
    if modules:
        write_modules(folder)


def write_modules(folder: Path, pooling: str = "lasttoken") -> None:
    """The files of sentence-transformers."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    steps = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "lasttoken")}
    size = json.loads((folder / "config.json").read_text())["hidden_size"]
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": size, **modes}))
    prompts = {"query": f"Instruct: {TASK}\nQuery:", "document": ""}
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"})
    )


def readme_ids(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """What the README's tokenizer makes of texts."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return [tokenizer(text, truncation=True, max_length=8192)["input_ids"] for text in texts]


@torch.inference_mode()
def readme_vectors(folder: Path, texts: Sequence[str]) -> Tensor:
    """The README's code: padded on the left, the last token, of length 1."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=8192, return_tensors="pt")
    last: Tensor = model(**batch).last_hidden_state[:, -1]
    return torch.nn.functional.normalize(last, p=2, dim=1)


def readme_query(query: str, task: str = TASK) -> str:
    """A query as the README writes it."""
    return f"Instruct: {task}\nQuery:{query}"
