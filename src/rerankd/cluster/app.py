"""`rerankd.cluster.app:build`: server and replicas as one application of Ray Serve, for RayService of KubeRay.

There Ray Serve's proxy is the only entrance. Its limits hold for heads, bodies and connections, not those of
`server/protocol.py`.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from rerankd.app import create_app
from rerankd.cluster.ray_serve import ServeReplicas, deployment_of, import_ray
from rerankd.cluster.settings import ReplicaSettings, replicas_of
from rerankd.cluster.start import scorer_over
from rerankd.config import ServerSettings, read_settings
from rerankd.engine.loading.open import Choice
from rerankd.errors import SettingsError
from rerankd.server.models import Models
from rerankd.server.served import LocalScorer, ServedModel
from rerankd.types import LoadProgress

FRONT = "Front"

CALLS_AT_ONCE = 1000
"""The most calls at a time of one front. The default of Ray Serve, 5, would leave the replicas without work."""


def build(args: dict[str, Any]) -> Any:
    """The application, bound to its settings.

    Args:
        args: settings by name, as in a settings file (`model`, `replicas`, `replica_cpus`, `api_key`, …), and
            `fronts`: the number of servers in front of the replicas. A variable `RERANKD_…` of the pods sets what
            is not in it, such as `RERANKD_API_KEY_FILE`.

    Raises:
        SettingsError: a setting is unknown, unsafe, or has no meaning there.
    """
    import_ray()
    from ray import serve

    given = {"host": "0.0.0.0", **args}
    fronts = _fronts(given.pop("fronts", 1))
    settings = _settings(given)
    replicas = replicas_of(settings, _choice(settings))

    def application() -> Any:
        return _application(_settings(given), replicas)  # a key does not travel through the cluster

    front = serve.deployment(
        name=FRONT,
        num_replicas=fronts,
        max_ongoing_requests=CALLS_AT_ONCE,
        graceful_shutdown_timeout_s=float(settings.drain_s),
        max_surge_percent=100,
        ray_actor_options={"num_cpus": 1},
    )(serve.ingress(application)())
    return front.bind(deployment_of(replicas))


def _fronts(number: object) -> int:
    if not isinstance(number, int) or number < 1:
        raise SettingsError(f"fronts is the number of servers, not {number!r}.")
    return number


def _settings(given: dict[str, Any]) -> ServerSettings:
    settings = read_settings(ServerSettings, given, os.environ)
    settings.check_exposure()
    if len(settings.model) > 1 or settings.then is not None or settings.upstream:
        raise SettingsError("Replicas run one model: give one model, without then and upstream.")
    return settings


def _choice(settings: ServerSettings) -> Choice:
    [model] = settings.model
    return Choice(model, settings.device, settings.dtype, settings.deterministic, settings.offline, fallback=False)


def _application(settings: ServerSettings, replicas: ReplicaSettings) -> Any:
    """The server, in the process of a front."""
    from ray import serve

    connect = partial(ServeReplicas, serve.get_replica_context().app_name, replicas)

    def start(progress: LoadProgress) -> LocalScorer:
        return scorer_over(connect, replicas, max_queue=settings.max_queue, score_cache_mb=settings.score_cache_mb)

    store = None
    if settings.accounts:
        from rerankd.accounts.store import open_store

        store = open_store(settings.require_database(), make_folder=settings.has_default_database)
    return create_app(settings, Models(ServedModel(start)), store)
