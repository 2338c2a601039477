"""A router with the packages of `rerankd[router]`: no torch, no safetensors, no NumPy."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import httpx2

from support.upstream_server import UpstreamServer
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]

ABSENT = """
import sys
for name in ("torch", "safetensors", "transformers", "sentence_transformers", "numpy"):
    sys.modules[name] = None  # an import of it fails, as if it were not installed
from rerankd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_router_answers_without_torch() -> None:
    with UpstreamServer() as upstream:
        command = [sys.executable, "-c", ABSENT, "serve", "--port", "0", "--upstream", upstream.url]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as router:
            assert router.stderr is not None
            log: list[str] = []
            reader = threading.Thread(target=log.extend, args=(iter(router.stderr.readline, ""),))
            reader.start()
            try:
                wait_until(lambda: bool(re.search(r"Ready:", "".join(log))) or router.poll() is not None)
                [url] = re.findall(r"Listening on (http://\S+)", "".join(log))
                body = {"query": "Which planet has rings?", "documents": ["Saturn has rings.", "Mars is red."]}
                wait_until(lambda: httpx2.post(f"{url}/v1/rerank", json=body).status_code == 200)
                assert len(httpx2.post(f"{url}/v1/rerank", json=body).json()["results"]) == 2
            finally:
                router.terminate()
                router.wait(60)
                reader.join(60)
        assert "Traceback" not in "".join(log)


def test_the_extra_has_none_of_them() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.match(r"[\w-]+", one)[0] for one in extras["router"]}  # type: ignore[index]
    assert "uvicorn" in names and not names & {"torch", "safetensors", "transformers", "numpy"}
    assert "rerankd[router]" in extras["server"]
