"""Qwen3-Embedding: our vectors against the README's code, on small random checkpoints; and the other embedders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rerankd import Embedder
from rerankd.engine.loading.checkpoint import find_checkpoint
from rerankd.engine.loading.devices import Execution
from rerankd.engine.loading.embedding_files import prompts_of
from rerankd.engine.qwen3.embedding import Qwen3Embedder
from rerankd.errors import CheckpointInvalid, SettingsError
from support.embedding_checkpoint import (
    END_ID,
    readme_ids,
    readme_query,
    readme_vectors,
    write_embedding_checkpoint,
    write_modules,
)

TOLERANCE = 1e-4

TEXTS = (
    "",
    "x",
    "The capital of China is Beijing.",
    "Красная планета — это Марс.",
    "中国的首都是北京。",
    "서울은 한국의 수도입니다.",
    "กรุงเทพฯ เป็นเมืองหลวงของไทย",
    "🚀👩‍🚀🪐 def f(x):\n\treturn x ** 2  \n\n",
    "Gravity is a force that attracts two bodies towards each other. " * 12,
)

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    def written(**options: Any) -> Path:
        folder = tmp_path_factory.mktemp("embedding")
        write_embedding_checkpoint(folder, tokenizer_folder, **options)
        return folder

    return written


@pytest.fixture(scope="module")
def checkpoint(make: Make) -> Path:
    return make()


def load(folder: Path, dtype: torch.dtype = torch.float32, dimensions: int | None = None) -> Qwen3Embedder:
    execution = Execution(torch.device("cpu"), dtype)
    return Qwen3Embedder(folder, execution, lambda done, in_all: None, prompts_of(folder), dimensions)


def test_token_ids_are_those_of_the_checkpoints_tokenizer(make: Make, checkpoint: Path) -> None:
    texts = [*TEXTS, *map(readme_query, TEXTS)]
    embedder, early = load(checkpoint), load(make(template=False))  # of the first revisions
    ids = [embedder.token_ids(text) for text in texts]
    assert ids == readme_ids(checkpoint, texts)
    assert all(one[-1] == END_ID for one in ids)
    assert [early.token_ids(text) for text in texts] == ids


def test_control_strings_in_a_text_stay_text(checkpoint: Path) -> None:
    ids = load(checkpoint).token_ids("a<|endoftext|>b")
    assert ids.count(END_ID) == 1 and len(ids) > 4


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_key_value_heads": 8, "hidden_size": 128},
        {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32, "num_hidden_layers": 2},
        {"hidden_size": 32, "head_dim": 64, "num_attention_heads": 4},
        {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128, "rope_theta": 10_000.0},  # the kernels'
    ],
    ids=str,
)
def test_float32_vectors_are_those_of_the_readme(make: Make, shape: dict[str, Any]) -> None:
    folder = make(**shape)
    embedder = load(folder)
    documents, queries = embedder.documents(TEXTS), embedder.queries(TEXTS)
    expected = readme_vectors(folder, [*TEXTS, *map(readme_query, TEXTS)]).numpy()
    ours = np.concatenate([documents, queries])
    assert ours.dtype == np.float32 and np.abs(ours - expected).max() <= TOLERANCE
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    apart = np.abs(documents[:, None] - documents[None]).max(-1) + np.eye(len(TEXTS))
    assert apart.min() > 100 * TOLERANCE, "vectors this near would agree by accident"


def test_a_query_stands_behind_its_task(checkpoint: Path) -> None:
    embedder, task = load(checkpoint), "Given a question about law, find the ruling that answers it"
    [ours] = embedder.queries(["who inherits?"], task)
    [expected] = readme_vectors(checkpoint, [readme_query("who inherits?", task)]).numpy()
    assert np.abs(ours - expected).max() <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_a_vector_does_not_depend_on_its_batch(make: Make, dtype: torch.dtype) -> None:
    embedder = load(make(num_attention_heads=2, num_key_value_heads=1, head_dim=128), dtype)
    together = embedder.documents(TEXTS)
    alone = np.concatenate([embedder.documents([text]) for text in TEXTS])
    if embedder.kernels == "plain":
        assert np.abs(together - alone).max() <= (TOLERANCE if dtype == torch.float32 else 0.03)
    else:
        assert np.array_equal(together, alone)
    assert np.array_equal(embedder.documents(TEXTS[::-1])[::-1], together) or embedder.kernels == "plain"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_smaller_dtypes_stay_near_float32(make: Make, dtype: torch.dtype) -> None:
    folder = make(num_attention_heads=2, num_key_value_heads=1, head_dim=128)
    cosines = (load(folder).documents(TEXTS) * load(folder, dtype).documents(TEXTS)).sum(1)
    assert cosines.min() > 0.97
    assert cosines.max() < 1 - 1e-6, "this is float32"


def test_dimensions_are_cut_and_made_one_again(checkpoint: Path) -> None:
    whole, cut = load(checkpoint).documents(TEXTS), load(checkpoint, dimensions=32).documents(TEXTS)
    expected = whole[:, :32] / np.linalg.norm(whole[:, :32], axis=1, keepdims=True)
    assert cut.shape == (len(TEXTS), 32) and np.abs(cut - expected).max() <= 1e-6
    for wrong in (31, 65):
        with pytest.raises(SettingsError, match="from 32 to 64"):
            Embedder(checkpoint, dimensions=wrong, device="cpu")


def test_a_text_over_the_window_is_cut_and_counted(make: Make) -> None:
    embedder = load(make(max_position_embeddings=128))
    [short, long] = embedder.documents(["a " * 60, "a " * 500])
    assert embedder.num_truncated == 1
    assert not np.array_equal(short, long)
    assert np.allclose(embedder.documents(["a " * 5000])[0], long, atol=1e-6)


def test_an_embedder_is_named_by_what_its_vectors_depend_on(make: Make, checkpoint: Path, tmp_path: Path) -> None:
    first, again = Embedder(checkpoint, device="cpu"), Embedder(str(checkpoint), device="cpu", dimensions=32)
    assert first.name == str(checkpoint) and first.dimensions == 64 and again.digest == first.digest
    assert np.array_equal(first.documents(["x"]), first.documents(["x"]))
    assert Embedder(make(hidden_size=128), device="cpu").digest != first.digest
    assert "64 dimensions" in repr(first)


def test_a_folder_with_model_in_its_names_is_read_too(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in checkpoint.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    write_modules(tmp_path)
    tensors = load_file(checkpoint / "model.safetensors")
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    assert np.array_equal(load(tmp_path).documents(TEXTS), load(checkpoint).documents(TEXTS))


def test_a_reranker_and_a_plain_model_are_refused(tiny_checkpoint: Path, make: Make) -> None:
    with pytest.raises(CheckpointInvalid, match=r"without modules\.json, not an embedding model"):
        Embedder(tiny_checkpoint, device="cpu")
    folder = make()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 1000}))
    with pytest.raises(CheckpointInvalid, match="belong to different models"):
        Embedder(folder, device="cpu")
    with pytest.raises(CheckpointInvalid, match="is an embedding model"):
        find_checkpoint(str(make()))  # where a reranker is wanted


# Encoders of sentence-transformers


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT with mean pooling."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = "mars venus red blue planet is the a of query passage : which".split()
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = dict(unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    write_modules(folder, "mean_tokens")
    prompts = {"query": "query: ", "document": "passage: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


def test_an_encoder_has_the_vectors_of_sentence_transformers(encoder_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    ours = Embedder(encoder_folder, device="cpu")
    theirs = SentenceTransformer(str(encoder_folder), device="cpu")
    texts = ["mars is the red planet", "venus", "which planet is blue", "red " * 40]
    queries = theirs.encode([f"query: {text}" for text in texts], prompt="", normalize_embeddings=True)
    documents = theirs.encode([f"passage: {text}" for text in texts], prompt="", normalize_embeddings=True)
    assert np.abs(ours.queries(texts) - queries).max() <= 1e-5
    assert np.abs(ours.documents(texts) - documents).max() <= 1e-5
    assert ours.dimensions == 32 and ours.num_truncated == 1
    assert np.abs(queries - documents).max() > 0.01
    cut = Embedder(encoder_folder, device="cpu", dimensions=8).documents(texts)
    assert cut.shape == (4, 8) and np.allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)


def test_the_prompts_of_e5_stand_where_its_files_lack_them(encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "multilingual-e5-tiny"
    folder.symlink_to(encoder_folder)
    expected = Embedder(encoder_folder, device="cpu").queries(["mars"])
    (encoder_folder / "config_sentence_transformers.json").rename(tmp_path / "kept")
    try:
        assert np.array_equal(Embedder(tmp_path / "multilingual-e5-tiny", device="cpu").queries(["mars"]), expected)
    finally:
        (tmp_path / "kept").rename(encoder_folder / "config_sentence_transformers.json")


# The embedded model


@pytest.mark.model
def test_the_embedded_model_embeds_in_16_languages() -> None:
    embedder = Embedder()
    assert (embedder.name, embedder.dimensions) == ("embedded", 512)
    texts = ["Der Hund schläft im Garten.", "Der Zug nach Berlin fährt um acht Uhr ab.", " ", ""]
    documents = embedder.documents(texts)
    [query] = embedder.queries(["When does the train leave?"])
    assert documents.shape == (4, 512) and (documents @ query).argmax() == 1
    assert np.allclose(np.linalg.norm(documents, axis=1), [1, 1, 0, 0], atol=1e-6)
    assert embedder.documents([]).shape == (0, 512)
    with pytest.raises(SettingsError, match="have 512"):
        Embedder(dimensions=256)
