"""The code that the playground copies, made by the page's own module in Node, and run.

Needs no package of ours: the environments of the clients run it too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATIC = Path(__file__).resolve().parents[2] / "src" / "rerankd" / "web" / "static"
MODULES = ("snippets.js", "python-code.js")

MAKE = """
import { readFileSync } from "node:fs";
import { snippet } from "./snippets.js";

const { name, call, server } = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(snippet(name, call, server));
"""

CALL: Mapping[str, Any] = {
    "model": "qwen3-rerank",
    "query": 'What\'s the \\ "capital" of China? 中国 🐼',
    "documents": ["Gravity is a force.", "The capital of China\nis Beijing.", "Paris: $HOME `id` \u2028 {0} %s"],
    "top_n": 2,
    "instruct": 'Given a "question", find\nits answer',
}
"""With characters that end strings, lines and templates."""


def scores_of_code(folder: Path, name: str, url: str, key: str) -> list[tuple[float, int]]:
    """Runs the code for CALL, as `name` of the page's list: (score, index) of each line that it prints.

    Args:
        folder: an empty one.
    """
    for module in MODULES:
        shutil.copy(STATIC / module, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "make.js").write_text(MAKE)
    asked = json.dumps({"name": name, "call": CALL, "server": {"origin": url, "needsKey": True}})
    made = subprocess.run(["node", "make.js"], cwd=folder, input=asked, capture_output=True, text=True, check=True)
    code = folder / "code.py"
    code.write_text(made.stdout, encoding="utf-8")
    environment = {**os.environ, "RERANKD_API_KEY": key, "NO_PROXY": "*"}
    done = subprocess.run([sys.executable, str(code)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(float(line[0]), int(line[1])) for line in lines]
