"""`python -m support.quick` prints the arguments of the quick run: its workers, test files and folders.

They are the tests of the package's root, and the tests of what differs from the main branch.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

ALWAYS = ("tests/apis", *sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py")))

QUICK = "PYTEST_QUICK"
"""The variable that is set during a quick run."""


def skip_if_quick(reason: str) -> None:
    """Leaves the running test out of the quick run. A helper that starts a process calls this."""
    if QUICK in os.environ:
        pytest.skip(f"--quick: {reason}")


def changed_files() -> list[str]:
    """Files that differ from the branch point with main, and new files."""
    base = _git("merge-base", "HEAD", "main") or ["HEAD"]
    return _git("diff", "--name-only", base[0]) + _git("ls-files", "--others", "--exclude-standard")


def chosen(changed: list[str]) -> list[str]:
    """The test files that changed, and the test folder of each source folder that changed."""
    found = set(ALWAYS)
    for name in changed:
        path = Path(name)
        if path.match("tests/**/test_*.py") and not name.startswith("tests/third_party_clients"):
            found.add(name)
        elif name.startswith("src/rerankd/") and len(path.parts) > 3:
            found.add(f"tests/{path.parts[2]}")
    return sorted(name for name in found if (ROOT / name).exists())


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines()


if __name__ == "__main__":
    files = chosen(changed_files())
    # The files of `ALWAYS` take less time than the start of two workers.
    print("--numprocesses", 0 if set(files) == set(ALWAYS) else 2, *files)
