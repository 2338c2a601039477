"""The APIs that answer at each path, from the table of `facts`. Knows no API itself."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rerankd.apis import facts
from rerankd.apis.base import Api, ApiSettings
from rerankd.apis.search import Finds, Order, Search

Routes = dict[tuple[str, str], tuple[Api[Any], ...]]


def api_routes(settings: ApiSettings) -> Routes:
    """(method, path) → the APIs that may be meant, in the order in which they are asked. The last takes the rest."""
    routes: Routes = {}
    for one in facts.ALL:
        module, name = one.implementation.split(":")
        api: Api[Any] = getattr(import_module(f"rerankd.apis.{module}"), name)(settings)
        for method, paths in (("POST", api.paths()), ("PUT", one.put_paths)):
            for path in paths:
                others = routes.get((method, path), ()) if api.may_decline else ()
                routes[method, path] = (api.at(path), *others)
    return routes


def search_routes(settings: ApiSettings, finds: Finds, order: Order) -> Routes:
    """The route of search, for a server with an index."""
    api = Search(settings, finds, order)
    return {("POST", path): (api,) for path in api.paths()}
