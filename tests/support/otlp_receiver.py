"""A receiver of OpenTelemetry's protocol over HTTP, as collectors have one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """One span. Ids are hexadecimal; `parent` is empty for a root; `service` is the resource's name."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    failed: bool
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    service: str


class OtlpReceiver:
    """Listens on the loopback interface; to be used in `with`. content: every byte that came."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.content = b""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> OtlpReceiver:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str) -> list[ReceivedSpan]:
        """The spans of a name that have come so far."""
        return [span for span in list(self.spans) if span.name == name]

    def _take(self, content: bytes) -> None:
        self.content += content
        for group in ExportTraceServiceRequest.FromString(content).resource_spans:
            [service] = [one.value.string_value for one in group.resource.attributes if one.key == "service.name"]
            self.spans += [_received(span, service) for scope in group.scope_spans for span in scope.spans]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                receiver._take(self.rfile.read(int(self.headers["content-length"])))
                content = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _received(span: Any, service: str) -> ReceivedSpan:
    attributes = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
    return ReceivedSpan(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.kind,
        span.status.code == 2,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        attributes,
        service,
    )
