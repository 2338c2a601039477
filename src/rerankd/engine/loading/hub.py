"""Downloads the necessary files of a checkpoint from the hub into its cache. Loads no model."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from glob import escape
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, cast

from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.hf_api import RepoSibling

# Public names, but loaded lazily, so mypy considers them private.
from huggingface_hub.utils import WeakFileLock, build_hf_headers, disable_progress_bars  # type: ignore[attr-defined]

from rerankd.engine.loading.checkpoint_files import module_files, read_modules, text_files, weight_files
from rerankd.engine.loading.kinds import refuse_foreign
from rerankd.errors import CheckpointNotFound, HubUnreachable, ModelError

HUB_ANSWERS_WITHIN_S = 4.0
"""The timeout of the first answer, including name look-up and connection."""

Share = Callable[[float], None]
"""Called with the downloaded share of the weights, in [0, 1]."""

_log = logging.getLogger(__name__)


def snapshot(name: str, revision: str | None, cache: Path | None = None) -> Path | None:
    """The folder of a model in the cache, even if incomplete, or None. Does not ask the hub.

    Raises:
        CheckpointNotFound: `name` is not a name like `org/name`.
    """
    try:
        if name.count("/") != 1:
            raise HFValidationError
        if _is_homeless(cache):
            return None
        found = snapshot_download(
            name, revision=revision, cache_dir=cache, allow_patterns=["config.json"], local_files_only=True
        )
    except HFValidationError as error:
        raise CheckpointNotFound(
            f"{name[:200]!r} is neither a folder nor a name on the hub. "
            "Pass a folder, or a name like Qwen/Qwen3-Reranker-0.6B."
        ) from error
    except LocalEntryNotFoundError:
        return None
    return Path(found)


def download(
    name: str,
    revision: str | None,
    progress: Share | None = None,
    cache: Path | None = None,
    *,
    embedding: bool = False,
) -> Path:
    """Downloads the files of a model that the cache lacks.

    Args:
        progress: without it, a terminal on stderr shows bars.
        cache: replaces the Hugging Face cache.
        embedding: whether an embedding model is wanted.

    Raises:
        CheckpointNotFound: no such repository or revision, or no access to it.
        CheckpointInvalid: the kind is unsupported; its weights are not downloaded.
        HubUnreachable: the hub does not answer, or must not be asked.
        ModelError: the cache cannot be written.
    """
    show = progress is None and sys.stderr.isatty()
    cache = _cache(name, cache)
    try:
        info = _ask_hub(name, revision)
        _log.info("Downloading %s from %s to %s", name, constants.ENDPOINT, cache)
        with nullcontext() if show else disable_progress_bars():
            return _fetch(name, revision, info, cache, progress, embedding=embedding)
    except (ModelError, AssertionError, AttributeError, NameError, TypeError):
        raise  # the last four are bugs of rerankd, and must not lead to a fallback model
    except Exception as error:  # includes errors of the HTTP library, which depends on the version
        raise _explain(error, name, revision, cache) from error


def download_file(name: str, file: str, *, offline: bool = False) -> Path:
    """One file of a model, from the cache or the hub.

    Raises:
        CheckpointNotFound: no such repository or file, or no access to it.
        HubUnreachable: not in the cache, and the hub does not answer, or must not be asked.
        ModelError: the cache cannot be written.
    """
    cache = _cache(name, None)
    try:
        with disable_progress_bars():
            return Path(hf_hub_download(name, file, local_files_only=offline))
    except Exception as error:  # includes errors of the HTTP library, which depends on the version
        raise _explain(error, name, None, cache) from error


def _is_homeless(cache: Path | None) -> bool:
    """Whether the cache would be in a home folder, and there is none: `~` was not expanded."""
    return cache is None and str(constants.HF_HUB_CACHE).startswith("~")


def _cache(name: str, given: Path | None) -> Path:
    path = Path(given or constants.HF_HUB_CACHE)
    if _is_homeless(given):
        raise HubUnreachable(f"There is no home folder to keep {name} in: set HOME or HF_HOME, or pass a folder.")
    return path.resolve()


def _fetch(
    name: str, revision: str | None, info: ModelInfo, cache: Path, progress: Share | None, *, embedding: bool
) -> Path:
    """Downloads the JSON files first: they list the other files, and show whether the kind is supported."""
    files = {file.rfilename: file for file in info.siblings or ()}

    def get(names: Iterable[str]) -> Path:
        patterns = [escape(each) for each in names]
        return Path(snapshot_download(name, revision=revision, cache_dir=cache, allow_patterns=patterns))

    texts = text_files(files)
    folder = get(texts)
    refuse_foreign(name, folder, files, embedding=embedding)
    wanted = [
        *weight_files(files, lambda index: folder / index if index in files else None),
        *module_files(files, read_modules(folder)),
    ]
    _fetch_weights(name, info, [files[each] for each in wanted if each in files], cache, progress)
    return get([*texts, *wanted])


def _ask_hub(name: str, revision: str | None) -> ModelInfo:
    """One request without retries, through the client (and so the proxy) of the download that follows."""
    answer: Future[ModelInfo] = Future()

    def ask() -> None:
        try:
            info = HfApi().model_info(name, revision=revision, timeout=HUB_ANSWERS_WITHIN_S, files_metadata=True)
            answer.set_result(info)
        except Exception as error:
            answer.set_exception(error)

    # The client's timeout restarts with each address and each byte, and does not cover name look-up. So the wait is
    # bounded here; the thread ends with the process.
    Thread(target=ask, name="ask-hub", daemon=True).start()
    return answer.result(HUB_ANSWERS_WITHIN_S)


def _fetch_weights(
    name: str, info: ModelInfo, files: Sequence[RepoSibling], cache: Path, progress: Share | None
) -> None:
    """Downloads the large files to where `snapshot_download` finds them.

    `snapshot_download` alone discards a partial file when it is interrupted, which may be gigabytes.
    """
    repo = repo_folder_name(repo_id=name, repo_type="model")
    headers = build_hf_headers(headers={"Accept-Encoding": "identity"})  # a compressed download cannot be resumed
    received = _Received(sum(file.lfs.size for file in files if file.lfs), progress)
    for file in files:
        if file.lfs is None:
            continue
        blob = cache / repo / "blobs" / file.lfs.sha256
        part = blob.with_name(f"{blob.name}.incomplete")
        lock = cache / ".locks" / repo / f"{blob.name}.lock"  # the lock that huggingface_hub uses
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if blob.exists():
                received.add(file.lfs.size)
                continue
            with part.open("ab") as target:
                have = target.truncate(min(target.tell(), file.lfs.size))
                received.add(have)
                http_get(
                    hf_hub_url(name, file.rfilename, revision=info.sha),
                    cast(BinaryIO, _Counted(target, received)),
                    resume_size=have,
                    headers=headers,
                    expected_size=file.lfs.size,
                    displayed_filename=file.rfilename,
                )
            with part.open("rb") as whole:
                intact = hashlib.file_digest(whole, "sha256").hexdigest() == file.lfs.sha256
            if intact:
                part.rename(blob)
            else:  # the partial file was damaged: snapshot_download downloads it again
                part.unlink()


class _Received:
    """Counts the downloaded bytes of the weights."""

    def __init__(self, size: int, progress: Share | None) -> None:
        self._size = size
        self._progress = progress
        self._here = 0

    def add(self, size: int) -> None:
        self._here += size
        if self._progress is not None and self._size:
            self._progress(min(1.0, self._here / self._size))


class _Counted:
    """A file that counts the bytes written to it."""

    def __init__(self, file: Any, received: _Received) -> None:
        self._file = file
        self._received = received

    def write(self, content: bytes) -> int:
        written: int = self._file.write(content)
        self._received.add(written)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _explain(error: Exception, name: str, revision: str | None, cache: Path) -> ModelError:
    hub = constants.ENDPOINT
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
        f"`rerankd download {name} --to FOLDER` (or `hf download {name} --local-dir FOLDER`) on a machine that can, "
        "and pass FOLDER instead of the name."
    )
