"""What engine/loading/hub.py needs of huggingface_hub beyond its documented interface."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_url, snapshot_download
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

COMMIT, BLOB = "a" * 40, "b" * 64


def test_http_get_resumes_into_a_file() -> None:
    parameters = inspect.signature(http_get).parameters
    assert list(parameters)[:2] == ["url", "temp_file"]
    assert {"resume_size", "headers", "expected_size", "displayed_filename"} <= parameters.keys()


def test_headers_and_urls_take_what_we_pass() -> None:
    assert build_hf_headers(token=False, headers={"Accept-Encoding": "identity"})["Accept-Encoding"] == "identity"
    url = hf_hub_url("org/name", "model.safetensors", revision=COMMIT)
    assert url == f"{constants.ENDPOINT}/org/name/resolve/{COMMIT}/model.safetensors"


def test_a_snapshot_is_found_in_the_layout_that_we_write(tmp_path: Path) -> None:
    repo = tmp_path / repo_folder_name(repo_id="org/name", repo_type="model")
    assert repo.name == "models--org--name"
    blob, snapshot = repo / "blobs" / BLOB, repo / "snapshots" / COMMIT
    for folder in (blob.parent, snapshot, repo / "refs"):
        folder.mkdir(parents=True)
    blob.write_text("{}")
    (snapshot / "config.json").symlink_to(blob)
    (repo / "refs" / "main").write_text(COMMIT)
    assert snapshot_download("org/name", cache_dir=tmp_path, local_files_only=True) == str(snapshot)


def test_the_lock_excludes_a_second_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with WeakFileLock(path), pytest.raises(TimeoutError), WeakFileLock(path, timeout=0.1):
        pass
