"""`python -m support.quick` prints the test files and folders of the quick run.

They are the tests of the package's root, and the tests of what differs from the main branch.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

ALWAYS = ("tests/apis", *sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py")))


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
    print(*chosen(changed_files()))
