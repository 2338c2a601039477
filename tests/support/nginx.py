"""Debian's nginx in front of a server, as people configure it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from support.debian_server import require, running
from support.ports import free_port

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream reranker {{
        server {upstream};
        keepalive 16;
        keepalive_timeout 60s;
    }}
    server {{
        listen 127.0.0.1:{port};
        location {location} {{
            proxy_pass http://reranker{target};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            {more}
        }}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: str, location: str = "/", target: str = "", more: str = "") -> Iterator[str]:
    """Runs it; the address under which it listens.

    Args:
        upstream: HOST:PORT, or unix:FILE.
        target: what a location is replaced by, '' to pass the path on as it is.
        more: lines for the location.
    """
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(**locals()))
    program = require("nginx", "nginx", "/usr/sbin")
    with running([program, "-e", str(folder / "error.log"), "-c", str(file)], lambda: _listens(port), folder / "log"):
        yield f"http://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    try:
        httpx2.get(f"http://127.0.0.1:{port}/", timeout=5)
    except httpx2.TransportError:
        return False
    return True
