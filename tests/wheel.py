"""Builds a wheel, installs it into a new environment without extras, and tries it there: `python tests/wheel.py`.

The other tests run on an editable install, in which a file that the wheel lacks is still found. Where this machine can
compile the kernels into the wheel, they are tried without a compiler, and damaged; that needs this Python's torch.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
CONSTRAINTS = ["--constraint", str(ROOT / "constraints.txt")]
INSTALLED = "rerankd/engine/qwen3/kernels/installed"
KERNELS = {"amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx2"}

WHERE = """
import logging, sys, torch
from rerankd.engine.loading.devices import instruction_sets
from rerankd.engine.qwen3.kernels.choice import choose_kernels
from rerankd.engine.qwen3.kernels.kinds import KINDS
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
for dtype in torch.bfloat16, torch.float32:
    best = [kind.name for kind in KINDS if kind.dtype == dtype and kind.instruction_sets <= set(instruction_sets())]
    chosen = choose_kernels(dtype)
    print(best[0] if best else "plain", chosen.kind.name if chosen else "plain", chosen.library._name if chosen else "")
"""
"""Prints for each dtype: the best kind for this processor, the chosen one, and its library."""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        check_files(wheel)
        venv.create(folder / "env", symlinks=True)
        python = folder / "env" / "bin" / "python"
        run(*PIP, "--python", str(python), "install", "--quiet", *CONSTRAINTS, str(wheel))
        version = run(str(folder / "env" / "bin" / "rerankd"), "--version", cwd=folder)
        imported = run(str(python), "-c", "import rerankd; print(rerankd.__file__)", cwd=folder)
        assert imported.startswith(str(folder)), imported
        print(f"{wheel.name}: {version.strip()} runs, import rerankd works, no file is missing.")
        if compiles():
            check_tag(wheel, folder)
            check_kernels(python, folder)


def build(folder: Path) -> Path:
    run(*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    [wheel] = folder.glob("*.whl")
    return wheel


def compiles() -> bool:
    """Whether hatch_build.py compiles the kernels on this machine."""
    return (platform.system(), platform.machine()) == ("Linux", "x86_64") and shutil.which("c++") is not None


def check_files(wheel: Path) -> None:
    """The wheel has every file that git keeps in the package, and every kind of kernels."""
    kept = run("git", "ls-files", "src/rerankd", cwd=ROOT).split()
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = {name.removeprefix("src/") for name in kept} - names
    assert not missing, f"not in the wheel: {sorted(missing)}"
    kinds = {Path(name).name.split("-")[0] for name in names if name.startswith(INSTALLED)}
    assert kinds == (KERNELS if compiles() else set()), kinds


def check_tag(wheel: Path, folder: Path) -> None:
    """The compiled kernels need no more of the system than the wheel's name says."""
    venv.create(folder / "audit", symlinks=True)
    python = str(folder / "audit" / "bin" / "python")
    run(*PIP, "--python", python, "install", "--quiet", *CONSTRAINTS, "auditwheel")
    report = " ".join(run(python, "-m", "auditwheel", "show", str(wheel)).split())
    needed = re.search(r'platform tag: "manylinux_(\d+)_(\d+)_x86_64"', report)
    given = re.search(r"manylinux_(\d+)_(\d+)_x86_64", wheel.name)
    assert needed and given and [*map(int, needed.groups())] <= [*map(int, given.groups())], report
    print(f"auditwheel: the compiled kernels need {needed[0]}.")


def check_kernels(python: Path, folder: Path) -> None:
    if find_spec("torch") is None:
        print("The kernels are not tried: this Python has no torch.")
        return
    [packages] = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch, and what it needs
    libraries = sorted((packages / INSTALLED).iterdir())
    for best, chosen, library in kernels(python, folder, "without a compiler"):
        assert chosen == best and (chosen == "plain" or Path(library).parent == packages / INSTALLED), library
    for damaged in libraries:
        damaged.write_bytes(damaged.read_bytes()[:5000])
    assert {chosen for _, chosen, _ in kernels(python, folder, "damaged, without a compiler")} == {"plain"}
    for best, chosen, library in kernels(python, folder, "damaged, with a compiler", os.environ["PATH"]):
        assert chosen == best and not library.startswith(str(packages)), library
    print("The wheel's kernels run without a compiler; damaged ones are not loaded.")


def kernels(python: Path, folder: Path, title: str, path: str = "") -> list[tuple[str, str, str]]:
    """For each dtype: the best kind for this processor, the chosen one, and its library."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        environment = {"PATH": path, "XDG_CACHE_HOME": cache, "HOME": cache}
        output = run(str(python), "-c", WHERE, cwd=folder, environment=environment)
    print(f"{title}:\n{output}", end="")
    return [(best, chosen, "".join(library)) for best, chosen, *library in map(str.split, output.splitlines())]


def run(*command: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
