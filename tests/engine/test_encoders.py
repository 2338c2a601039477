"""Cross-encoders, and when `auto` turns to the embedded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from rerankd.engine.loading.open import AUTO_MODEL, FALLBACK_NOTICE, Choice, open_model
from rerankd.engine.protocols import LoadedModel
from rerankd.errors import CheckpointInvalid
from rerankd.types import Limits, Truncation
from support.pairs_request import pairs_request


def logits(model: LoadedModel, pairs: list[tuple[str, str]], instruct: str = "") -> list[float]:
    return model.logits(model.prompts.encode(pairs_request(pairs, instruct, Limits())))


# Cross-encoders

WORDS = "mars venus red blue planet is the a of known as bread water which where".split()
WINDOW = 32


@pytest.fixture(scope="module")
def make_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny random BERT classifier that reads 32 tokens of a small vocabulary."""

    def make(num_labels: int = 1) -> Path:
        folder = tmp_path_factory.mktemp("cross-encoder")
        vocab = {
            word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##et"])
        }
        tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        special = dict(unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=WINDOW, **special).save_pretrained(folder)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocab),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=WINDOW,
            num_labels=num_labels,
            initializer_range=0.5,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    return make


def test_a_cross_encoder_has_the_logits_of_sentence_transformers(make_cross_encoder: Callable[..., Path]) -> None:
    folder = make_cross_encoder()
    model = open_model(Choice(str(folder), "cpu"))
    assert (model.info.kind, model.info.max_tokens, model.info.name) == ("cross-encoder", WINDOW, folder.name)
    documents = ("mars is the red planet", "bread", "", "venus", "the water of mars is blue " * 3, "water " * 60)
    pairs = [(query, document) for query in ("which planet is red", "where is the bread") for document in documents]
    network = CrossEncoder(str(folder), device="cpu")
    expected = network.predict(pairs, activation_fn=torch.nn.Identity())
    assert logits(model, pairs) == pytest.approx([float(logit) for logit in expected], rel=0, abs=1e-4)
    assert max(expected) - min(expected) > 1, "logits this close together would agree by accident"


def test_a_cross_encoders_document_is_cut_to_the_window(make_cross_encoder: Callable[..., Path]) -> None:
    model = open_model(Choice(str(make_cross_encoder()), "cpu"))
    [pair] = model.prompts.encode(pairs_request([("red planet", "mars " * 40)], "", Limits(on_overlong="refuse")))
    kept = WINDOW - 2 - 3  # the query and three special tokens
    assert pair.truncations == (Truncation("document", 40, kept),)
    assert len(pair.token_ids) == WINDOW
    assert pair.document.split() == ["mars"] * kept


def test_a_classifier_with_two_labels_is_refused(make_cross_encoder: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointInvalid, match="2 labels; a reranker has one"):
        open_model(Choice(str(make_cross_encoder(num_labels=2)), "cpu"))


def test_a_classifier_without_its_weights_is_refused(make_cross_encoder: Callable[..., Path]) -> None:
    folder = make_cross_encoder()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointInvalid, match="sentence-transformers cannot load"):
        open_model(Choice(str(folder), "cpu"))


# auto

OPEN = """
import json, sys
from rerankd.engine.loading.open import Choice, open_model
from rerankd.errors import RerankdError

answers = []
for name in sys.argv[1:]:
    try:
        info = open_model(Choice(name, "cpu")).info
        answers.append([info.name, info.kind, info.notice])
    except RerankdError as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_only_auto_falls_back_where_there_is_no_hub(tmp_path: Path) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    env.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", OPEN, "auto", AUTO_MODEL, "./Qwen3-Reranker-0.6B", "embedded"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    auto, by_name, folder, embedded = json.loads(done.stdout)
    assert auto == ["embedded-multilingual", "bi-encoder", FALLBACK_NOTICE]
    assert AUTO_MODEL in FALLBACK_NOTICE and "embedded-multilingual" in FALLBACK_NOTICE
    assert by_name[0] == "HubUnreachable" and AUTO_MODEL in by_name[1]
    assert folder[0] == "CheckpointNotFound"
    assert embedded == ["embedded-multilingual", "bi-encoder", None]
    assert f"{AUTO_MODEL} is not available" in done.stderr, "the log says so too"


def test_auto_takes_a_folder_of_that_name(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Qwen3-Reranker-0.6B").symlink_to(tiny_checkpoint)
    info = open_model(Choice("auto", "cpu", "float32")).info
    assert (info.name, info.kind, info.notice) == (AUTO_MODEL, "qwen3", None)


def test_auto_does_not_pass_over_a_damaged_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Qwen3-Reranker-0.6B").mkdir()
    with pytest.raises(CheckpointInvalid, match=r"lacks config\.json"):
        open_model(Choice("auto", "cpu"))
