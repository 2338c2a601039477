"""Java's default HTTP client, as Spring's RestClient and LangChain4j use it: it offers h2c to every server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.debian_server import require
from support.server import Server


@pytest.mark.parametrize("calls", [1, 50])
def test_the_default_client_of_java(calls: int, embedded_server: Server) -> None:
    java = require("java", "default-jdk-headless")
    command = [java, str(Path(__file__).parent / "Ask.java"), embedded_server.url, embedded_server.key, str(calls)]
    lines = subprocess.check_output(command, text=True, timeout=240).splitlines()
    assert len(lines) == calls
    for line in lines:
        status, version, body = line.split(" ", 2)
        assert (status, version) == ("200", "HTTP_1_1")
        assert json.loads(body)["results"][0]["index"] == 1
