"""The description of a reranked run: a JSON file beside it, `RUN.about.json`, from the job that wrote the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerankd.disk import replacement
from rerankd.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class About:
    """How a run was made.

    Attributes:
        plan: what its scores depend on, with a digest, as `rerankd.resumable.to_json` writes it.
        seconds: of scoring, over all runs of the job.
        queries, documents, tokens: scored; tokens of the prompts, 0 where a server scored.
        own_instructs: queries that have an instruct of their own.
        billed_tokens: of queries and documents, once for each prompt; as a server counted them; 0 where unknown.
        prompt_text: the whole prompt, with `{query}` and `{document}` in their places; empty where it is unknown.
    """

    plan: Mapping[str, Any]
    seconds: float
    queries: int
    documents: int
    tokens: int
    own_instructs: int
    billed_tokens: int = 0
    prompt_text: str = ""

    @property
    def model(self) -> Mapping[str, str]:
        """`name`, and for a model of this machine `dtype`, `prompt` and more."""
        model: Mapping[str, str] = self.plan["model"]
        return model

    @property
    def instruct(self) -> str | None:
        """None where each query had the default of the model or of the server."""
        instruct: str | None = self.plan["instruct"]
        return instruct


def path_of(run: Path) -> Path:
    """Where it stands."""
    return run.with_name(f"{run.name}.about.json")


def write_about(run: Path, about: About) -> None:
    """Writes what is known about a run that is whole.

    Raises:
        OSError: it cannot be written.
    """
    with replacement(path_of(run)) as unfinished:
        unfinished.write_text(json.dumps({"run": _digest(run), **asdict(about)}, ensure_ascii=False, indent=1), "utf-8")


def read_about(run: Path) -> About | None:
    """What is known about a run: None where there is no such file, or the run is another one by now.

    Raises:
        InvalidRequest: the file is damaged.
    """
    path = path_of(run)
    if not path.is_file() or not run.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        is_same = values.pop("run") == _digest(run)
        about = About(**values)
        counts = about.documents + about.queries + about.tokens + about.own_instructs + about.billed_tokens
        checked = (about.model["name"], about.instruct, about.prompt_text.strip(), about.seconds + counts)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidRequest(f"{path} is damaged: remove it, and what it says about the run is unknown.") from None
    return about if is_same and checked else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
