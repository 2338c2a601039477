"""A model hub on loopback, and a home folder on which the real hub-loading code is called."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "tiny/reranker"
COMMIT = "c0ffee" * 6 + "c0ff"
TOKEN = "hf_secret"

NEEDED = {
    "config.json": b'{"model_type": "qwen3"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "merges.txt": b"a b",
    "vocab.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "modules.json": b"""[
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.LogitScore"}
    ]""",
    "1_LogitScore/config.json": b'{"true_token_id": 9693}',
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    ).encode(),
    "model-1-of-2.safetensors": b"first shard",
    "model-2-of-2.safetensors": b"second shard",
}
NOT_NEEDED = {
    "README.md": b"# read me",
    ".gitattributes": b"*",
    "pytorch_model.bin": b"pickle",
    "model.pt": b"pickle",
    "model.gguf": b"GGUF",
    "modeling_tiny.py": b"import os",
    "requirements.txt": b"torch",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "original/model.safetensors": b"another format",
}


class Hub(ThreadingHTTPServer):
    """What huggingface_hub needs of the hub. As there, weights are redirected to another origin."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.private = False
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cut_after: int | None = None  # close the connection after this many bytes, once
        self.stall_after: int | None = None  # send no more after this many bytes
        self.stopping = Event()
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self) -> list[str]:
        """The Range headers of the weight requests; "" where there was none."""
        return [headers.get("range", "") for _, path, headers in self.requests if path.startswith("/cdn/")]

    def stop(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            self.shutdown()
            self.server_close()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)  # through a proxy, the request line carries the whole URL
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.requests.append((self.command, path, headers))
        if path.startswith("/cdn/"):
            self.send_weights(path.removeprefix("/cdn/"))
        elif self.server.private and headers.get("authorization") != f"Bearer {TOKEN}":
            self.send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif re.fullmatch(rf"/api/models/{NAME}(/revision/(main|{COMMIT}))?", path):
            self.send_json({"id": NAME, "sha": COMMIT, "siblings": [self.sibling(file) for file in self.server.files]})
        elif re.fullmatch(rf"/api/models/{NAME}/tree/{COMMIT}", path):
            self.send_json([self.tree_entry(file) for file in self.server.files])
        elif (match := re.fullmatch(rf"/{NAME}/resolve/(main|{COMMIT})/(.+)", path)) and match[2] in self.server.files:
            self.send_file(match[2])
        elif path.startswith(f"/api/models/{NAME}/revision/"):
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def sibling(self, file: str) -> dict[str, Any]:
        body = self.server.files[file]
        lfs = {"sha256": sha256(body), "size": len(body), "pointerSize": 134}
        return {
            "rfilename": file,
            "size": len(body),
            "blobId": sha1(body),
            "lfs": lfs if is_lfs(file) else None,
        }

    def tree_entry(self, file: str) -> dict[str, Any]:
        body = self.server.files[file]
        lfs = {"lfs": {"oid": sha256(body), "size": len(body), "pointerSize": 134}} if is_lfs(file) else {}
        return {"type": "file", "path": file, "size": len(body), "oid": sha1(body), **lfs}

    def send_file(self, file: str) -> None:
        body = self.server.files[file]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha1(body)}"'}
        if is_lfs(file):
            headers |= {"X-Linked-Etag": f'"{sha256(body)}"', "X-Linked-Size": str(len(body))}
            self.send(
                302,
                b"",
                headers | {"Location": f"http://localhost:{self.server.server_port}/cdn/{sha256(body)}"},
            )
        else:
            self.send(200, body, headers)

    def send_weights(self, digest: str) -> None:
        body = next(body for body in self.server.files.values() if sha256(body) == digest)
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if first >= len(body):
            return self.send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        part, headers = body[first:], {}
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        if (stop := self.server.cut_after or self.server.stall_after) is None:
            return self.send(206 if headers else 200, part, headers)
        self.server.cut_after = None
        self.send(206 if headers else 200, part[:stop], headers, length=len(part))
        if self.server.stall_after is not None:
            self.server.stopping.wait()
        self.close_connection = True

    def send_json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):  # the client was killed
                self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def sha1(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


def is_lfs(file: str) -> bool:
    return file.endswith((".safetensors", ".bin"))


@dataclass(frozen=True)
class Outcome:
    path: Path | None
    error: str
    message: str
    shares: list[float]

    def files(self) -> dict[str, bytes]:
        assert self.path is not None, f"{self.error}: {self.message}"
        return {str(path.relative_to(self.path)): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}


class Machine:
    """A home folder with its own cache, on which find_checkpoint is called."""

    CALL = """
import json, sys
{before}
from rerankd.engine.loading.checkpoint import find_checkpoint
from rerankd.errors import ModelError
path = error = message = ""
shares = []
told = json.loads(sys.argv[3])
how = {{"offline": told.get("offline", False), "progress": shares.append if told.get("progress") else None}}
try:
    path = str(find_checkpoint(sys.argv[1], revision=sys.argv[2] or None, **how))
except ModelError as caught:
    error, message = type(caught).__name__, str(caught)
print(json.dumps([path, error, message, shares]))
"""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repo = home / "hf" / "hub" / "models--tiny--reranker"

    def start(
        self,
        endpoint: str,
        name: str = NAME,
        revision: str = "",
        before: str = "",
        stderr: int = subprocess.PIPE,
        told: dict[str, bool] | None = None,
        **env: str,
    ) -> subprocess.Popen[str]:
        inherited = {
            key: value for key, value in os.environ.items() if not re.search("^HF_|_proxy$|_OFFLINE$", key, re.I)
        }
        home = {"HOME": str(self.home), "HF_HOME": str(self.home / "hf"), "HF_ENDPOINT": endpoint}
        return subprocess.Popen(
            [sys.executable, "-c", self.CALL.format(before=before), name, revision, json.dumps(told or {})],
            env=inherited | home | env,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def find(self, endpoint: str, name: str = NAME, **kwargs: Any) -> Outcome:
        with self.start(endpoint, name, **kwargs) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        path, error, message, shares = json.loads(out)
        return Outcome(Path(path) if path else None, error, message, shares)
