"""`rerankd download MODEL`: puts a model where `rerankd serve` finds it without the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.options import FLAG, command
from rerankd.cli.progress import LoadingBar
from rerankd.errors import SettingsError

app = command("download")


@app.default
def download(
    model: str = "auto",
    /,
    *,
    revision: Annotated[str | None, Parameter(metavar="REVISION")] = None,
    to: Annotated[Path | None, Parameter(metavar="FOLDER")] = None,
    offline: Annotated[bool, FLAG] = False,
    embedder: Annotated[bool, FLAG] = False,
) -> int:
    """Download a model.

    Args:
        model: a name on the hub, or 'auto': Qwen/Qwen3-Reranker-0.6B
        revision: branch, tag or commit (default: the newest)
        to: also copy it into this folder, for images and machines without a hub
        offline: check the cache only: is the model complete there?
        embedder: it is an embedding model, for the first stage of a search
    """
    from rerankd.engine.loading.checkpoint import find_checkpoint
    from rerankd.engine.loading.open import AUTO_MODEL

    name = AUTO_MODEL if model == "auto" else model
    if to is not None and to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SettingsError(f"{to} exists and is not empty: pass --to with another folder.")
    with LoadingBar() as bar:
        folder = find_checkpoint(
            name,
            revision=revision,
            offline=offline,
            progress=lambda share: bar(f"downloading {name}", share),
            embedding=embedder,
        )
    if to is not None:
        shutil.copytree(folder, to, dirs_exist_ok=True)  # the cache's links become files
    print(to or folder)
    return 0
