"""Rebuild the Qwen3 tokenizer from the ranks that the PyPI package ``dashscope`` ships.

``dashscope`` (Alibaba Cloud's client, Apache-2.0) carries ``resources/qwen.tiktoken``: the 151,643
byte-level BPE tokens of the Qwen family, one ``base64(token) rank`` pair a line. That file holds all
the data in Qwen3's ``tokenizer.json``; the rest is a page of fixed settings, spelled out below. So the
tests get the real tokenizer, byte for byte, from the package index alone, with no model hub.

Sources: the settings are those of ``tokenizer.json`` and ``tokenizer_config.json`` in
https://huggingface.co/Qwen/Qwen3-Reranker-0.6B; the byte alphabet is GPT-2's ``bytes_to_unicode``
(https://github.com/openai/gpt-2/blob/master/src/encoder.py).
"""

import base64
import hashlib
import importlib.util
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

TOKENIZER_SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
"""SHA-256 of the ``tokenizer.json`` published with Qwen3-Reranker-0.6B."""

# The added tokens take the ids that follow the last rank, in this order.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Matched whole in a text like the special ones, but kept by ``decode(skip_special_tokens=True)``.
PLAIN_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)

SPLIT_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TOKENIZER_CONFIG = {
    "add_prefix_space": False,
    # All special tokens but the pad token, as published.
    "additional_special_tokens": SPECIAL_TOKENS[1:],
    "bos_token": None,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "errors": "replace",
    "model_max_length": 131072,
    "pad_token": "<|endoftext|>",
    "split_special_tokens": False,
    "tokenizer_class": "Qwen2Tokenizer",
    "unk_token": None,
}


def build_tokenizer_json() -> bytes:
    """Return Qwen3's ``tokenizer.json``; raise ``RuntimeError`` if it is not the published one."""
    ranks = _read_ranks()
    data = json.dumps(_tokenizer(ranks), indent=2, ensure_ascii=False).encode()
    if _sha256(data) != TOKENIZER_SHA256:
        raise RuntimeError(
            f"the rebuilt tokenizer.json has SHA-256 {_sha256(data)}, the published one {TOKENIZER_SHA256}: "
            "this version of dashscope carries other ranks"
        )
    return data


def tokenizer_folder(cache: Path) -> Path:
    """Make ``cache`` a folder that ``AutoTokenizer.from_pretrained`` loads as Qwen3's tokenizer; return it.

    Files already there are kept if they are the right ones. Each file appears in one step, so processes
    that share ``cache`` never see half of one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    config, config_data = cache / "tokenizer_config.json", json.dumps(TOKENIZER_CONFIG, indent=2).encode()
    if not config.is_file() or config.read_bytes() != config_data:
        _replace(config, config_data)
    tokenizer = cache / "tokenizer.json"
    if not tokenizer.is_file() or _sha256(tokenizer.read_bytes()) != TOKENIZER_SHA256:
        _replace(tokenizer, build_tokenizer_json())
    return cache


def _read_ranks() -> dict[bytes, int]:
    """Return the rank of every token in dashscope's ``qwen.tiktoken``, in rank order."""
    # find_spec locates the package without running its __init__, which imports the whole client.
    spec = importlib.util.find_spec("dashscope")
    if spec is None or spec.origin is None:
        raise RuntimeError("the Qwen3 tokenizer is rebuilt from the PyPI package dashscope: install it")
    lines = (Path(spec.origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}


def _tokenizer(ranks: dict[bytes, int]) -> dict[str, Any]:
    """Return the content of ``tokenizer.json``, its keys in the published order."""
    alphabet = _byte_alphabet()

    def text(token: bytes) -> str:
        return token.decode("latin-1").translate(alphabet)

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT_REGEX}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token_id,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": content in SPECIAL_TOKENS,
            }
            for token_id, content in enumerate(SPECIAL_TOKENS + PLAIN_TOKENS, start=len(ranks))
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text(token): rank for token, rank in ranks.items()},
            "merges": [[text(part) for part in _last_merge(token, ranks)] for token in ranks if len(token) > 1],
        },
    }


def _byte_alphabet() -> dict[int, int]:
    """Return GPT-2's map from each byte to the code point that stands for it in a vocabulary.

    Visible Latin-1 characters stand for themselves, the other bytes for the code points from 256 on.
    """
    visible = [byte for first, last in ("!~", "¡¬", "®ÿ") for byte in range(ord(first), ord(last) + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: byte for byte in visible} | {byte: 256 + n for n, byte in enumerate(hidden)}


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Return the two parts whose merge made ``token``: what is left of it after BPE with the lower ranks.

    Ranks are the order in which training added the merges, so running that order up to the token's own
    rank replays how training met it. The plain quadratic loop is enough: tokens are some six bytes long,
    and all of them take about a second.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    own_rank = ranks[token]
    while len(parts) > 2:
        merged = [ranks.get(left + right, own_rank) for left, right in pairwise(parts)]
        lowest = min(merged)
        if lowest == own_rank:
            raise RuntimeError(f"the token {token!r} is not the merge of two tokens of lower rank")
        at = merged.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Put a file with ``data`` at ``path`` in one step."""
    # Beside the target, since a rename is one step only within one file system.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        complete = Path(folder, path.name)
        complete.write_bytes(data)
        complete.replace(path)
