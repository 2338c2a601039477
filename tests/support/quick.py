"""`python -m support.quick` prints the arguments of the quick run: its workers, test files and folders.

They are the tests of the package's root, the tests that differ from the main branch, and of the tests in the folder of
each source file that differs, those that import it, directly or through other modules.
"""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

TESTS, SOURCE = ROOT / "tests", ROOT / "src"

ALWAYS = ("tests/apis", *sorted(f"tests/{path.name}" for path in TESTS.glob("test_*.py")))

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
    """The test files that changed, and the test files that import a changed source file."""
    found = set(ALWAYS)
    for name in changed:
        path = Path(name)
        if path.match("tests/**/test_*.py") and not name.startswith("tests/third_party_clients"):
            found.add(name)
        elif name.startswith("src/rerankd/") and len(path.parts) > 3:
            found |= set(_tests_of(ROOT / name))
    return sorted(name for name in found if (ROOT / name).exists())


def _tests_of(source: Path) -> Iterator[str]:
    """The tests, in the folder of its part, of a source file; of a template, say, those of the modules beside it."""
    beside = {source} if source.suffix == ".py" else set(source.parent.glob("*.py"))
    for test in (TESTS / source.relative_to(SOURCE).parts[1]).rglob("test_*.py"):
        if not beside.isdisjoint(_reached(test)):
            yield test.relative_to(ROOT).as_posix()


@cache
def _reached(test: Path) -> frozenset[Path]:
    """The files of this repository that a test file imports, directly or not."""
    reached: set[Path] = set()
    waiting = {test, test.parent / "conftest.py"}
    while waiting:
        file = waiting.pop()
        reached.add(file)
        waiting |= _imported(file) - reached
    return frozenset(reached)


@cache
def _imported(file: Path) -> frozenset[Path]:
    """The files of this repository that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())) if file.is_file() else ():
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    paths = (root / f"{name.replace('.', '/')}.py" for name in names for root in (SOURCE, TESTS))
    return frozenset(path for path in paths if path.is_file())


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines()


if __name__ == "__main__":
    files = chosen(changed_files())
    # The files of `ALWAYS` take less time than the start of two workers.
    print("--numprocesses", 0 if set(files) == set(ALWAYS) else 2, *files)
