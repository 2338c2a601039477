"""Builds a wheel, installs it into a new environment without extras, and tries it there: `python tests/wheel.py`.

The other tests run on an editable install, in which a file that the wheel lacks is still found.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", name, str(ROOT))
        [wheel] = folder.glob("*.whl")
        _check_files(wheel)
        venv.create(folder / "env", symlinks=True)
        python = str(folder / "env" / "bin" / "python")
        constraints = str(ROOT / "constraints.txt")
        run(*pip, "--python", python, "install", "--quiet", "--constraint", constraints, str(wheel))
        version = run(str(folder / "env" / "bin" / "rerankd"), "--version", cwd=folder)
        imported = run(python, "-c", "import rerankd; print(rerankd.__file__)", cwd=folder)
        assert imported.startswith(str(folder)), imported
        print(f"{wheel.name}: {version.strip()} runs, import rerankd works, no file is missing.")


def _check_files(wheel: Path) -> None:
    """Every file that git keeps in the package is in the wheel."""
    kept = run("git", "ls-files", "src/rerankd", cwd=ROOT).split()
    missing = {name.removeprefix("src/") for name in kept} - set(zipfile.ZipFile(wheel).namelist())
    assert not missing, f"not in the wheel: {sorted(missing)}"


def run(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
