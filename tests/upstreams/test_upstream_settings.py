"""`[models."<name>"]` of the settings file: what it takes, what it refuses, and where keys come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rerankd.errors import SettingsError
from rerankd.upstreams.secrets import KeySource
from rerankd.upstreams.settings import read_models, short_form

WHOLE = """
[models."qwen3-rerank"]
aliases = ["gte-rerank-v2"]
tokenizer = "Qwen/Qwen3-Reranker-0.6B"
deadline_s = 60
local = "last"

[[models."qwen3-rerank".upstreams]]
name = "gpu-1"
url = "http://gpu-1:8000/v1"
dialect = "vllm"
model = "Qwen/Qwen3-Reranker-0.6B"
api_key = "env:GPU1_KEY"
tier = 0
weight = 4.5
concurrency = 32
timeout_s = 30
health = "/health"
cost = 0.10
"""

ONE = '[models.m]\n[[models.m.upstreams]]\nname = "a"\nurl = "http://a:8000"\n'


def written(tmp_path: Path, text: str, mode: int = 0o644) -> Path:
    path = tmp_path / "rerankd.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU1_KEY", "sk-secret-1")
    [(name, model)] = read_models(written(tmp_path, WHOLE)).items()
    [upstream] = model.upstreams
    assert (name, model.aliases, model.local, model.deadline_s) == ("qwen3-rerank", ("gte-rerank-v2",), "last", 60)
    assert (upstream.name, upstream.weight, upstream.cost, upstream.health) == ("gpu-1", 4.5, 0.1, "/health")
    assert "secret" not in repr(model)


def test_no_file_and_no_section_have_no_models(tmp_path: Path) -> None:
    assert read_models(None) == {}
    assert read_models(written(tmp_path, "max_queue = 3")) == {}


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("models = 3\n", "models", "must be sections"),
        ("[models]\nm = 3\n", "models.m", "must be a section"),
        ("[models.m]\ndeadline_s = 3\n", "models.m.upstreams", "required"),
        ("[models.m]\nupstreams = []\n", "models.m.upstreams", "at least 1"),
        (ONE + "weigth = 3\n", "models.m.upstreams.0.weigth", "unknown; known are api_key, concurrency"),
        (ONE.replace("[models.m]", "[models.m]\ndeadline = 3"), "models.m.deadline", "unknown; known are aliases"),
        (ONE + "weight = 0\n", "models.m.upstreams.0.weight", "greater than 0"),
        (ONE + "weight = inf\n", "models.m.upstreams.0.weight", "finite"),
        (ONE + 'dialect = "vlm"\n', "models.m.upstreams.0.dialect", "'vllm'"),
        (ONE.replace("http:", "ftp:"), "models.m.upstreams.0", "url: 'ftp://a:8000' is not an address"),
        (ONE.replace("//a", "//user:pass@a"), "models.m.upstreams.0", "set api_key instead"),
        (ONE.replace("http:", "https:") + 'discover = "dns"\n', "models.m.upstreams.0", "use http://"),
        (ONE + 'health = "health"\n', "models.m.upstreams.0", "must begin with /"),
        (ONE + 'api_key = "env:NOT_SET_HERE"\n', "models.m.upstreams.0.api_key", "NOT_SET_HERE is not set"),
        (ONE + 'api_key = "file:/nowhere/key"\n', "models.m.upstreams.0.api_key", "/nowhere/key cannot be read"),
        (ONE + 'api_key = "sk-bare-key"\n', "models.m.upstreams.a.api_key", "other users can read"),
        (ONE + '[[models.m.upstreams]]\nname = "a"\nurl = "http://b"\n', "models.m", "two are called a"),
    ],
)
def test_a_mistake_names_the_file_and_the_key_and_shows_no_secret(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        read_models(path)
    message = str(error.value)
    assert message.startswith(f"{path}: {key}: ") and words in message
    assert ("Tuple" in message) == ("= []" in text)  # the mistake, not what follows from it
    assert "sk-bare-key" not in message and "pass@" not in message


def test_a_bare_key_in_a_private_file_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, ONE + 'api_key = "sk-bare-key"\n', 0o600)
    [upstream] = read_models(path)["m"].upstreams
    assert upstream.api_key and KeySource(upstream.api_key).current() == "sk-bare-key"


def test_a_key_in_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first\n")
    source = KeySource(f"file:{path}")
    assert source.current() == "first"
    path.write_text("second key")
    assert source.current() == "second key"
    path.write_text("")  # for a moment, while it is written
    assert source.current() == "second key"
    os.unlink(path)
    assert source.current() == "second key"
    assert "second" not in repr(source)


def test_the_short_form_names_them_by_address() -> None:
    model = short_form(["http://gpu-1:8000/v1", "https://api.jina.ai", "http://gpu-1:8000/v2"], None)
    assert [one.name for one in model.upstreams] == ["gpu-1:8000-1", "api.jina.ai", "gpu-1:8000-3"]
    with pytest.raises(SettingsError, match=r"--upstream: .*not an address"):
        short_form(["gpu-1:8000"], None)
