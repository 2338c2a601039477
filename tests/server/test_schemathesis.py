"""schemathesis against the API's own description: no 5xx, no undocumented status, every reply as described."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rerankd.app import create_app
from rerankd.config import ServerSettings
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from support.server import Server

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def _never(_: Any) -> Any:
    raise AssertionError("only the description is asked for")


DESCRIPTION = create_app(ServerSettings(), Models(ServedModel(_never))).openapi()
OPERATIONS = [
    result.ok()
    for result in schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations()
    if isinstance(result, Ok)  # test_every_path_is_tried counts them
]


def test_every_path_is_tried() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in DESCRIPTION["paths"].values()) > 20


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_every_operation_keeps_its_word(operation: Any, embedded_server: Server) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def try_it(case: Any) -> None:
        key = {"authorization": f"Bearer {embedded_server.key}"}
        response = case.call(base_url=embedded_server.url, headers=key, timeout=60)
        case.validate_response(response, checks=CHECKS)

    try_it()
