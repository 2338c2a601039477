"""Writes a Qwen3 checkpoint with its tokenizer as GGUF, for llama.cpp's reranker.

    python gguf_with_texts.py FOLDER model.gguf

Runs alone, in an environment that has the packages gguf and numpy.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import gguf

YES, NO = 9693, 2152

BENCH = Path(__file__).parents[2] / "src/rerankd/bench/gguf_main.py"

TEMPLATE = "<|im_start|>user\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"


class TextWriter(gguf.GGUFWriter):  # type: ignore[misc]
    """With the checkpoint's own tokenizer in place of the one whose words are token ids."""

    folder: Path

    def add_tokenizer_model(self, model: str) -> None:
        super().add_tokenizer_model("gpt2")
        super().add_tokenizer_pre("qwen2")

    def add_token_list(self, tokens: Any) -> None:
        tokenizer = json.loads((self.folder / "tokenizer.json").read_text())
        words = {number: word for word, number in tokenizer["model"]["vocab"].items()}
        added = {one["id"]: one["content"] for one in tokenizer["added_tokens"]}
        known = {**words, **added}
        super().add_token_list([known.get(number, f"[PAD{number}]") for number in range(len(tokens))])
        kinds = [
            gguf.TokenType.UNUSED if number not in known else _kind(number in added) for number in range(len(tokens))
        ]
        super().add_token_types(kinds)
        merges = tokenizer["model"]["merges"]
        super().add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
        super().add_eos_token_id(151645)
        super().add_pad_token_id(151643)

    def add_chat_template(self, value: Any) -> None:
        super().add_chat_template([{"name": "rerank", "template": TEMPLATE}])


def _kind(is_added: bool) -> gguf.TokenType:
    return gguf.TokenType.CONTROL if is_added else gguf.TokenType.NORMAL


def main(folder: Path, path: Path) -> None:
    TextWriter.folder = folder
    gguf.GGUFWriter = TextWriter
    write_gguf = runpy.run_path(str(BENCH))["write_gguf"]
    write_gguf({"folder": str(folder), "dtype": "float32", "yes_id": YES, "no_id": NO}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
