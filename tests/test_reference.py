"""docs/reference is what the code says: every setting, every command, and nothing that is stale."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rerankd.apis import facts
from rerankd.cli.examples import EXAMPLES
from rerankd.config import SECRETS, ServerSettings
from rerankd.setting import settings_of

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def test_the_pages_are_not_stale() -> None:
    command = [sys.executable, str(REFERENCE / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", settings_of(ServerSettings))
def test_every_setting_is_documented(name: str) -> None:
    page = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if f"`RERANKD_{name.upper()}`" in line]
    assert f"`{name}`" in row and name.replace("_", "-") in row
    assert (" *<br>" in row) == (name in SECRETS)


@pytest.mark.parametrize("command", EXAMPLES)  # a test of the command line holds that these are all
def test_every_command_is_documented(command: str) -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert any(line.lstrip("#") == f" {command}" for line in page.splitlines() if line.startswith("#"))
    assert all(example in page for example in EXAMPLES[command])


def test_the_shared_paths_are_explained() -> None:
    page = (REFERENCE.parent / "api.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`/[^|]*) \|", page, re.MULTILINE)
    paths = Counter(path for api in facts.ALL for path in api.paths)
    assert {path for row in table for path in re.findall("`(/.*?)`", row)} == {
        path for path in paths if paths[path] > 1
    }
