"""Where a checkpoint's files are: a name → a local folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from threading import Thread

from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name

# Public names, but loaded lazily, which mypy takes for private.
from huggingface_hub.utils import WeakFileLock, build_hf_headers, disable_progress_bars  # type: ignore[attr-defined]

from rerankd.errors import CheckpointInvalid, CheckpointNotFound, HubUnreachable, ModelError

HUB_ANSWERS_WITHIN_S = 4.0
"""For the hub's first answer, with everything that comes before it."""

WANTED = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt"]
# `*` matches `/` too. Of the subfolders only 1_LogitScore/config.json (sentence-transformers) is of use.
UNWANTED = ["[!1]*/*", "*/*.safetensors"]

_log = logging.getLogger(__name__)


def find_checkpoint(name: str, *, revision: str | None = None, progress: bool = True) -> Path:
    """The folder that holds the checkpoint: `name` itself, else from the cache, else from the hub.

    Args:
        name: a folder, or `org/name` on the hub. What begins with `.`, `/` or `~` is always a folder.
        revision: a branch, tag or commit on the hub; a folder has none.
        progress: show bars while downloading, if stderr is a terminal.

    Raises:
        CheckpointNotFound: no such folder, repository or revision, or no access to it.
        CheckpointInvalid: files are missing.
        HubUnreachable: not in the cache, and the hub does not answer or may not be asked.
        ModelError: the cache cannot be written.
    """
    folder = Path(os.path.expanduser(name)).absolute()
    if name.startswith((".", "~")) or os.path.isabs(name) or os.path.exists(name):
        if not folder.is_dir():
            raise CheckpointNotFound(f"There is no folder {folder}. Pass the folder that holds config.json.")
    else:
        folder = is_cached(name, revision=revision) or _download(name, revision, progress)
    if missing := _missing_files(folder):
        raise CheckpointInvalid(
            f"{folder} is not a complete checkpoint: it lacks {', '.join(missing[:3])}. Needed are "
            "config.json, tokenizer.json and the weights as *.safetensors; other formats are not read."
        )
    return folder


def is_cached(name: str, *, revision: str | None = None) -> Path | None:
    """The folder in the Hugging Face cache, if the checkpoint is complete there. Uses no network.

    Raises:
        CheckpointNotFound: `name` is not a name like `org/name`.
    """
    try:
        if name.count("/") != 1:
            raise HFValidationError
        cached = snapshot_download(
            name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=True
        )
    except HFValidationError as error:
        raise CheckpointNotFound(
            f"{name[:200]!r} is neither a folder nor a name on the hub. "
            "Pass a folder, or a name like Qwen/Qwen3-Reranker-0.6B."
        ) from error
    except LocalEntryNotFoundError:
        return None
    # It vouches only for what it downloaded as a whole, not for what others fetched file by file.
    return None if _missing_files(Path(cached)) else Path(cached)


def _missing_files(folder: Path) -> list[str]:
    wanted = ["config.json", "tokenizer.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            wanted += sorted({str(file) for file in json.loads(index.read_bytes())["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointInvalid(f"{index} is damaged: {type(error).__name__}: {error}") from error
    elif not any(path.is_file() for path in folder.glob("*.safetensors")):
        wanted.append("*.safetensors")
    return [file for file in wanted if not (folder / file).is_file()]


def _download(name: str, revision: str | None, progress: bool) -> Path:
    show = progress and sys.stderr.isatty()
    try:
        info = _ask_hub(name, revision)
        _log.info("Downloading %s from %s to %s", name, constants.ENDPOINT, constants.HF_HUB_CACHE)
        with nullcontext() if show else disable_progress_bars():
            _fetch_weights(name, info)
            folder = snapshot_download(name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    except Exception as error:  # among them those of an HTTP library; which one, depends on the version
        raise _explain(error, name, revision) from error
    return Path(folder)


def _ask_hub(name: str, revision: str | None) -> ModelInfo:
    """One request without retries, through the client (and so the proxy) of the download that follows."""
    answer: Future[ModelInfo] = Future()

    def ask() -> None:
        try:
            info = HfApi().model_info(name, revision=revision, timeout=HUB_ANSWERS_WITHIN_S, files_metadata=True)
            answer.set_result(info)
        except Exception as error:
            answer.set_exception(error)

    # The client's timeout bounds each step, not the sum: it starts anew with each address and each byte, and
    # the look-up of the name has none. So the wait is bounded here, and the thread dies with the process.
    Thread(target=ask, name="ask-hub", daemon=True).start()
    return answer.result(HUB_ANSWERS_WITHIN_S)


def _fetch_weights(name: str, info: ModelInfo) -> None:
    """Puts the weights where `snapshot_download` looks for them before it downloads.

    Left to itself it drops its part of a file when it is stopped; here that may be gigabytes.
    """
    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    repo = repo_folder_name(repo_id=name, repo_type="model")
    headers = build_hf_headers(headers={"Accept-Encoding": "identity"})  # a part of a zip is of no use
    for file in info.siblings or ():
        if file.lfs is None or "/" in file.rfilename or not file.rfilename.endswith(".safetensors"):
            continue
        blob = cache / repo / "blobs" / file.lfs.sha256
        part = blob.with_name(f"{blob.name}.incomplete")
        lock = cache / ".locks" / repo / f"{blob.name}.lock"  # the one that huggingface_hub takes
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if blob.exists():
                continue
            with part.open("ab") as target:
                have = target.truncate(min(target.tell(), file.lfs.size))
                http_get(
                    hf_hub_url(name, file.rfilename, revision=info.sha),
                    target,
                    resume_size=have,
                    headers=headers,
                    expected_size=file.lfs.size,
                    displayed_filename=file.rfilename,
                )
            with part.open("rb") as whole:
                intact = hashlib.file_digest(whole, "sha256").hexdigest() == file.lfs.sha256
            if intact:
                part.rename(blob)
            else:  # what an earlier run left was damaged: snapshot_download fetches the file anew
                part.unlink()


def _explain(error: Exception, name: str, revision: str | None) -> ModelError:
    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    if isinstance(error, RevisionNotFoundError):
        return CheckpointNotFound(f"{name} has no revision {revision!r}: see {hub}/{name}/tree/main.")
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        return CheckpointNotFound(
            f"{hub} has no model {name}, or does not show it to you. Check the spelling; if it is private "
            f"or gated, ask for access at {hub}/{name} and set HF_TOKEN. ({reason})"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return ModelError(f"{name} cannot be stored in {cache}: {reason}. Make room there, or set HF_HOME.")
    if isinstance(error, OfflineModeIsEnabled):
        reason = "HF_HUB_OFFLINE is set"
    elif isinstance(error, TimeoutError):
        reason = f"no answer within {HUB_ANSWERS_WITHIN_S:g} s"
    return HubUnreachable(
        f"{name} is not complete in the cache {cache}, and {hub} cannot deliver it: {reason}. Try again (a "
        "download goes on where it stopped), set HTTPS_PROXY, or HF_ENDPOINT to a mirror; or run "
        f"`hf download {name} --local-dir FOLDER` on a machine that can, and pass FOLDER instead of the name."
    )
