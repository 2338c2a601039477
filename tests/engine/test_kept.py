"""What is kept on disk for the next start: whole or not at all, and only in a folder that is the user's alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rerankd.engine.loading import kept
from rerankd.engine.loading.checksums import PIECE, checksum
from rerankd.engine.loading.kept import NotKept, find_kept, keep
from rerankd.engine.qwen3.kernels.choice import choose_kernels

needs_kernels = pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("avx512_bf16") or not shutil.which("c++"),
    reason="this machine can have no kernels",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept._say_once.cache_clear()
    return tmp_path / "cache" / "rerankd"


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def test_what_is_kept_is_found_again(folder: Path) -> None:
    assert find_kept("thing-1", ".bin") is None
    file = keep("thing-1", ".bin", write(b"content"))
    assert find_kept("thing-1", ".bin") == file
    assert find_kept("thing-2", ".bin") is None
    assert find_kept("thing", ".bin") is None, "a name that only begins so is another one"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [file]


def test_a_new_file_replaces_those_that_it_is_told_to(folder: Path) -> None:
    other = keep("thing-2-a", ".bin", write(b"another thing"))
    keep("thing-1-a", ".bin", write(b"old"))
    new = keep("thing-1-b", ".bin", write(b"new"), replaces="thing-1")
    assert set(folder.iterdir()) == {other, new}


def test_a_file_that_nothing_used_for_long_goes_when_another_is_written(folder: Path) -> None:
    unused, used, strange = keep("thing-1", ".bin", write(b"1")), keep("thing-2", ".bin", write(b"2")), folder / "notes"
    strange.write_text("not ours")
    for file in (unused, used, strange):
        os.utime(file, (0, 0))
    assert find_kept("thing-2", ".bin") == used
    new = keep("thing-3", ".bin", write(b"3"))
    assert set(folder.iterdir()) == {used, strange, new}


@pytest.mark.parametrize("content", [b"", b"conten", b"cOntent", b"content\0"])
def test_a_damaged_file_is_not_found(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = keep("thing-1", ".bin", write(b"content"))
    file.write_bytes(content)
    assert find_kept("thing-1", ".bin") is None
    assert not file.exists() and "damaged" in caplog.text


def test_a_checksum_covers_every_piece(tmp_path: Path) -> None:
    file, sums = tmp_path / "file", set()
    for place in (0, PIECE - 1, PIECE, 2 * PIECE + 5):
        content = bytearray(2 * PIECE + 6)
        content[place] = 1
        file.write_bytes(content)
        sums.add(checksum(file))
    file.write_bytes(bytes(2 * PIECE + 7))
    assert len(sums | {checksum(file)}) == 5


def test_a_writer_that_fails_leaves_nothing(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        keep("thing-1", ".bin", fail)
    assert list(folder.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(folder: Path) -> None:
    code = (
        "import time; from rerankd.engine.loading.kept import keep\n"
        "keep('thing-1', '.bin', lambda path: (path.write_bytes(b'half'), print('half', flush=True), time.sleep(60)))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "half\n"
    assert find_kept("thing-1", ".bin") is None
    assert len(list(folder.iterdir())) == 2, "both live"
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    find_kept("thing-1", ".bin")
    assert len(list(folder.iterdir())) == 1
    writers[1].kill()
    writers[1].wait()
    find_kept("thing-1", ".bin")
    assert list(folder.iterdir()) == []
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()


# Whose folder it is


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o720])
def test_a_folder_that_others_may_write_to_is_not_used(
    folder: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    keep("thing-1", ".bin", write(b"content"))
    folder.chmod(mode)
    assert find_kept("thing-1", ".bin") is None
    with pytest.raises(NotKept, match="chmod 700"):
        keep("thing-1", ".bin", write(b"content"))
    assert caplog.text.count("Nothing is kept") == 1, "said once"


@as_root
def test_what_belongs_to_somebody_else_is_not_used(folder: Path) -> None:
    file = keep("thing-1", ".bin", write(b"content"))
    os.chown(file, 65534, 65534)
    assert find_kept("thing-1", ".bin") is None
    file = keep("thing-1", ".bin", write(b"content"))
    os.chown(folder, 65534, 65534)
    assert find_kept("thing-1", ".bin") is None
    assert file.exists()


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    file = keep("thing-1", ".bin", write(b"content"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert find_kept("thing-1", ".bin") is None


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as where no passwd entry names one
    assert find_kept("thing-1", ".bin") is None
    with pytest.raises(NotKept, match="no home folder"):
        keep("thing-1", ".bin", write(b"content"))
    assert "set HOME or XDG_CACHE_HOME" in caplog.text


def test_a_folder_that_cannot_be_made_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(NotKept, match=r"cache/rerankd cannot be made: .*XDG_CACHE_HOME"):
        keep("thing-1", ".bin", write(b"content"))


# Kernels


BUILD = (
    "import torch; from rerankd.engine.qwen3.kernels.choice import choose_kernels\n"
    "assert choose_kernels(torch.bfloat16)"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled kernels in a cache folder of their own."""
    cache = tmp_path_factory.mktemp("compiled")
    subprocess.run([sys.executable, "-c", BUILD], env={**os.environ, "XDG_CACHE_HOME": str(cache)}, check=True)
    [library] = (cache / "rerankd").iterdir()
    return library


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("share", [0, 0.05, 0.3, 0.6])
def test_a_damaged_library_is_compiled_again_and_not_loaded(folder: Path, library: Path, share: float) -> None:
    """In a process of its own, because loading a truncated library ends the process."""
    folder.mkdir(parents=True, mode=0o700)
    whole = library.read_bytes()
    damaged = folder / library.name
    damaged.write_bytes(whole[: int(len(whole) * share)])
    subprocess.run([sys.executable, "-c", BUILD], check=True)
    [again] = folder.iterdir()
    assert len(again.read_bytes()) == len(whole)


@needs_kernels
@pytest.mark.slow
def test_without_a_folder_kernels_are_compiled_for_this_process(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert choose_kernels(torch.bfloat16) is not None


@needs_kernels
def test_the_cause_is_named_where_there_are_no_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert choose_kernels(torch.bfloat16) is None
    assert "cannot be compiled or loaded" in caplog.text and "missing" in caplog.text
    assert "c++ failed" not in caplog.text


@pytest.mark.slow
def test_threads_that_look_do_not_remove_what_others_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start looks for weights while it compiles kernels: neither may lose the other's folder."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            find_kept("nothing", ".bin")

    monkeypatch.setattr(kept, "sync", lambda path: None)  # a disk would take the time
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        try:
            files = [keep(f"a{number % 50}", ".bin", write(b"whole")) for number in range(3000)]
        finally:
            stop.set()
            sys.setswitchinterval(before)
    assert all(one.exception() is None for one in looking)
    assert all(path.read_bytes() == b"whole" for path in files)
