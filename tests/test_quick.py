"""The quick run: which tests it chooses, and that they load no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.quick import ALWAYS, chosen

TESTS = Path(__file__).parent

PROBE = """
import sys, pytest
pytest.main([*sys.argv[1:], "-q", "-p", "no:cacheprovider"])
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_a_changed_file_brings_the_tests_that_import_it() -> None:
    assert chosen([]) == sorted(ALWAYS)
    assert set(chosen(["tests/client/test_use.py", "README.md"])) - set(ALWAYS) == {"tests/client/test_use.py"}
    of_keys = set(chosen(["src/rerankd/accounts/keys.py"])) - set(ALWAYS)
    assert "tests/accounts/test_keys.py" in of_keys
    assert all(name.startswith("tests/accounts/") for name in of_keys)
    of_batching = chosen(["src/rerankd/engine/batching.py"])
    assert "tests/engine/test_batching.py" in of_batching and "tests/engine/test_tokenising.py" not in of_batching
    assert "tests/engine/test_kernels.py" in chosen(["src/rerankd/engine/qwen3/kernels/layers.h"])


def test_a_test_of_prices_loads_neither_torch_nor_transformers() -> None:
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-c", PROBE, str(TESTS / "test_prices.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, env=environment)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_an_unexpected_skip_fails_in_ci(tmp_path: Path) -> None:
    module = tmp_path / "test_skipping.py"
    module.write_text("import pytest\n\ndef test_it(): pytest.skip('no moon tonight')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "support.selection", "-p", "no:cacheprovider", str(module)]
    outcomes = []
    for ci in ("", "1"):
        environment = {**os.environ, "CI": ci, "PYTHONPATH": str(TESTS), "PYTEST_ADDOPTS": ""}
        outcomes.append(subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode)
    assert outcomes == [0, 1]
