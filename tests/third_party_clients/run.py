"""Real clients, unmodified, against a running rerankd, each group of them in an environment of its own.

    python tests/third_party_clients/run.py                   # every group
    python tests/third_party_clients/run.py sdks langchain
    python tests/third_party_clients/run.py --lock sdks       # newer versions: requirements.txt → lock.txt

The clients' requirements conflict, so each folder here has its own `lock.txt`, and nothing else is installed
(`--no-deps`). Environments, logs and results lie in `.clients/`; an environment is kept while its lock and its Python
stay the same.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import httpx2

from compatibility import DOCUMENT, RESULTS, TITLES, with_tables

HERE = Path(__file__).parent
WORK = HERE.parent.parent / ".clients"
GROUPS = list(TITLES)
KEY = "test-key"
SERVERS = {
    "CLIENTS_SERVER": ("--api-key", KEY),
    "CLIENTS_OPEN_SERVER": (),
    "CLIENTS_LIMITED_SERVER": ("--requests-per-minute", "1"),
}
"""By the variable that tells the tests their address."""

START_TIMEOUT_S = 300
GROUP_TIMEOUT_S = 900

OURS = {"haystack": "test_haystack.py", "langchain": "test_langchain.py", "llamaindex": "test_llama_index.py"}
"""The tests of our own rerankers for a group's framework, in tests/integrations."""

IN_PART = {"lightrag"}
"""Applications of which only the rerank module is loaded: the lock, written by hand, has what that imports."""

JAVASCRIPT = "javascript"
"""The group that npm installs and Node runs."""

NOWHERE_ELSE = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
}
"""The clients talk to the server, and to nobody else."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--lock", action="store_true", help="write lock.txt from requirements.txt, test nothing")
    arguments = parser.parse_args()
    groups = arguments.groups or GROUPS
    if arguments.lock:
        for group in groups:
            lock(group)
        return 0
    with ExitStack() as stack:
        logs = {name: stack.enter_context(serving(name, *options)) for name, options in SERVERS.items()}
        for group in groups:
            install(group)
        urls = {name: wait_until_ready(log) for name, log in logs.items()}
        failed = [group for group in groups if not passes(group, urls)]
        failed += [OURS[group] for group in groups if group in OURS and not ours_passes(group, urls)]
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    elif groups == GROUPS and DOCUMENT.read_text() != with_tables(DOCUMENT.read_text()):
        print(f"{DOCUMENT.name} says something else than was seen: run make compatibility, and commit it.")
    else:
        print("Every client works.")
        return 0
    return 1


def install(group: str) -> None:
    """What the lock says and nothing else; does nothing if it is there."""
    if group == JAVASCRIPT:
        install_javascript()
        return
    wanted = f"{sys.version}\n{(HERE / group / 'lock.txt').read_text()}"
    stamp = WORK / group / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing the clients of {group} ...", flush=True)
    venv.create(WORK / group, clear=True, symlinks=True)
    pip(group, "install", "-qq", "--no-deps", "--no-compile", "--requirement", str(HERE / group / "lock.txt"))
    if group not in IN_PART:
        pip(group, "check")
    stamp.write_text(wanted)


def install_javascript() -> None:
    """What its package-lock.json says; the test is copied beside the packages, where Node looks for them."""
    folder, stamp = WORK / JAVASCRIPT, WORK / JAVASCRIPT / "installed"
    shutil.copytree(HERE / JAVASCRIPT, folder, dirs_exist_ok=True)
    wanted = (folder / "package-lock.json").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing the clients of {JAVASCRIPT} ...", flush=True)
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
    stamp.write_text(wanted)


def lock(group: str) -> None:
    """Pins what a fresh install of the requirements brings, setuptools too where they need it."""
    venv.create(WORK / group, clear=True, symlinks=True)
    if group in IN_PART or group == JAVASCRIPT:
        raise SystemExit(f"{group} is locked by hand, or by npm install --package-lock-only.")
    pip(group, "install", "-qq", "--requirement", str(HERE / group / "requirements.txt"))
    with (HERE / group / "lock.txt").open("w") as file:
        pip(group, "freeze", "--all", output=file)


def python_of(group: str) -> str:
    return str(WORK / group / "bin" / "python")


def pip(group: str, *arguments: str, output: TextIO | None = None) -> None:
    """Runs our own pip on a group's environment."""
    command = [sys.executable, "-m", "pip", "--python", python_of(group), "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=output)


@contextmanager
def serving(name: str, *options: str) -> Iterator[Path]:
    """Starts a server of the embedded model on a free port, and ends it; its log."""
    log = WORK / f"{name.lower()}.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "rerankd", "serve", "--model", "embedded", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # three servers and their clients on few cores
    with log.open("w") as stream, subprocess.Popen([*command, *options], stderr=stream, env=environment) as process:
        try:
            yield log
        finally:
            process.terminate()


def wait_until_ready(log: Path) -> str:
    """The address of the server that writes this log, once it can answer."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = re.search(r"Listening on (http://\S+)", log.read_text())
        if found and httpx2.get(f"{found[1]}/health", timeout=60).status_code == 200:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"The server does not start:\n{log.read_text()}")


def passes(group: str, urls: dict[str, str]) -> bool:
    """Runs a group's tests inside its environment."""
    print(f"\n{group}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    variables = {**urls, "CLIENTS_KEY": KEY, "CLIENTS_RESULTS": str(RESULTS / f"{group}.json")}
    if group == JAVASCRIPT:
        return javascript_passes(variables)
    return pytest_passes(group, variables, str(HERE / group))


def javascript_passes(variables: dict[str, str]) -> bool:
    command = ["node", "--test", str(WORK / JAVASCRIPT / "clients.test.js")]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, timeout=GROUP_TIMEOUT_S).returncode == 0


def ours_passes(group: str, urls: dict[str, str]) -> bool:
    """Runs the tests of our own reranker for a framework, of the client side only, from the source."""
    print(f"\n{OURS[group]}", flush=True)
    folder = HERE.parent / "integrations"
    variables = {
        "PYTHONPATH": str(HERE.parent.parent / "src"),
        "RERANKD_TEST_URL": urls["CLIENTS_SERVER"],
        "RERANKD_TEST_KEY": KEY,
        "RERANKD_TEST_PACKAGES": sysconfig.get_path("purelib"),  # torch, for a model in their process
    }
    return pytest_passes(group, variables, "--confcutdir", str(folder), str(folder / OURS[group]))


def pytest_passes(group: str, variables: dict[str, str], *arguments: str) -> bool:
    home = WORK / "home"  # no settings or keys of whoever runs this
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **NOWHERE_ELSE, **variables}
    command = [python_of(group), "-m", "pytest", "-c", str(HERE / "pytest.ini"), *arguments]
    return subprocess.run(command, env=environment, timeout=GROUP_TIMEOUT_S).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
