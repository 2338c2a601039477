"""The status routes of the APIs, as HTTP. `rerankd.apis` defines their replies and errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from rerankd.admission.identity import Authenticator
from rerankd.apis.base import Api
from rerankd.apis.status import StatusRoute, meaning
from rerankd.config import ServerSettings
from rerankd.errors import ModelNotFound, Unauthorized, Unavailable
from rerankd.server.api_errors import error_response
from rerankd.server.models import Models
from rerankd.types import ModelInfo


class _Server:
    """The server as an API sees it (`apis.status.ServerView`)."""

    def __init__(self, models: Models, settings: ServerSettings, auth: Authenticator) -> None:
        self._models = models
        self._auth = auth
        self.max_queue = settings.max_queue
        self.started = int(time.time())

    @property
    def info(self) -> ModelInfo:
        return self._models.default.scorer.info

    @property
    def names(self) -> Mapping[str, ModelInfo]:
        self._models.default.scorer  # noqa: B018  # raises Loading
        return {name: served.scorer.info for name, served in self._models.names().items()}

    @property
    def queued(self) -> Mapping[str, int]:
        return {served.scorer.info.name: served.engine.num_queued for served in self._models}

    @property
    def max_batch_tokens(self) -> int:
        return self._models.default.engine.max_batch_tokens

    @property
    def needs_key(self) -> bool:
        return self._auth.needs_key

    def find(self, name: str) -> ModelInfo:
        served, _ = self._models.find(name)
        return served.scorer.info


def api_status_routes(
    apis: Iterable[Api[Any]], models: Models, settings: ServerSettings, auth: Authenticator
) -> APIRouter:
    """The status routes of each API."""
    router = APIRouter(tags=["status"])
    server = _Server(models, settings, auth)
    for api in apis:
        for route in api.status_routes():
            router.add_api_route(
                route.path,
                _endpoint(api, route, server, auth),
                methods=["GET"],
                summary=route.summary,
                responses={status: {"description": meaning(status)} for status in route.statuses},
                response_class=Response if route.is_empty else JSONResponse,
            )
    return router


def _endpoint(
    api: Api[Any], route: StatusRoute, server: _Server, auth: Authenticator
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            if route.needs_key:
                await auth.identify(request)
            body = route.answer(server, request.path_params.get("name", ""))
        except (Unauthorized, Unavailable, ModelNotFound) as error:
            return error_response(api, error, str(uuid.uuid4()))
        return Response() if body is None else JSONResponse(body)

    return endpoint
