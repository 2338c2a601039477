"""`rerankd eval DIR --models A B`: reranks the queries of a folder with several models, one after the other.

Each result is a job of its own, which the same command continues; one that is there already is not made again.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from rerankd.cli.log import log_to_stderr
from rerankd.cli.options import COUNT, FLAG, SEVERAL, settings_from
from rerankd.cli.passage_options import PassageOptions
from rerankd.cli.reranking import LOCAL_AT_ONCE, Report, bm25, identity, print_summary, prompt_text, stamped
from rerankd.cli.scoring import LOCAL, ranker_of
from rerankd.config import RankSettings
from rerankd.errors import InvalidRequest, SettingsError
from rerankd.jobs.job import Job, Plan
from rerankd.resumable import differences
from rerankd.runs.about import read_about
from rerankd.runs.collection import Collection, collection_in
from rerankd.runs.layouts import Inputs, inputs_of, retrieved
from rerankd.search.corpus import IDENTITY


@Parameter(name="*", group=Group("A folder in place of runs", sort_key=15))
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How the queries of a folder are reranked before they are evaluated.

    Attributes:
        models: a BEIR folder or Hugging Face snapshot is reranked with each of these models
        dtypes: and in each of these dtypes
        instructs: and with each instruct of this TOML file, a line NAME = "TEXT" each
        run: the first stage (default: BM25, over the folder's corpus)
        split: the judgements
        subset: which test collection of a snapshot, where it holds several, such as one for each language
        depth: candidates of each query that are reranked
        passage_tokens: score documents in passages of at most this many tokens; the best one counts
        output: the folder of the runs (default: the folder's name and '-eval'); the same command continues there
        restart: make every run again
    """

    models: Annotated[tuple[str, ...], SEVERAL, Parameter(show_default=False)] = ()
    dtypes: Annotated[tuple[str, ...], SEVERAL, Parameter(show_default=False)] = ()
    instructs: Annotated[Path | None, Parameter(metavar="FILE")] = None
    run: Annotated[Path | None, Parameter(metavar="FILE")] = None
    split: Annotated[str, Parameter(metavar="NAME")] = "test"
    subset: Annotated[str | None, Parameter(metavar="NAME")] = None
    depth: Annotated[int, COUNT] = 100
    passage_tokens: Annotated[int | None, COUNT, Parameter(show_default=False)] = None
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), metavar="DIR")] = None
    restart: Annotated[bool, FLAG] = False


@dataclass(frozen=True, slots=True)
class Variant:
    """A model in a dtype with an instruct. dtype, instruct: None for the default."""

    name: str
    model: str
    dtype: str | None
    instruct: str | None


def variants(options: ModelOptions) -> list[Variant]:
    """Every combination of models, dtypes and instructs; the name has what differs.

    Raises:
        SettingsError: no model is named, or two variants have one name.
        InvalidRequest: the file of instructs cannot be read.
    """
    if not options.models:
        raise SettingsError("A folder is evaluated with models: pass --models with one or more.")
    instructs: Mapping[str, str | None] = {"": None} if options.instructs is None else _instructs(options.instructs)
    found = [
        Variant("-".join(filter(None, (Path(model).name, dtype, name))), model, dtype, instruct)
        for model, dtype, (name, instruct) in product(options.models, options.dtypes or (None,), instructs.items())
    ]
    names = [one.name for one in found]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f"Two models have the name {repeated[0]!r}.")
    return found


def _instructs(path: Path) -> dict[str, str | None]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.") from None
    if not found or not all(isinstance(text, str) and text for text in found.values()):
        raise InvalidRequest(f'{path} should have a line NAME = "TEXT" for each instruct.')
    return dict(found)


def rerank_with_models(folder: Path, options: ModelOptions) -> tuple[list[Path], Collection]:
    """Reranks a folder's queries with each variant.

    Returns:
        the files of the first stage and of each variant, and the files of the folder.

    Raises:
        InvalidRequest: a file is missing or damaged, or a result was made with other inputs.
        InferenceError: a model failed; the same command continues.
    """
    wanted, collection = variants(options), collection_in(folder, options.split, subset=options.subset)
    if not collection.qrels:
        raise InvalidRequest(f"{folder} has no judgements (qrels.*, qrels/ or default/): there is nothing to measure.")
    output = options.output or Path(f"{folder.resolve().name}-eval")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"{output} cannot be written: {error.strerror}.") from None
    log_to_stderr("warning")
    first = options.run or output / "bm25.trec"
    inputs = (
        inputs_of(folder, options.run, None, None, options.subset)
        if options.run
        else retrieved(collection, bm25(options.depth, first))
    )
    runs = [_reranked(variant, inputs, output / f"{variant.name}.jsonl", options) for variant in wanted]
    return [first, *runs], collection


def _reranked(variant: Variant, inputs: Inputs, out: Path, options: ModelOptions) -> Path:
    asked = {"model": variant.model, **({"dtype": variant.dtype} if variant.dtype else {})}
    settings = settings_from(RankSettings, asked)
    with ranker_of(LOCAL, settings, variant.model) as ranker:
        plan = Plan(
            stamped(inputs.files),
            identity(ranker, LOCAL, settings, variant.model),
            variant.instruct,
            options.depth,
            skip_missing=False,
            first="" if options.run else IDENTITY,
            passages=PassageOptions(passage_tokens=options.passage_tokens).split,
        )
        if not options.restart and _is_made(out, plan):
            print(f"{variant.name}: {out} is there already", file=sys.stderr)
            return out
        print(f"{variant.name}:", file=sys.stderr)
        text = prompt_text(ranker, variant.instruct)
        job = Job(out, plan, inputs.run, inputs.queries, LOCAL_AT_ONCE, text)
        with Report() as report:
            ended = job.score(ranker, inputs.documents, report, restart=options.restart)
        print_summary(ended, out)
    return out


def _is_made(out: Path, plan: Plan) -> bool:
    """Whether the result of this plan is there.

    Raises:
        InvalidRequest: that of another plan is.
    """
    about = read_about(out)
    if about is None or not (found := differences(json.dumps(about.plan), plan)):
        return about is not None
    raise InvalidRequest(
        f"{out} was made with another {'; '.join(found)}. Pass another --output, or --restart to make every run again."
    )
