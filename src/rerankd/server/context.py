"""The parts of a server that its routes share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from rerankd.admission.gate import Gate
from rerankd.admission.identity import Authenticator
from rerankd.apis.registry import Routes
from rerankd.calibration.profile import Calibration
from rerankd.config import ServerSettings
from rerankd.prices import PriceFile
from rerankd.server.call_log import CallLog
from rerankd.server.metrics.metrics import Metrics
from rerankd.server.models import Models
from rerankd.tracing import Traces


@dataclass(frozen=True, slots=True)
class ServerContext:
    """Built once for each application.

    Attributes:
        routes: of the rerank APIs.
        traces: make the spans of calls.
        calls: keeps what becomes of each call; None without accounts.
        created: seconds since 1970.
    """

    settings: ServerSettings
    routes: Routes
    models: Models
    auth: Authenticator
    gate: Gate
    prices: PriceFile
    metrics: Metrics
    traces: Traces
    calls: CallLog | None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))


async def _context_of(request: Request) -> ServerContext:
    context: ServerContext = request.app.state.context
    return context


Context = Annotated[ServerContext, Depends(_context_of)]
"""The type of a route's parameter that receives the context."""
