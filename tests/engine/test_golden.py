"""Our logits against transformers running the model card's code, on small random checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rerankd.engine.loading.devices import Execution
from rerankd.engine.qwen3.loaded import Qwen3Model
from rerankd.engine.qwen3.model import Qwen3Reranker
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from rerankd.types import DEFAULT_INSTRUCT, Limits, Prompt
from support import model_card
from support.pairs_request import pairs_request

TOLERANCE = 1e-4
"""Measured: 1.2e-5 at most, over 12 seeds and every shape below."""

BFLOAT16_RMS, BFLOAT16_MAX = 0.05, 0.2
"""Measured over 12 seeds: 0.026 (transformers in bfloat16: 0.029) and 0.103 at most."""

SENTENCES = (
    "The capital of China is Beijing.",
    "Красная планета — это Марс.",
    "Η πρωτεύουσα της Ελλάδας είναι η Αθήνα.",
    "中国的首都是北京。",
    "東京は日本の首都です。",
    "서울은 한국의 수도입니다.",
    "عاصمة مصر هي القاهرة.",
    "ירושלים היא עיר עתיקה.",
    "नई दिल्ली भारत की राजधानी है।",
    "กรุงเทพฯ เป็นเมืองหลวงของไทย",
    "🚀👩‍🚀🪐 def f(x):\n\treturn x ** 2",
)
DOCUMENTS = ("", "x", *SENTENCES, *(" ".join(SENTENCES[:n]) for n in (3, 6, 9)), " ".join(SENTENCES * 2))
TRIPLES = [
    *((DEFAULT_INSTRUCT, "What is the capital of China?", document) for document in DOCUMENTS),
    *(("判断文档是否回答问题", "首都はどこですか？", document) for document in DOCUMENTS[:6]),
]


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Qwen3Model:
    return Qwen3Model("tiny", folder, Execution(torch.device("cpu"), dtype), lambda done, in_all: None)


def plain_network(folder: Path) -> Qwen3Reranker:
    """The forward pass that the one in Qwen3Model is measured against."""
    checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
    return load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)


def encode(model: Qwen3Model, triples: list[model_card.Triple]) -> list[Prompt]:
    return [
        model.prompts.encode(pairs_request([(query, document)], instruct, Limits()))[0]
        for instruct, query, document in triples
    ]


def difference(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def card_logits(reference_tokenizer: Any) -> Callable[[Path], list[float]]:
    """What the model card's code says of TRIPLES."""
    prompts = model_card.prompt_ids(reference_tokenizer, TRIPLES)
    return lambda folder: model_card.logits(folder, reference_tokenizer, prompts)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 8},
        {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32, "num_hidden_layers": 2},
        {"hidden_size": 128, "head_dim": 16},
        {"hidden_size": 32, "head_dim": 64, "num_attention_heads": 4},
        {"rope_theta": 10_000.0, "rms_norm_eps": 1e-3},
        {"shard_size": "9MB", "tie_word_embeddings": False},
    ],
    ids=str,
)
def test_float32_logits_are_those_of_the_model_card(
    make_checkpoint: Callable[..., Path], card_logits: Callable[[Path], list[float]], shape: dict[str, Any]
) -> None:
    folder = make_checkpoint(**shape)
    model = load(folder)
    pairs = encode(model, TRIPLES)
    theirs = card_logits(folder)
    assert difference(model.logits(pairs), theirs) <= TOLERANCE
    assert difference(plain_network(folder)([pair.token_ids for pair in pairs]).tolist(), theirs) <= TOLERANCE
    assert max(theirs) - min(theirs) > 1, "logits this close together would agree by accident"


def test_the_sharded_checkpoint_is_sharded(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(shard_size="9MB", tie_word_embeddings=False)
    assert len(list(folder.glob("*.safetensors"))) > 1


@pytest.mark.parametrize("tied", [True, False])
def test_a_converted_checkpoint_has_the_logits_of_its_original(
    make_checkpoint: Callable[..., Path], card_logits: Callable[[Path], list[float]], tied: bool
) -> None:
    model = load(make_checkpoint(seq_cls=True, tie_word_embeddings=tied))
    original = make_checkpoint(tie_word_embeddings=tied)
    assert difference(model.logits(encode(model, TRIPLES)), card_logits(original)) <= TOLERANCE


def test_bfloat16_logits_stay_near_those_of_float32(
    make_checkpoint: Callable[..., Path], card_logits: Callable[[Path], list[float]]
) -> None:
    errors = []
    for seed in range(4):
        folder = make_checkpoint(seed=seed)
        model = load(folder, torch.bfloat16)
        ours = model.logits(encode(model, TRIPLES))
        errors += [abs(a - b) for a, b in zip(ours, card_logits(folder), strict=True)]
    assert max(errors) <= BFLOAT16_MAX
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) <= BFLOAT16_RMS
    assert max(errors) > 10 * TOLERANCE, "this is not bfloat16"


def test_each_part_of_the_prompt_moves_the_logits_by_more_than_the_tolerance(tiny_checkpoint: Path) -> None:
    """What the comparisons above would not notice, they would not test."""
    model = load(tiny_checkpoint)
    pairs = encode(model, TRIPLES)
    right = model.logits(pairs)
    prompts = [list(pair.token_ids) for pair in pairs]

    def moved(changed: list[list[int]]) -> float:
        logits = model.logits([Prompt("", "", token_ids, 0, 0) for token_ids in changed])
        return min(abs(a - b) for a, b in zip(right, logits, strict=True))

    assert min(abs(2 * logit) for logit in right) > 100 * TOLERANCE  # `yes` and `no` swapped
    assert moved([prompt[39:-9] for prompt in prompts]) > 5 * TOLERANCE  # no template
    assert moved([prompt[39:] for prompt in prompts]) > 5 * TOLERANCE  # no prefix
    assert moved([prompt[:-1] for prompt in prompts]) > 5 * TOLERANCE  # the last line feeds lost
    assert moved([[*prompt[:-1], 198] for prompt in prompts]) > 5 * TOLERANCE  # one line feed of two, as vLLM's
    assert moved([prompt[:39] + prompt[40:] for prompt in prompts]) > 5 * TOLERANCE  # one token of the body
