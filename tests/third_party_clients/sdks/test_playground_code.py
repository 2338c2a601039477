"""The code that the playground copies for these packages, run with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.playground_code import scores_of_code


@pytest.mark.parametrize("name", ["cohere", "voyage"])
def test_the_playgrounds_code_runs(name: str, tmp_path: Path) -> None:
    first, second = scores_of_code(tmp_path, name, os.environ["CLIENTS_SERVER"], os.environ["CLIENTS_KEY"])
    assert first[1] == 1 and 1 >= first[0] >= second[0] >= 0
