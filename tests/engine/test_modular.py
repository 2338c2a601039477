"""Cross-encoders that sentence-transformers loads: of several modules, with .bin weights, without tokenizer.json."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

from rerankd.engine.loading.open import Choice, open_model
from rerankd.errors import CheckpointInvalid
from rerankd.types import Limits
from support.hub import Hub, Machine
from support.pairs_request import pairs_request

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] mars venus red planet is the a of bread water which".split()
TEXTS = [("which planet is red", "mars"), ("which planet is red", "the bread is a planet of water"), ("venus", "red")]


def config(**changes: int) -> BertConfig:
    sizes = dict(vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    return BertConfig(**sizes, intermediate_size=48, max_position_embeddings=32, initializer_range=0.5, **changes)


def tokenizer(folder: Path) -> BertTokenizer:
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizer(str(folder / "vocab.txt"), model_max_length=32)


@pytest.fixture(scope="module")
def modular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ettin's rerankers are made: a transformer, pooling, two dense layers around a norm."""
    torch.manual_seed(0)
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("modular")
    BertModel(config()).save_pretrained(base)
    tokenizer(base).save_pretrained(base)
    transformer = Transformer(str(base))
    modules = [
        transformer,
        Pooling(32, pooling_mode="cls"),
        Dense(32, 32, activation_function=torch.nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    CrossEncoder(modules=modules).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def bin_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier as they were saved before safetensors, with a vocabulary and no tokenizer.json."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bin")
    BertForSequenceClassification(config(num_labels=1)).save_pretrained(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    tokenizer(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "model_max_length": 32}')
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logits(folder: Path) -> list[float]:
    model = open_model(Choice(str(folder), "cpu"))
    assert model.info.kind == "cross-encoder"
    return model.logits(model.prompts.encode(pairs_request(TEXTS, "", Limits())))


def expected(folder: Path) -> list[float]:
    network = CrossEncoder(str(folder), device="cpu")
    found = [float(score) for score in network.predict(TEXTS, activation_fn=torch.nn.Identity())]
    assert max(found) - min(found) > 0.1, "logits this close together would agree by accident"
    return found


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    server = Hub({})
    yield server
    server.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


WEIGHTS = {
    "model.safetensors",
    "2_Dense/model.safetensors",
    "3_LayerNorm/model.safetensors",
    "4_Dense/model.safetensors",
}
UNASKED = {"README.md": b"read me", "onnx/model.onnx": b"onnx", "pytorch_model.bin": b"old", "optimizer.pt": b"pickle"}


def test_a_modular_cross_encoder_downloads_whole_and_nothing_else(hub: Hub, machine: Machine, modular: Path) -> None:
    whole = files_of(modular)
    assert whole.keys() >= WEIGHTS, whole.keys()
    hub.files = whole | UNASKED | {"5_Other/model.safetensors": b"not in modules.json"}
    found = machine.find(hub.url)
    assert found.files().keys() == whole.keys() - UNASKED.keys()
    assert len(hub.ranges()) == len(WEIGHTS), "large files are fetched once, and those of modules too"
    assert found.path is not None
    assert logits(found.path) == pytest.approx(expected(modular), abs=1e-5)


def test_an_incomplete_cache_is_completed_at_a_later_start(hub: Hub, machine: Machine, modular: Path) -> None:
    hub.files = files_of(modular)
    path = machine.find(hub.url).path
    assert path is not None
    for lost in (
        ["2_Dense/model.safetensors"],
        ["4_Dense/config.json", "4_Dense/model.safetensors"],
        ["model.safetensors"],
    ):
        for file in lost:
            (path / file).unlink()
        assert machine.find(hub.url).files().keys() == hub.files.keys() - UNASKED.keys()
    hub.stop()
    (path / "3_LayerNorm/model.safetensors").unlink()
    assert machine.find(hub.url).error == "HubUnreachable"


def test_bin_weights_and_a_vocabulary_are_read_from_the_hub(hub: Hub, machine: Machine, bin_only: Path) -> None:
    hub.files = files_of(bin_only) | {"training_args.bin": b"pickle"}
    found = machine.find(hub.url)
    assert found.files().keys() == files_of(bin_only).keys()
    assert found.path is not None
    assert logits(found.path) == pytest.approx(expected(bin_only), abs=1e-5)


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_bin_file_that_holds_code_is_refused_and_not_run(bin_only: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    for name, content in files_of(bin_only).items():
        (folder / name).write_bytes(content)
    torch.save({"bert.pooler.dense.weight": Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointInvalid, match="sentence-transformers cannot load"):
        logits(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(CheckpointInvalid, match="sentence-transformers cannot load"):
        logits(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "asked", ["torch.utils.collect_env.main", "torch.nn.Module", "torch.hub.load", "torch.nn.Linear", "os.system"]
)
@pytest.mark.parametrize("place", ["config.json", "4_Dense/config.json", "config_sentence_transformers.json"])
def test_only_known_activation_functions_are_called(modular: Path, tmp_path: Path, asked: str, place: str) -> None:
    folder = tmp_path / "copy"
    for name, content in files_of(modular).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    values = json.loads((folder / place).read_text())
    key = "activation_function" if "Dense" in place else "activation_fn"
    changed = {"sentence_transformers": {key: asked}} if place == "config.json" else {key: asked}
    (folder / place).write_text(json.dumps(values | changed))
    with pytest.raises(CheckpointInvalid, match="activation function"):
        logits(folder)


@pytest.mark.parametrize(
    "modules",
    [
        [{"path": "", "type": "os.system"}],
        [{"path": "../elsewhere", "type": "sentence_transformers.models.Dense"}],
        [{"path": "/etc", "type": "sentence_transformers.models.Dense"}],
        [{"path": 1, "type": "sentence_transformers.models.Dense"}],
        {"path": "", "type": "sentence_transformers.models.Dense"},
        ["Dense"],
    ],
)
def test_modules_that_make_no_sense_are_refused(bin_only: Path, tmp_path: Path, modules: object) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, content in files_of(bin_only).items():
        (folder / name).write_bytes(content)
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointInvalid, match=r"modules\.json"):
        logits(folder)
