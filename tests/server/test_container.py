"""A start as in a strict container: a user that no file names, no home, nothing writable, and Kubernetes' variables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from support.surfaces import RERANK

STRICT = """
mount --make-rprivate / && mount --bind /dev/null /etc/passwd && mount --bind /dev/null /etc/group || exit 9
[ -z "$VOLUME" ] || mount --bind "$VOLUME" "$VOLUME" || exit 9
mount -o remount,bind,ro / && mount -t tmpfs -o ro none /dev/shm || exit 9
exec unshare --user --map-user=12345 --map-group=12345 "$@"
"""

LINKS = {
    "RERANKD_SERVICE_HOST": "10.0.12.7",
    "RERANKD_SERVICE_PORT": "8000",
    "RERANKD_PORT": "tcp://10.0.12.7:8000",
    "RERANKD_PORT_8000_TCP": "tcp://10.0.12.7:8000",
    "RERANKD_REDIS": "",
}


def strictly(*command: str) -> list[str]:
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", STRICT, "sh", *command]


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """What the kernel, or the container that these tests run in, may not allow."""
    try:
        probe = subprocess.run(strictly("true"), capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if probe.returncode:
        pytest.skip(f"no user namespaces here: {probe.stderr.strip()}")


@contextmanager
def contained(*options: str, volume: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server's URL, and its log as it comes; only the volume is writable."""
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **LINKS, **_volume(volume)}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    command = strictly(sys.executable, "-m", "rerankd", "serve", "--port", "0", "--host", "127.0.0.1", *options)
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    log: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if "Ready:" in line:
                break
        [url] = re.findall(r"Listening on (http://\S+)", "".join(log))
        yield url, log
    finally:
        process.terminate()
        assert process.stderr is not None
        log += process.stderr.readlines()
        process.stderr.close()
        process.wait(60)


def _volume(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {}
    places = {"HF_HOME": "hub", "XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data", "TMPDIR": "tmp"}
    (folder / "tmp").mkdir(exist_ok=True)
    return {"VOLUME": str(folder), **{name: str(folder / place) for name, place in places.items()}}


def test_nothing_is_there() -> None:
    """The test means what it says."""
    code = (
        "import os, pathlib, pwd, tempfile\n"
        "for attempt in (lambda: pwd.getpwuid(os.getuid()), pathlib.Path.home, tempfile.gettempdir):\n"
        "    try: attempt()\n"
        "    except (KeyError, RuntimeError, OSError): print('none')\n"
    )
    ended = subprocess.run(strictly(sys.executable, "-c", code), env={}, capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["none"] * 3, ended.stderr


def test_the_embedded_model_is_served() -> None:
    with contained("--model", "embedded") as (url, log):
        assert len(RERANK.scores(httpx2.post(url + RERANK.path, json=RERANK.body(), timeout=60))) > 1
    text = "".join(log)
    assert "Traceback" not in text and "Ignored, since they are links to a service" in text and "Stopped" in text


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_qwen_is_served(dtype: str, make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(head_dim=128, hidden_size=64, intermediate_size=96)  # a shape that the kernels fit
    with contained("--model", str(folder), "--dtype", dtype, "--skip-self-test") as (url, log):
        assert len(RERANK.scores(httpx2.post(url + RERANK.path, json=RERANK.body(), timeout=60))) > 1
    assert "Traceback" not in "".join(log)


def test_d5_a_volume_for_caches_and_accounts_is_all_that_it_needs(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The root is read-only: any other write would fail. The second start finds what the first one made."""
    folder = make_checkpoint(head_dim=128, hidden_size=64, intermediate_size=96)
    volume = tmp_path / "volume"
    volume.mkdir()
    database = f"sqlite:///{volume / 'rerankd.db'}"

    def account(*arguments: str) -> str:
        command = strictly(sys.executable, "-m", "rerankd", *arguments, "--database", database)
        environment = {**os.environ, **_volume(volume)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout

    account("accounts", "create", "ada@example.org", "--no-password")
    key = account("keys", "create", "--account", "ada@example.org", "--name", "search").split()[-1]
    options = ("--model", str(folder), "--dtype", "int8", "--skip-self-test", "--accounts", "--database", database)
    kept = []
    for _ in range(2):
        with contained(*options, volume=volume) as (url, log):
            headers = {"authorization": f"Bearer {key}"}
            reply = httpx2.post(url + RERANK.path, json=RERANK.body(), headers=headers, timeout=60)
            assert len(RERANK.scores(reply)) > 1
        assert "Traceback" not in "".join(log)
        kept.append({path: path.stat().st_mtime_ns for path in (volume / "cache").rglob("int8-*")})
    assert kept[0] and kept[0] == kept[1], "the second start made the int8 weights again"
