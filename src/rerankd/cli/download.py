"""`rerankd download MODEL`: puts a model where `rerankd serve` finds it without the hub."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rerankd.cli.progress import LoadingBar
from rerankd.engine.checkpoint import find_checkpoint
from rerankd.engine.open import AUTO_MODEL
from rerankd.errors import SettingsError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="auto", help=f"a name on the hub, or 'auto': {AUTO_MODEL}")
    parser.add_argument("--revision", help="a branch, tag or commit (default: the newest)")
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="also copy it into this folder, for images and machines without a hub"
    )
    parser.add_argument("--offline", action="store_true", help="do not ask the hub: is it complete in the cache?")


def run(options: argparse.Namespace) -> int:
    name = AUTO_MODEL if options.model == "auto" else options.model
    target: Path | None = options.to
    if target is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingsError(f"{target} exists and is not empty: pass --to with another folder.")
    with LoadingBar() as bar:
        folder = find_checkpoint(
            name,
            revision=options.revision,
            offline=options.offline,
            progress=lambda share: bar(f"downloading {name}", share),
        )
    if target is not None:
        shutil.copytree(folder, target, dirs_exist_ok=True)  # the cache's links become files
    print(target or folder)
    return 0
