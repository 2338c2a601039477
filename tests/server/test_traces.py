"""Traces, as a collector receives them from a running server; and nothing of them without an endpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from support.otlp_receiver import OtlpReceiver, ReceivedSpan
from support.server import Server, StartServer
from support.surfaces import RERANK
from support.upstream_server import UpstreamServer

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, as OTLP numbers them."""

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE}-{PARENT}-01"
QUERY = "a query that nobody else may read"


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(start_server: StartServer, receiver: OtlpReceiver) -> Server:
    return start_server("--model", "embedded", "--log-format", "json", env=variables(receiver))


def variables(receiver: OtlpReceiver, **more: str) -> dict[str, str]:
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    return {**os.environ, **own, **more}


def trace_of(server: Server, receiver: OtlpReceiver, trace: str) -> dict[str, ReceivedSpan]:
    """The spans of a trace by name, once that of the call has come: a parent ends last, and is sent with the others."""

    def spans() -> list[ReceivedSpan]:
        return [span for span in list(receiver.spans) if span.trace == trace]

    server.wait_until(lambda: any(span.kind == SERVER for span in spans()))
    return {span.name: span for span in spans()}


def test_a_call_is_a_span_with_its_parts(server: Server, receiver: OtlpReceiver) -> None:
    headers = {"traceparent": CALLER, "baggage": "secret=value", "x-request-id": "an-id-of-the-caller"}
    body = RERANK.body(query=QUERY)
    assert httpx2.post(server.url + RERANK.path, json=body, headers=headers, timeout=60).status_code == 200
    spans = trace_of(server, receiver, TRACE)
    call = spans.pop("POST /v1/rerank")
    assert (call.kind, call.parent, call.failed, call.service) == (SERVER, PARENT, False, "rerankd")
    assert call.attributes.pop("rerankd.tokens") > 0
    assert call.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/rerank",
        "http.response.status_code": 200,
        "rerankd.dialect": "vllm-rerank",
        "rerankd.model": "embedded-multilingual",
        "rerankd.documents": len(body["documents"]),
        "rerankd.warnings": 0,
    }
    assert spans.keys() == {"prepare", "queue", "compute"}
    assert all((span.kind, span.parent) == (INTERNAL, call.id) for span in spans.values())
    prepare, queue, compute = spans["prepare"], spans["queue"], spans["compute"]
    times = (call.began_ns, prepare.began_ns, prepare.ended_ns, queue.began_ns, queue.ended_ns)
    slack_ns = 1_000_000_000  # the two clocks of the operating system are not read at one moment
    assert list(times) == sorted(times) or max(b - a for a, b in zip(sorted(times), times, strict=True)) < slack_ns
    assert queue.ended_ns == compute.began_ns <= compute.ended_ns
    for text in (QUERY, "an-id-of-the-caller", "secret", *body["documents"]):
        assert text.encode() not in receiver.content
    server.wait_until(lambda: any(f'"trace": "{TRACE}"' in line for line in server.log))


def test_a_callers_mistake_has_an_error_and_is_no_failure(server: Server, receiver: OtlpReceiver) -> None:
    trace = "11111111111111111111111111111111"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    assert httpx2.post(server.url + RERANK.path, json={"documents": 1}, headers=headers).status_code == 400
    [call] = trace_of(server, receiver, trace).values()
    assert call.attributes["error.type"] == "InvalidRequest" and not call.failed


def test_an_unsampled_trace_is_not_sent(server: Server, receiver: OtlpReceiver) -> None:
    unsampled, sampled = "2" * 32, "3" * 32
    for trace, flag in ((unsampled, "00"), (sampled, "01")):
        headers = {"traceparent": f"00-{trace}-{PARENT}-{flag}"}
        assert httpx2.post(server.url + RERANK.path, json=RERANK.body(), headers=headers).status_code == 200
    trace_of(server, receiver, sampled)
    assert not [span for span in receiver.spans if span.trace == unsampled]


def test_an_upstream_gets_the_span_that_asks_it(start_server: StartServer, receiver: OtlpReceiver) -> None:
    trace = "4" * 32
    with UpstreamServer() as stand_in:
        options = ("--upstream", f"{stand_in.url}/v1")
        router = start_server(*options, env=variables(receiver, OTEL_SERVICE_NAME="router"))
        headers = {"traceparent": f"00-{trace}-{PARENT}-01", "baggage": "secret=value", "tracestate": "vendor=1"}
        ranked = httpx2.post(router.url + "/v1/rerank", json=RERANK.body(), headers=headers, timeout=60)
        spans = trace_of(router, receiver, trace)
        call, attempt = spans["POST /v1/rerank"], spans["upstream"]
        assert call.service == "router" and call.attributes["http.response.status_code"] == ranked.status_code
        assert (attempt.kind, attempt.parent) == (CLIENT, call.id) and attempt.attributes["rerankd.upstream"]
        [asked] = [one for one in stand_in.asked if trace in one.headers.get("traceparent", "")]
    assert asked.headers["traceparent"] == f"00-{trace}-{attempt.id}-01"
    assert asked.headers["tracestate"] == "vendor=1" and "baggage" not in asked.headers


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the protocol grpc is not offered"),
        ({"OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_what_is_not_offered_or_switched_off_sends_nothing(
    more: dict[str, str], words: str, start_server: StartServer
) -> None:
    with OtlpReceiver() as own:
        server = start_server("--model", "embedded", env=variables(own, **more))
        assert httpx2.post(server.url + RERANK.path, json=RERANK.body(), timeout=60).status_code == 200
        server.end()
    assert not own.content
    assert any(words in line for line in server.log)


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = (
        "import os, sys, rerankd.cli.serving\n"
        "from rerankd.tracing import open_traces\n"
        "with open_traces(os.environ).call({}) as span: print(span.trace_id)\n"
        "loaded = ('opentelemetry.sdk', 'opentelemetry.exporter', 'google.protobuf')\n"  # FastAPI loads the API
        "print([name for name in sys.modules if name.startswith(loaded)])\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    printed = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == ["None", "[]"]


def test_a_missing_package_is_told_and_does_not_stop_the_server() -> None:
    code = (
        "import logging, sys\n"
        "sys.modules['opentelemetry.exporter'] = None\n"
        "logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')\n"
        "from rerankd.tracing import open_traces\n"
        "with open_traces({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'}).call({}) as span: pass\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("No traces: the package opentelemetry.exporter") and "rerankd[otel]" in printed
