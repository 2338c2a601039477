"""Follows the texts of calls of a running server: which files receive them, and which objects contain them.

    python tests/support/walk.py FOLDER_OF_A_CHECKPOINT

It runs `rerankd serve` in this process with a profile function, sends a usual call to /v1/rerank and one with passages,
and prints JSON, for each of the two:

- `files`: the files of src/rerankd with a function that has, in an argument or a local variable, the query or a
  document, its token ids, or an object of this call that leads to them through its fields.
- `holders`: the kinds of objects that have a document's text or token ids in a field of their own.
- `containers`: those, and the kinds of objects that lead to them. Lists, tuples and local variables do not count.
"""

from __future__ import annotations

import gc
import io
import json
import os
import re
import runpy
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

QUERY = "which island grows the cloves of the old spice trade"
DOCUMENTS = [
    "farmers on the island of Pemba harvest most cloves between August and November",
    "the harbour town ships nutmeg and cinnamon in wooden boats",
]
WARM_UP = {"query": "a first call", "documents": ["builds whatever is built once"]}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {"usual": ("", {}), "passages": (" again", {"passages": True})}
"""What is at the end of each document, so that the cache has no score of it, and the options of the call."""

MAX_DEPTH = 12
PORT = re.compile(r"Listening on http://127\.0\.0\.1:(\d+)")


class Texts:
    """Recognises a text, and the token ids of its middle, whatever is joined to its ends."""

    def __init__(self, texts: list[str], token_ids: list[list[int]]) -> None:
        self._texts = [text[2:-2] for text in texts]
        self._ids = [array("q", ids[2:-2]).tobytes() for ids in token_ids]

    def within(self, value: Any) -> bool:
        """Whether a text, bytes, or a sequence of integers contains one of them."""
        if isinstance(value, str):
            return any(text in value for text in self._texts)
        if isinstance(value, bytes | bytearray):
            return any(text.encode() in value for text in self._texts)
        if isinstance(value, array):
            return self._has_ids(value)
        return isinstance(value, list | tuple) and bool(value) and type(value[0]) is int and self._has_ids(value)

    def _has_ids(self, value: Any) -> bool:
        try:
            return any(ids in array("q", value).tobytes() for ids in self._ids)
        except TypeError:  # not all are integers
            return False


class Walk:
    """Looks at each function of rerankd when it is called and when it returns, on every thread."""

    def __init__(self, source: Path, every: Texts, documents: Texts) -> None:
        self._source, self._every, self._documents = str(source), every, documents
        gc.unfreeze()  # frozen objects are not listed
        self._older = {id(one) for one in gc.get_objects()}
        self._keep = gc.get_objects()  # so that no new object has the id of an older one
        self._lock = threading.Lock()
        self.files: set[str] = set()
        self.holders: set[str] = set()
        self.containers: set[str] = set()

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        path = frame.f_code.co_filename
        if event not in ("call", "return") or not path.startswith(self._source):
            return
        name = path.removeprefix(self._source + os.sep)
        with self._lock:
            values = list(frame.f_locals.values())
            if name not in self.files and any(self._leads_to(value, self._every, 0, set()) for value in values):
                self.files.add(name)
            for value in (*values, result):
                self._note(value, 0)

    def _leads_to(self, value: Any, texts: Texts, depth: int, seen: set[int]) -> bool:
        if texts.within(value):
            return True
        if depth > MAX_DEPTH or id(value) in seen or id(value) in self._older:
            return False
        seen.add(id(value))
        return any(self._leads_to(inner, texts, depth + 1, seen) for inner in _inside(value))

    def _note(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH or id(value) in self._older or not self._leads_to(value, self._documents, 0, set()):
            return
        if kind := _kind(value):
            self.containers.add(kind)
            if any(self._documents.within(one) for inner in _inside(value) for one in (inner, *_items(inner))):
                self.holders.add(kind)
        for inner in _inside(value):
            self._note(inner, depth + 1)


def _inside(value: Any) -> Iterator[Any]:
    """The items of a collection; the fields of an object of rerankd."""
    kind = type(value)
    if isinstance(value, list | tuple | set | frozenset):
        yield from list(value)[:1000]
    elif isinstance(value, Mapping) and kind.__module__ in ("builtins", "collections"):
        yield from [*value.keys(), *value.values()][:1000]
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, one.name, None) for one in fields(value))
    elif kind.__module__.startswith("rerankd"):
        slots = (name for base in kind.__mro__ for name in getattr(base, "__slots__", ()))
        yield from [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]


def _items(value: Any) -> Iterator[Any]:
    """What is in lists, tuples and JSON objects, and in those in them: they belong to the object that has them."""
    if isinstance(value, list | tuple | dict):
        for item in _inside(value):
            yield item
            yield from _items(item)


def _kind(value: Any) -> str | None:
    """The name of a kind of objects that counts as a container."""
    kind = type(value)
    if kind is dict:
        return next((f"dict with {key!r}" for key in ("documents", "results") if key in value), None)
    if kind.__module__.startswith("rerankd"):
        return f"{kind.__module__.removeprefix('rerankd.')}.{kind.__name__}"
    return None


class _Log(io.StringIO):
    """The server's log, which says where it listens."""

    port = ""

    def write(self, text: str) -> int:
        if found := PORT.search(text):
            self.port = found[1]
        return super().write(text)

    def reconfigure(self, **_: Any) -> None:
        """It is already what it should be."""


def post(port: str, path: str, body: Any) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def _wait_until_ready(log: _Log) -> None:
    while not log.port:
        time.sleep(0.05)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{log.port}/health", timeout=60)
            return
        except urllib.error.HTTPError:
            time.sleep(0.05)


def main(checkpoint: str) -> None:
    import rerankd

    source = Path(rerankd.__file__).parent
    walk: Walk | None = None

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if walk is not None:
            walk(frame, event, argument)

    def call() -> None:
        nonlocal walk
        _wait_until_ready(log)
        texts = [QUERY, *DOCUMENTS]
        ids = [post(log.port, "/tokenize", {"prompt": f" {text}"})["tokens"] for text in texts]
        post(log.port, "/v1/rerank", WARM_UP)
        found = {}
        for name, (end, options) in CALLS.items():
            walk = recording = Walk(source, Texts(texts, ids), Texts(texts[1:], ids[1:]))
            body = {"query": QUERY, "documents": [text + end for text in DOCUMENTS], **options}
            reply = post(log.port, "/v1/rerank", body)
            time.sleep(0.2)  # the server still counts the call
            walk = None
            assert len(reply["results"]) == len(DOCUMENTS)
            found[name] = {kind: sorted(getattr(recording, kind)) for kind in ("files", "holders", "containers")}
        print(json.dumps(found, indent=1), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    sys.stderr = log = _Log()
    threading.Thread(target=call, daemon=True).start()
    threading.setprofile(profile)
    sys.setprofile(profile)
    options = ("--model", checkpoint, "--dtype", "float32", "--skip-self-test", "--port", "0")
    sys.argv = ["rerankd", "serve", *options]
    runpy.run_module("rerankd", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
