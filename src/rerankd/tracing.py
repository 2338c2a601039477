"""OpenTelemetry traces: a span for each call, with children for its parts and for each upstream that it asks.

Off unless an OTLP endpoint is set: the SDK is not imported then. It reads its own variables:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. A span has names and numbers of this
program, never a text of a caller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from rerankd.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

FLUSH_MS = 5_000
"""At the end of the process."""

FIRST_SERVER_ERROR = 500


class CallSpan:
    """The span of one call; this one records nothing.

    Attributes:
        trace_id: 32 hexadecimal digits, for the log; None without a trace.
    """

    trace_id: str | None = None

    def part(self, name: str, began: float, ended: float) -> None:
        """Adds a child that is over. Times are by `time.monotonic()`."""

    def end(self, name: str, status: int, error: str | None, **attributes: object) -> None:
        """Names the span and sets its attributes, except those that are None.

        Args:
            status: of the reply, as HTTP has it.
            error: the class of the error; None for a success.
        """


NO_SPAN = CallSpan()

_current: ContextVar[_Recorded | None] = ContextVar("rerankd.tracing", default=None)


class Traces:
    """Makes the spans of calls. This one makes none."""

    @contextmanager
    def call(self, headers: Mapping[str, str]) -> Iterator[CallSpan]:
        """The span of a call, as long as the block runs.

        Args:
            headers: of the request: `traceparent` and `tracestate` name the caller's span
                (https://www.w3.org/TR/trace-context/).
        """
        yield NO_SPAN

    def close(self) -> None:
        """Sends what is left. Takes at most a few seconds."""


def open_traces(environment: Mapping[str, str]) -> Traces:
    """Traces as the variables of OpenTelemetry say: none without an endpoint."""
    if not any(environment.get(name, "").strip() for name in ENDPOINTS) or _is_disabled(environment):
        return Traces()
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        logger.warning("No traces: the protocol %s is not offered. Set %s=http/protobuf.", protocol, PROTOCOLS[1])
        return Traces()
    try:
        provider = _provider()
    except ImportError as error:
        logger.warning("No traces: the package %s is missing. pip install 'rerankd[otel]'", error.name)
        return Traces()
    logger.info("Traces are sent to the endpoint in %s", next(name for name in ENDPOINTS if environment.get(name)))
    return _SentTraces(provider)


@contextmanager
def attempt(upstream: str) -> Iterator[Mapping[str, str]]:
    """The span of a request to an upstream, in the running call.

    Args:
        upstream: its name in the settings.

    Yields:
        The headers that name the span to the upstream; none without a trace.
    """
    recorded = _current.get()
    if recorded is None:
        yield {}
        return
    with recorded.attempt(upstream) as headers:
        yield headers


def _is_disabled(environment: Mapping[str, str]) -> bool:
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _provider() -> TracerProvider:
    """Raises ImportError: a package is missing."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource({"service.name": "rerankd", "service.version": __version__})
    # Without its own defaults, which would name the service after the interpreter.
    resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class _SentTraces(Traces):
    """Sends spans in batches, on a thread of its own."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("rerankd", __version__)
        # Baggage is left out: it is a text of the caller, which no upstream gets.
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind

    @contextmanager
    def call(self, headers: Mapping[str, str]) -> Iterator[CallSpan]:
        parent = self._propagator.extract(headers)
        span = self._tracer.start_span("rerank", parent, self._kind.SERVER)
        recorded = _Recorded(self, span)
        token = _current.set(recorded)
        try:
            yield recorded
        finally:
            _current.reset(token)
            span.end()

    def child(self, parent: OtelSpan, name: str, began_ns: int | None = None, *, is_client: bool = False) -> OtelSpan:
        from opentelemetry.trace import set_span_in_context

        kind = self._kind.CLIENT if is_client else self._kind.INTERNAL
        return self._tracer.start_span(name, set_span_in_context(parent), kind, start_time=began_ns)

    def headers_of(self, span: OtelSpan) -> dict[str, str]:
        from opentelemetry.trace import set_span_in_context

        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(span))
        return headers

    def close(self) -> None:
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


class _Recorded(CallSpan):
    """A span that is sent, unless the sampler leaves it out."""

    def __init__(self, traces: _SentTraces, span: OtelSpan) -> None:
        self._traces, self._span = traces, span
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def part(self, name: str, began: float, ended: float) -> None:
        child = self._traces.child(self._span, name, self._at(began))
        child.end(self._at(ended))

    def end(self, name: str, status: int, error: str | None, **attributes: Any) -> None:
        self._span.update_name(name)
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if error is not None:
            _fail(self._span, error, is_ours=status >= FIRST_SERVER_ERROR)

    @contextmanager
    def attempt(self, upstream: str) -> Iterator[Mapping[str, str]]:
        span = self._traces.child(self._span, "upstream", is_client=True)
        span.set_attribute("rerankd.upstream", upstream)
        try:
            yield self._traces.headers_of(span)
        except BaseException as error:
            _fail(span, type(error).__name__, is_ours=True)
            raise
        finally:
            span.end()

    def _at(self, monotonic_s: float) -> int:
        return self._epoch_ns + round(monotonic_s * 1e9)


def _fail(span: OtelSpan, error: str, *, is_ours: bool) -> None:
    """A mistake of a caller is not a failure of the server (https://opentelemetry.io/docs/specs/semconv/http/http-spans/)."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", error)
    if is_ours:
        span.set_status(StatusCode.ERROR)
