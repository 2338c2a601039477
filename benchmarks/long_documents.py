"""What a document of 10 MB costs a server: seconds and memory of a call with passages, on several APIs, over HTTP.

    python benchmarks/long_documents.py                                   # the embedded model
    python benchmarks/long_documents.py --model ./random-0.6B --tokens 16 # 64 passages of 16 tokens each

For each kind of text a server of its own. `cut` is a call whose passages have `--tokens` tokens, so that its time is
that of reading and cutting; `whole` one with `"passages": true`, whose 64 passages are as long as the model reads.
`peak` is what the memory grew by at its peak, and that in multiples of the text. A call is answered or refused:
the status says which.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

SENTENCES = {
    "English": "The harbour town ships nutmeg and cinnamon in wooden boats. ",
    "Chinese": "港口小镇用木船运送肉豆蔻和肉桂。",
    "no ends": "nutmeg cinnamon ",
    "one word": "x",
    "quotes": '"',
}
PATHS = {
    "/v1/rerank": ("query", "documents", "passages"),
    "/compatible-api/v1/reranks": ("query", "documents", "passages"),
    "/cohere/v1/rerank": ("query", "documents", "passages"),
    "/tei/rerank": ("query", "texts", "passages"),
    "/jina/v1/rerank": ("query", "documents", "passages"),
    "/nim/v1/ranking": ("query", "passages", "passage_options"),
}
MEGABYTE = 1_000_000


@contextmanager
def serving(model: str) -> Iterator[tuple[str, int]]:
    """A server: its address and its process."""
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", "--model", model, "--skip-self-test"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield _ready(process), process.pid
        finally:
            process.terminate()
            process.wait()


def _ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"Listening on (\S+)", line):
            while httpx2.get(f"{found[1]}/health").status_code != 200:
                time.sleep(0.2)
            # A full pipe stops the server at its next line of the access log.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[1]
    raise SystemExit("The server ended.")


def memory(pid: int, field: str) -> float:
    """In megabytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / MEGABYTE


def measure(url: str, pid: int, path: str, text: str, tokens: int | None) -> tuple[int, float, float]:
    """(status, seconds, megabytes at the peak over those before) of one call."""
    query, documents, passages = PATHS[path]
    body = {
        "model": "qwen3-rerank",
        query: "Where are cloves grown?",
        documents: [text],
        passages: {"max_tokens": tokens} if tokens else True,
    }
    content = json.dumps(body, ensure_ascii=False).encode()
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins now
    before, started = memory(pid, "VmRSS"), time.monotonic()
    headers = {"content-type": "application/json"}
    reply = httpx2.post(url + path, content=content, headers=headers, timeout=3600)
    return reply.status_code, time.monotonic() - started, memory(pid, "VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--tokens", type=int, default=16, help="of a passage, for `cut`")
    parser.add_argument("--whole", action="store_true", help="also with passages as long as the model reads")
    parser.add_argument("--megabytes", type=int, default=10)
    args = parser.parse_args()
    size = args.megabytes * MEGABYTE
    print(f"load {os.getloadavg()[0]:.1f}; {args.model}; texts of {args.megabytes} MB")
    for name, sentence in SENTENCES.items():
        text = sentence * (size // len(sentence.encode()))
        with serving(args.model) as (url, pid):
            for path in PATHS:
                for kind, tokens in (("cut", args.tokens), *((("whole", None),) if args.whole else ())):
                    status, seconds, peak = measure(url, pid, path, text, tokens)
                    row = (
                        name,
                        path,
                        kind,
                        str(status),
                        f"{seconds:.1f} s",
                        f"{peak:.0f} MB",
                        f"{peak / args.megabytes:.1f}",
                    )
                    print("  ".join(f"{cell:>10}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
