"""`rerankd download`, against the stand-in hub; each run in a process of its own, which reads HF_* once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from support.hub import NAME, NEEDED, NOT_NEEDED, Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    one = Hub({**NEEDED, **NOT_NEEDED})
    yield one
    one.stop()


def download(hub: Hub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.url}
    command = [sys.executable, "-m", "rerankd", "download", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_into_the_cache_and_again_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    missing = download(hub, tmp_path, NAME, "--offline")
    assert missing.returncode == 1 and "--offline" in missing.stderr and not hub.requests
    ended = download(hub, tmp_path, NAME)
    assert ended.returncode == 0, ended.stderr
    folder = Path(ended.stdout.strip())
    assert (folder / "config.json").read_bytes() == NEEDED["config.json"]
    hub.stop()
    again = download(hub, tmp_path, NAME, "--offline")
    assert (again.returncode, again.stdout) == (0, ended.stdout)


def test_into_a_folder_as_plain_files(hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "model"
    ended = download(hub, tmp_path / "home", NAME, "--to", str(target))
    assert (ended.returncode, ended.stdout.strip()) == (0, str(target)), ended.stderr
    files = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file()}
    assert set(files) == set(NEEDED)
    assert all(files[name].read_bytes() == content for name, content in NEEDED.items())
    assert not any(path.is_symlink() for path in files.values())
    full = download(hub, tmp_path / "home", NAME, "--to", str(target))
    assert full.returncode == 1 and "is not empty" in full.stderr


def test_what_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    ended = download(hub, tmp_path, "nobody/nothing")
    assert ended.returncode == 1 and "nobody/nothing" in ended.stderr and "Traceback" not in ended.stderr
