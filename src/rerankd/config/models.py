"""The settings of scoring: the model, where it runs, a second one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rerankd.config.base import MODEL, Settings
from rerankd.setting import setting


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Settings):
    """How models run."""

    device: str = setting(
        "auto",
        "auto, cpu, cuda, cuda:1 or mps",
        MODEL,
        metavar="DEVICE",
        pattern=r"auto|cpu|(cuda|mps|xpu)(:\d+)?",
        expected="one of auto, cpu, cuda, cuda:1, mps",
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = setting(
        "auto",
        "'auto' uses bfloat16 unless this machine multiplies float32 faster; 'int8' is faster on CPUs with "
        "VNNI, check it with 'rerankd doctor --compare bfloat16,int8'",
        MODEL,
    )
    deterministic: bool = setting(
        False, "compute identical bits for a pair in every batch; slower (see docs/performance.md)", MODEL
    )
    offline: bool = setting(False, "use local folders and the cache only, never the model hub", MODEL)


@dataclass(frozen=True, kw_only=True)
class SelfTestSettings(Settings):
    """Whether a model whose scores are wrong is refused."""

    skip_self_test: bool = setting(False, "use the model even if it fails its known-answer check", MODEL)


MODEL_HELP = "hub id, folder, 'embedded', or 'auto': Qwen/Qwen3-Reranker-0.6B, else the embedded model"


@dataclass(frozen=True, kw_only=True)
class OneModel(Settings):
    """The model that runs: of several served models, the first."""

    model: str = setting(
        "auto", MODEL_HELP, MODEL, metavar="MODEL", clean=lambda names: names.partition(",")[0].strip()
    )

    def __post_init__(self) -> None:
        given: Any = self.model
        if isinstance(given, list):  # in a file
            object.__setattr__(self, "model", given[0] if given else "")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class SeveralModels(Settings):
    """The models that are served."""

    model: tuple[str, ...] = setting(
        ("auto",), f"{MODEL_HELP}; repeatable: the first one is the default", MODEL, metavar="MODEL", clean=str.strip
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings(EngineSettings, OneModel):
    """The settings of commands that run one model."""


@dataclass(frozen=True, kw_only=True)
class ScoringSettings(SelfTestSettings, ModelSettings):
    """The settings of commands that score with one model."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(SelfTestSettings):
    """Where engines run: in this process, or as replicas on Ray."""

    replicas: int | None = setting(
        None,
        "engines on Ray, in processes of their own; they share this machine's processors, or have a GPU each (see "
        "docs/deploy/ray.md)",
        MODEL,
        at_least=1,
        at_most=1000,
    )
    replica_cpus: int | None = setting(
        None, "processors of each replica (default: those of this machine, shared equally)", MODEL, at_least=1
    )
    ray: str | None = setting(
        None,
        "run the replicas in this Ray cluster: HOST:PORT, or 'auto' for the one of this machine",
        MODEL,
        metavar="ADDRESS",
        clean=str.strip,
        pattern=r"auto|[^\s/:]+:\d+",
        expected="auto or HOST:PORT; this machine must be a node of the cluster",
    )

    @property
    def on_ray(self) -> bool:
        """Whether engines run as replicas."""
        return self.replicas is not None or self.ray is not None


@dataclass(frozen=True, kw_only=True)
class BatchSettings(ClusterSettings, ScoringSettings):
    """The settings of `rerankd batch`."""


@dataclass(frozen=True, kw_only=True)
class CascadeSettings(Settings):
    """A second model for the best documents."""

    then: str | None = setting(
        None, "a second, larger model, which scores the best documents of the first one again", MODEL, metavar="MODEL"
    )
    then_top: int = setting(30, "documents that --then scores again", MODEL, at_least=1)


@dataclass(frozen=True, kw_only=True)
class RankSettings(CascadeSettings, ScoringSettings):
    """The settings of `rerankd rank`."""
