"""Replicas as a deployment of Ray Serve: started, found or refused, asked, counted. The only file that asks ray.

Facts about Ray 2.60: `ray.init` starts processes that end with the thread that called it; a request is sent again by
Ray Serve only until a replica has accepted it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from rerankd.cluster.engine import LostReplica, none_runs
from rerankd.cluster.packed import Described, Failed, PackedPrompts, Scored
from rerankd.cluster.replica import Replica
from rerankd.cluster.settings import MANY, ReplicaSettings
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import MissingExtra, ModelError, SettingsError
from rerankd.version import __version__

logger = logging.getLogger(__name__)

APPLICATION, DEPLOYMENT = "rerankd", "Replica"

OBJECT_STORE_BYTES = 200_000_000
"""The object store of a Ray that is started here. A part for a processor has some 20 kB and travels without it; a part
for a GPU has half a megabyte, and goes through it."""

DRAIN_S = 120.0
"""Seconds that a replica that ends has for its requests."""

HEALTH_EVERY_S, HEALTH_WITHIN_S = 2.0, 30.0

STATUS_WITHIN_S = 5.0

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread of ray that asks after the end joins or starts another Ray
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it takes SIGTERM for a crash, and aborts the process 3 s later
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else ray warns of a change to come
}


def import_ray(*, on_loopback: bool = False) -> Any:
    """The module `ray` with `ray.serve`, without usage statistics.

    Args:
        on_loopback: for a Ray that is started here. Its settings are read at the import.

    Raises:
        MissingExtra: it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if on_loopback:
        # Without the first one, ray on Linux takes 127.0.0.1 for the address of the network. A replica has a port on
        # every address for other processes of its Ray; it answers only those with the token.
        os.environ.update(
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32)
        )
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise MissingExtra("A cluster of replicas", error, "leave --replicas and --ray out", "ray") from None
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return ray


def deployment_of(settings: ReplicaSettings, start: Callable[[], EngineScorer] | None = None) -> Any:
    """The deployment, bound to its arguments.

    Args:
        start: starts the engine of a replica; by default what the settings say.
    """
    from ray import serve

    on_gpu = settings.choice.device.startswith("cuda")
    options = {"num_cpus": settings.cpus, "num_gpus": 1 if on_gpu else 0}
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=settings.number,
        ray_actor_options=options,
        max_ongoing_requests=MANY,
        max_constructor_retry_count=3,
        health_check_period_s=HEALTH_EVERY_S,
        health_check_timeout_s=HEALTH_WITHIN_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        max_surge_percent=100,
    )(Replica)
    return deployment.bind(start or settings.start, settings.as_text)


