"""The table of the APIs agrees with what is made from it."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

from rerankd.apis import facts
from rerankd.apis.base import ApiSettings
from rerankd.apis.registry import api_routes
from rerankd.client.dialects import DIALECTS
from rerankd.config import ServerSettings


def test_the_names_for_type_checkers_are_those_of_the_table() -> None:
    assert set(get_args(facts.DialectName)) == {"auto", *DIALECTS}


def test_every_api_is_in_its_own_file_and_has_its_own_name() -> None:
    apis = {one for answering in api_routes(ApiSettings()).values() for one in answering}
    assert {one.name for one in apis} == set(facts.FACTS) and len(facts.FACTS) == len(facts.ALL)
    for api in apis:
        module, name = api.facts.implementation.split(":")
        assert (type(api).__module__, type(api).__name__) == (f"rerankd.apis.{module}", name)


@pytest.mark.parametrize("one", fields(ApiSettings), ids=lambda one: one.name)
def test_the_settings_of_the_apis_have_the_defaults_of_the_server(one) -> None:  # type: ignore[no-untyped-def]
    assert getattr(ApiSettings(), one.name) == getattr(ServerSettings(), one.name)
