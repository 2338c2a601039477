"""find_checkpoint against a stand-in hub on 127.0.0.1.

Each call runs in a process of its own: huggingface_hub reads HF_* and *_PROXY once, when it is imported.
"""

from __future__ import annotations

import os
import random
import socket
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from rerankd.engine.loading.checkpoint import find_checkpoint, is_cached, local_folder
from rerankd.errors import CheckpointInvalid, CheckpointNotFound
from support.hub import COMMIT, NAME, NEEDED, NOT_NEEDED, TOKEN, Answer, Hub, Machine, Outcome, sha256
from support.waiting import wait_until


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub(NEEDED | NOT_NEEDED)
    yield server
    server.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- from the hub -------------------------------------------------------------------------------------------


def test_first_call_downloads_what_is_needed_and_the_second_needs_no_hub(hub: Hub, machine: Machine) -> None:
    first = machine.find(hub.url)
    assert first.files() == NEEDED
    assert not [path for _, path, _ in hub.requests if any(path.endswith(f"/{file}") for file in NOT_NEEDED)]
    assert not list(machine.home.rglob("*.incomplete"))

    hub.stop()
    second = machine.find(hub.url)
    assert second.path == first.path
    assert machine.find(hub.url, revision=COMMIT).path == first.path


def test_honours_hf_hub_cache(hub: Hub, machine: Machine, tmp_path: Path) -> None:
    found = machine.find(hub.url, HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    assert found.files() == NEEDED
    assert found.path is not None and found.path.is_relative_to(tmp_path / "elsewhere")


def test_a_cache_that_lacks_a_shard_is_completed(hub: Hub, machine: Machine) -> None:
    path = machine.find(hub.url).path
    assert path is not None
    (path / "model-2-of-2.safetensors").unlink()
    (machine.repo / "trees" / f"{COMMIT}.json").unlink()  # as where files were fetched one by one
    assert machine.find(hub.url).files() == NEEDED


def test_uses_the_proxy_from_the_first_request_on(hub: Hub, machine: Machine) -> None:
    # Only the proxy can know a name under .invalid.
    found = machine.find("http://hub.invalid", HTTP_PROXY=hub.url)
    assert found.files() == NEEDED
    assert {headers["host"] for _, path, headers in hub.requests if path.startswith("/api/")} == {"hub.invalid"}


def test_sends_the_token_to_the_hub_only(hub: Hub, machine: Machine) -> None:
    hub.private = True
    refused = machine.find(hub.url)
    assert refused.error == "CheckpointNotFound"
    assert "HF_TOKEN" in refused.message and NAME in refused.message

    assert machine.find(hub.url, HF_TOKEN=TOKEN).files() == NEEDED
    assert not [headers for _, path, headers in hub.requests if path.startswith("/cdn/") and "authorization" in headers]


def test_unknown_repository_and_unknown_revision(hub: Hub, machine: Machine) -> None:
    repository = machine.find(hub.url, "tiny/unknown")
    assert repository.error == "CheckpointNotFound"
    assert hub.url in repository.message and "tiny/unknown" in repository.message

    revision = machine.find(hub.url, revision="v9")
    assert revision.error == "CheckpointNotFound"
    assert "'v9'" in revision.message


def test_a_repository_without_safetensors(hub: Hub, machine: Machine) -> None:
    hub.files = {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"pickle"}
    found = machine.find(hub.url)
    assert found.error == "CheckpointInvalid"
    assert "it lacks *.safetensors" in found.message and "save_pretrained" in found.message
    assert not hub.ranges(), "it was downloaded before it was refused"


def test_a_cache_that_cannot_be_written(hub: Hub, machine: Machine) -> None:
    (machine.home / "hf").write_text("not a folder")
    found = machine.find(hub.url)
    assert found.error == "ModelError"
    assert str(machine.home / "hf") in found.message


def test_shows_bars_on_a_terminal_only(hub: Hub, machine: Machine, tmp_path: Path) -> None:
    with machine.start(hub.url) as process:
        assert process.communicate(timeout=60)[1] == ""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with Machine(tmp_path / "other").start(hub.url, stderr=theirs) as process:
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            shown = terminal.read(10_000)
            with suppress(OSError):  # so a terminal tells that its other end is closed
                while more := terminal.read(10_000):
                    shown += more
    assert b"model-1-of-2.safetensors: 100%" in shown


def test_offline_asks_no_hub(hub: Hub, machine: Machine) -> None:
    found = machine.find(hub.url, told={"offline": True})
    assert found.error == "HubUnreachable" and "--offline" in found.message
    assert not hub.requests
    path = machine.find(hub.url).path
    asked = len(hub.requests)
    assert machine.find(hub.url, told={"offline": True}).path == path
    assert len(hub.requests) == asked


def test_a_home_that_nobody_has_is_named(hub: Hub, machine: Machine, tmp_path: Path) -> None:
    before = "import os; os.chdir(os.environ['EMPTY']); os.path.expanduser = lambda path: path"
    found = machine.find(hub.url, before=before, EMPTY=str(tmp_path), HF_HOME="~/hf")
    assert found.error == "HubUnreachable" and "set HOME or HF_HOME" in found.message
    assert not (tmp_path / "~").exists()


# --- interrupted --------------------------------------------------------------------------------------------

BIG = random.Random(0).randbytes(12 << 20)  # huggingface_hub writes 10 MiB at a time
WRITTEN = 10 << 20


@pytest.fixture
def big_hub(hub: Hub) -> Hub:
    hub.files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": BIG}
    return hub


def test_resumes_when_the_connection_breaks(big_hub: Hub, machine: Machine) -> None:
    big_hub.cut_after = 11 << 20
    assert machine.find(big_hub.url).files() == big_hub.files
    assert big_hub.ranges() == ["", f"bytes={WRITTEN}-"]


def test_resumes_in_the_next_process(big_hub: Hub, machine: Machine) -> None:
    big_hub.stall_after = 11 << 20
    with machine.start(big_hub.url) as process:
        part = machine.repo / "blobs" / f"{sha256(BIG)}.incomplete"
        wait_until(lambda: part.exists() and part.stat().st_size >= WRITTEN)
        process.kill()
    assert part.stat().st_size == WRITTEN

    big_hub.stall_after = None
    assert machine.find(big_hub.url).files() == big_hub.files
    assert big_hub.ranges() == ["", f"bytes={WRITTEN}-"]


def test_the_share_that_is_here_is_told(big_hub: Hub, machine: Machine) -> None:
    big_hub.cut_after = 11 << 20
    shares = machine.find(big_hub.url, told={"progress": True}).shares
    assert shares == sorted(shares) and shares[-1] == 1
    assert WRITTEN / len(BIG) in shares


def test_two_processes_download_once(big_hub: Hub, machine: Machine) -> None:
    with machine.start(big_hub.url) as one, machine.start(big_hub.url) as other:
        assert one.communicate(timeout=60)[0].split(",")[0] == other.communicate(timeout=60)[0].split(",")[0]
    assert machine.find(big_hub.url).files() == big_hub.files
    assert big_hub.ranges() == [""]


@pytest.mark.parametrize("size", [1000, len(BIG), len(BIG) + 1])
def test_a_damaged_part_is_not_used(big_hub: Hub, machine: Machine, size: int) -> None:
    part = machine.repo / "blobs" / f"{sha256(BIG)}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * size)
    assert machine.find(big_hub.url).files() == big_hub.files
    assert not part.exists()


# --- no hub -------------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def assert_unreachable(found: Outcome, endpoint: str) -> None:
    assert found.error == "HubUnreachable", found
    for word in (NAME, endpoint, "hf download", "HF_ENDPOINT"):
        assert word in found.message


def test_refused(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = address(server)
    assert_unreachable(machine.find(endpoint), endpoint)


def test_accepts_and_never_answers(machine: Machine, listener: socket.socket) -> None:
    assert_unreachable(machine.find(address(listener)), address(listener))


def test_never_accepts(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]  # the kernel drops what comes after a full backlog
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        assert_unreachable(machine.find(address(server)), address(server))
        for client in waiting:
            client.close()


def test_answers_a_byte_at_a_time(machine: Machine, listener: socket.socket) -> None:
    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while True:
                connection.sendall(b".")
                time.sleep(0.1)

    thread = Thread(target=drip)
    thread.start()
    assert_unreachable(machine.find(address(listener)), address(listener))
    thread.join()


def test_the_name_server_does_not_answer(machine: Machine) -> None:
    before = "import socket, time; socket.getaddrinfo = lambda *args, **kwargs: time.sleep(60)"
    found = machine.find("http://hub.invalid", before=before)
    assert_unreachable(found, "http://hub.invalid")
    assert "no answer within 4 s" in found.message


def test_no_such_host(machine: Machine) -> None:
    assert_unreachable(machine.find("http://hub.invalid"), "http://hub.invalid")


@pytest.mark.parametrize("status", [200, 503])
def test_something_else_answers(hub: Hub, machine: Machine, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(Answer, "do_GET", lambda self: self.send(status, b"<html>Log in</html>", {}))
    assert_unreachable(machine.find(hub.url), hub.url)


def test_the_hub_dies_while_it_delivers(big_hub: Hub, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "send_file", lambda self, file: self.send(500, b"", {}))
    assert machine.find(big_hub.url).error == "HubUnreachable"


def test_offline_mode(hub: Hub, machine: Machine) -> None:
    found = machine.find(hub.url, HF_HUB_OFFLINE="1")
    assert_unreachable(found, hub.url)
    assert "HF_HUB_OFFLINE is set" in found.message
    assert not hub.requests

    assert machine.find(hub.url).files() == NEEDED
    assert machine.find(hub.url, HF_HUB_OFFLINE="1").files() == NEEDED


# --- folders and names --------------------------------------------------------------------------------------


def checkpoint(folder: Path, *left_out: str) -> Path:
    folder.mkdir(parents=True)
    for file in {"config.json", "tokenizer.json", "model.safetensors"} - set(left_out):
        (folder / file).write_bytes(b"{}")
    return folder


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "org" / "name")
    assert find_checkpoint(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("org/name", "./org/name", "org/../org/name", "~/org/name"):
        found = find_checkpoint(name)
        assert found.is_absolute() and found.samefile(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_somebody_else_is_not_taken_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("org/name").samefile(folder)
    assert "./org/name says so" in caplog.text, "a folder of one's own is taken, visibly"
    os.chown(folder, 65534, 65534)
    assert local_folder("org/name") is None
    assert "is not used" in caplog.text
    assert find_checkpoint("./org/name").samefile(folder)
    os.chown(folder, 0, 0)
    folder.chmod(0o777)
    assert local_folder("org/name") is None


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path, file: str) -> None:
    folder = checkpoint(tmp_path / "here")
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1192134784\n")
    with pytest.raises(CheckpointInvalid, match=f"{file} is a Git LFS pointer.*git lfs pull"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file(tmp_path: Path, file: str) -> None:
    folder = checkpoint(tmp_path / "here", file)
    with pytest.raises(CheckpointInvalid) as caught:
        find_checkpoint(str(folder))
    assert str(folder) in str(caught.value)
    assert f"it lacks {file.replace('model', '*')}" in str(caught.value)


def test_a_folder_that_lacks_a_shard(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "here", "model.safetensors")
    (folder / "model-1-of-2.safetensors").touch()
    index = folder / "model.safetensors.index.json"
    index.write_bytes(NEEDED[index.name])
    with pytest.raises(CheckpointInvalid, match=r"it lacks model-2-of-2\.safetensors"):
        find_checkpoint(str(folder))
    for damaged in (b"{", b"[]", b"{}", b'{"weight_map": 1}', b"\xff"):
        index.write_bytes(damaged)
        with pytest.raises(CheckpointInvalid, match=r"index\.json is damaged"):
            find_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["./org/name", "../name", ".", "/org/name", "~/org/name", "~nobody-here/name"])
def test_a_path_is_never_a_hub_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CheckpointInvalid if name == "." else CheckpointNotFound, match=r"folder|lacks"):
        find_checkpoint(name)


def test_a_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(CheckpointNotFound, match="There is no folder"):
        find_checkpoint(str(file))


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "qwen", "a/b/c", "org/", "org/two words", "org/name ", "org/-name", "org/a--b"),
        *("org/name.git", "https://huggingface.co/org/name", "org/na\0me", "org\\name", "org/" + "x" * 300),
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(CheckpointNotFound, match="neither a folder nor a name on the hub"):
        find_checkpoint(name)


def test_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert is_cached(NAME) is None
    folder = checkpoint(tmp_path / "models--tiny--reranker" / "snapshots" / COMMIT)
    assert is_cached(NAME, revision=COMMIT) == folder
    (folder / "tokenizer.json").unlink()
    assert is_cached(NAME, revision=COMMIT) is None