class ServeReplicas:
    """Implements `engine.Replicas` over a deployment that runs.

    Args:
        application: its name.
        end: called by `close`.

    Raises:
        ModelError: no replica can be started.
        SettingsError: the replicas have other settings.
    """

    def __init__(self, application: str, settings: ReplicaSettings, end: Callable[[], None] = lambda: None) -> None:
        from ray import serve

        self._application, self._end = application, end
        self._last = 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerankd-count")
        self._counting: Future[None] | None = None
        self._handle = serve.get_deployment_handle(DEPLOYMENT, application)
        self.described = self._describe()
        _refuse_others(self.described, settings)

    def _describe(self) -> Described:
        """Waits for a replica, which may have to load its model first."""
        from ray.serve.exceptions import DeploymentUnavailableError

        response = self._handle.describe.remote()
        while True:
            try:
                described: Described = response.result(timeout_s=STATUS_WITHIN_S)
                return described
            except DeploymentUnavailableError as error:
                raise ModelError(f"The replicas cannot be started: {error}") from None
            except TimeoutError:
                if _has_failed(self._application):
                    response.cancel()
                    raise ModelError("The replicas cannot be started; their log has the cause.") from None

    async def score(self, part: PackedPrompts, priority: int, owner: str) -> Scored | Failed:
        """See `engine.Replicas`."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

        response = self._handle.score.remote(part, priority, owner)
        try:
            answer: Scored | Failed = await response
            return answer
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise LostReplica("it gave up the part") from None
            response.cancel()
            raise
        except RayTaskError:
            raise  # a bug in the replica's code: the same everywhere
        except DeploymentUnavailableError:
            raise none_runs() from None
        except (RayError, RayServeException) as error:  # a process, a node or their memory is gone
            raise LostReplica(f"{type(error).__name__}: {error}".splitlines()[0]) from None

    async def num_running(self) -> int:
        """See `engine.Replicas`; the last known number while the controller does not answer."""
        if self._counting is None or self._counting.done():
            self._counting = self._thread.submit(self._count)
        await asyncio.wait([asyncio.wrap_future(self._counting)], timeout=STATUS_WITHIN_S)
        if not self._counting.done():
            logger.warning("Ray Serve's controller does not answer")
        return self._last

    def _count(self) -> None:
        from ray import serve
        from ray.exceptions import ActorDiedError

        try:
            application = serve.status().applications.get(self._application)
        except ActorDiedError:  # Ray restarts a controller that crashes; this one was ended, with the replicas
            application = None
        except Exception as error:
            logger.warning("Ray Serve's controller does not answer: %s", type(error).__name__)
            return
        deployment = None if application is None else application.deployments.get(DEPLOYMENT)
        self._last = 0 if deployment is None else int(deployment.replica_states.get("RUNNING", 0))

    def close(self) -> None:
        """See `engine.Replicas`. Ray ends this process if a thread asks it after its end."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._counting is not None:
            wait([self._counting], STATUS_WITHIN_S)
        self._end()


def _has_failed(application: str) -> bool:
    """Whether Ray Serve has given up starting its replicas."""
    from ray import serve

    known = serve.status().applications.get(application)
    return known is not None and known.status == "DEPLOY_FAILED"


def _refuse_others(described: Described, settings: ReplicaSettings) -> None:
    """The replicas may be those of another front.

    Raises:
        SettingsError: their settings differ.
    """
    if described.version != __version__:
        raise SettingsError(f"The cluster runs rerankd {described.version}, and this is {__version__}.")
    if described.settings != settings.as_text:
        raise SettingsError(
            f"The cluster runs replicas with other settings ({described.settings}; here: {settings.as_text}). Start "
            "with the same ones, or end those replicas first: serve shutdown"
        )


def start_replicas(settings: ReplicaSettings, start: Callable[[], EngineScorer] | None = None) -> ServeReplicas:
    """Starts Ray or joins a cluster; starts the replicas, unless the cluster runs them.

    `close` ends a Ray that was started here. Replicas in a cluster stay for other fronts and the next start.

    Args:
        start: see `deployment_of`.

    Raises:
        ModelError: the replicas cannot be started.
        SettingsError: the cluster runs replicas with other settings, or cannot be joined.
    """
    ray = import_ray(on_loopback=settings.address is None)
    from ray import serve

    end = _join(ray, settings.address) if settings.address else _begin(ray, settings)
    try:
        serve.start(proxy_location="Disabled")
        if APPLICATION not in serve.status().applications or _has_failed(APPLICATION):
            serve.run(deployment_of(settings, start), name=APPLICATION, route_prefix=None)
        return ServeReplicas(APPLICATION, settings, end)
    except RuntimeError as error:
        end()
        raise ModelError(f"The replicas cannot be started: {error}") from None
    except BaseException:
        end()
        raise


def _join(ray: Any, address: str) -> Callable[[], None]:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(f"The Ray cluster {address} cannot be joined: {error}") from None
    end: Callable[[], None] = ray.shutdown
    return end


def _begin(ray: Any, settings: ReplicaSettings) -> Callable[[], None]:
    """Starts Ray for this process, on the loopback address only."""
    folder = tempfile.mkdtemp(prefix="rerankd-ray-")

    def end() -> None:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        ray.init(
            address="local",
            num_cpus=settings.number * settings.cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
    except BaseException:
        end()
        raise
    return end
