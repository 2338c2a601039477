"""Fixtures: the server that the integrations ask.

Their packages conflict with each other and with ours, so these tests are skipped where they are missing. In an
environment of their own they need rerankd without extras, and a running server: RERANKD_TEST_URL, RERANKD_TEST_KEY.
What a model in this process needs is taken from the folder RERANKD_TEST_PACKAGES, after their own packages.

    pytest -c tests/third_party_clients/pytest.ini --confcutdir tests/integrations tests/integrations/test_langchain.py

(No conftest.py: the other tests import theirs by that name.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from rerankd import Client

if packages := os.environ.get("RERANKD_TEST_PACKAGES"):
    sys.path.append(packages)


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(URL, key) of a server of the embedded model."""
    if url := os.environ.get("RERANKD_TEST_URL"):
        return url, os.environ.get("RERANKD_TEST_KEY", "")
    server = request.getfixturevalue("embedded_server")
    return server.url, server.key


@pytest.fixture
def client(address: tuple[str, str]) -> Iterator[Client]:
    """Asks it."""
    with Client(*address) as client:
        yield client
