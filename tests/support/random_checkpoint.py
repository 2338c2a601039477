"""`make random-0.6B`: random weights in the shapes of the 0.6B, with the real tokenizer.

For commands that need a whole checkpoint where no hub can be reached. The tokenizer is rebuilt (qwen_tokenizer.py).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rerankd.bench.random_weights import random_checkpoint
from support.qwen_tokenizer import tokenizer_folder


def main(folder: Path) -> None:
    """Links the weights, which are large and kept in the user's cache folder."""
    folder.mkdir(parents=True)
    for file in random_checkpoint("0.6B").iterdir():
        (folder / file.name).symlink_to(file)
    with tempfile.TemporaryDirectory() as cache:
        for file in tokenizer_folder(Path(cache)).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
