"""Has documents scored by a server or by a local model. Knows no files and no output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from rerankd.apis.facts import DialectName
from rerankd.calibration.apply import Cut, min_score_of
from rerankd.calibration.profile import Calibration
from rerankd.cli.options import each
from rerankd.cli.progress import LoadingBar, load_pytorch
from rerankd.config import CLIENT_KEY, RankSettings
from rerankd.errors import SettingsError
from rerankd.rankers import PassageRanker
from rerankd.types import DEFAULT_INSTRUCT, Explanation, Passages, Score

if TYPE_CHECKING:
    from rerankd.client.client import Client
    from rerankd.local import Reranker

PART_DOCUMENTS = 200
"""Documents in one request to a server: progress moves after each."""

HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(HEADER_NAME, name.strip()):
        raise ValueError(f"{text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()


HEADERS = Parameter(metavar="HEADER", converter=each(_header), n_tokens=1, show_default=False)


@Parameter(name="*", group=Group("A server instead of a local model", sort_key=20))
@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """Which server scores, and how it is asked.

    Attributes:
        url: ask this server
        api_key: key for --url
        header: 'NAME: VALUE', sent with every request to --url; repeatable
        dialect: the API that --url speaks; 'auto' decides by the address
    """

    url: Annotated[str | None, Parameter(metavar="URL")] = None
    api_key: Annotated[str | None, Parameter(metavar="KEY", env_var=CLIENT_KEY)] = None
    header: Annotated[tuple[tuple[str, str], ...], HEADERS] = ()
    dialect: DialectName = "auto"


LOCAL = RemoteOptions()
"""No server."""


@dataclass(frozen=True, slots=True)
class Task:
    """One query and its documents.

    Attributes:
        texts: the documents.
        top_n: how many results there may be; None for all.
        instruct: None for the model's or the server's default.
        passages: how the texts are split; None: they are not.
        min_score: a number or the name of a threshold, as it was typed.
        calibration: a file, or a name that the server knows.
        deadline_s: seconds for scoring.
    """

    query: str
    texts: Sequence[str]
    top_n: int | None
    instruct: str | None
    passages: Passages | None = None
    min_score: str | None = None
    calibration: str | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What scored the documents, and the scores.

    Attributes:
        ranked: best first.
        model: the name of the model that scored.
        explanations: by index, if they were asked for.
        prompt: of one document, if it was asked for.
    """

    ranked: Sequence[Score]
    warnings: Sequence[str]
    model: str
    explanations: Mapping[int, Explanation] = field(default_factory=dict)
    prompt: str | None = None


def ask(task: Task, remote: RemoteOptions, model: str | None) -> Outcome:
    """Has a server rank the documents.

    Raises:
        RemoteError: see `Client.rank`.
        SettingsError: the server needs a model's name.
    """
    assert remote.url is not None, "This is a bug."
    with LoadingBar(show_after_s=0) as bar:
        stage = f"asking {remote.url} about {len(task.texts):,} documents"
        bar(stage, 0.0)
        from rerankd.client.dialects import DIALECTS, endpoint

        name, _ = endpoint(remote.url, remote.dialect)
        part = min(PART_DOCUMENTS, DIALECTS[name].max_documents or PART_DOCUMENTS)
        with _client(remote, model, part) as client:
            ranking = client.rank(
                task.query,
                task.texts,
                top_n=task.top_n,
                instruct=task.instruct,
                passages=task.passages or False,
                min_score=min_score_of(task.min_score),
                calibration=task.calibration,
                deadline_s=task.deadline_s,
                progress=lambda done: bar(stage, done / len(task.texts)),
            )
    return Outcome(ranking.ranked, ranking.warnings, ranking.model or "a model without a name")


def score(task: Task, settings: RankSettings, explain: bool, prompt: int | None) -> Outcome:
    """Ranks the documents with a model in this process.

    Args:
        explain: add an explanation of each result.
        prompt: add the prompt of this document.
    """
    calibration = None if task.calibration is None else Calibration.load(task.calibration)
    min_score = min_score_of(task.min_score)
    Cut(min_score, calibration)  # refuses a threshold that there is not, before the model is loaded
    with _opened(settings) as reranker, LoadingBar() as bar:
        from rerankd.ranking import explanation

        ranking = reranker.rank(
            task.query,
            task.texts,
            top_n=task.top_n,
            instruct=task.instruct or DEFAULT_INSTRUCT,
            passages=task.passages or False,
            min_score=min_score,
            calibration=calibration,
            deadline_s=task.deadline_s,
            progress=lambda done: bar(f"ranking {len(task.texts):,} documents", done / len(task.texts)),
        )
        explained = [one for one in ranking.ranked if explain and one.scored]
        return Outcome(
            ranking.ranked,
            ranking.warnings,
            reranker.info.name,
            {one.index: explanation(one, reranker.info) for one in explained},
            None if prompt is None else reranker.prompt_of(ranking.scores[prompt]),
        )


@contextmanager
def ranker_of(remote: RemoteOptions, settings: RankSettings, model: str | None) -> Iterator[PassageRanker]:
    """The server that `remote` names, or the model of the settings in this process, for many calls.

    Args:
        model: the name that the command line gives; a server is asked for it.
    """
    if remote.url:
        with _client(remote, model) as client:
            yield client
        return
    with _opened(settings) as reranker:
        yield reranker


@contextmanager
def _client(remote: RemoteOptions, model: str | None, max_documents: int | None = None) -> Iterator[Client]:
    """The server that `remote` names. Where it needs a model's name, the error says how to give one."""
    from rerankd.client.client import Client
    from rerankd.client.errors import RemoteRefused

    with Client(
        remote.url,
        remote.api_key,
        dialect=remote.dialect,
        model=model,
        max_documents=max_documents,
        headers=dict(remote.header),
    ) as client:
        try:
            yield client
        except RemoteRefused as error:
            if model is None and "model" in str(error).lower():
                raise SettingsError(f"{error} (Pass --model NAME.)") from error
            raise


def _opened(settings: RankSettings) -> Reranker:
    load_pytorch()  # outside of Reranker, which reports a missing package to programs
    from rerankd.local import Reranker

    with LoadingBar() as bar:
        return Reranker(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            deterministic=settings.deterministic,
            offline=settings.offline,
            skip_self_test=settings.skip_self_test,
            then=settings.then,
            then_top=settings.then_top,
            progress=bar,
        )
