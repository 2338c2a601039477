"""`rerankd doctor`: can this machine serve this model, are its scores right, and how fast is it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.options import FLAG, NONE_GIVEN, Given, command, converter, settings_from, takes
from rerankd.cli.progress import load_pytorch
from rerankd.config import ModelSettings, ServerSettings
from rerankd.errors import SettingsError

DTYPES = ("float32", "bfloat16", "int8")

app = command("doctor")


def _dtypes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in DTYPES]:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(DTYPES)}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("name two or more different dtypes, the reference first: float32,bfloat16")
    return names


COMPARE = Parameter(converter=converter(_dtypes), n_tokens=1, metavar="DTYPE,DTYPE")
DATA_HELP = (
    "data for --compare, one JSON object per line: 'query', 'documents' and, optional, 'relevance' (a number for each "
    "document, for nDCG) and 'instruct'; default: a small built-in set"
)


@app.default
@takes(ModelSettings)
def doctor(
    *,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    upstreams: Annotated[bool, FLAG] = False,
    compare: Annotated[tuple[str, ...] | None, COMPARE] = None,
    data: Annotated[Path | None, Parameter(metavar="FILE", help=DATA_HELP)] = None,
    given: Given = NONE_GIVEN,
) -> int:
    """Check this machine, the model and its scores.

    Args:
        as_json: print JSON
        upstreams: instead of the check-up, ask every upstream of the settings for the known answers
        compare: instead of the check-up, compare the scores and rankings of the other dtypes with the first
    """
    if upstreams:
        return _check_upstreams(given, as_json=as_json)
    settings = settings_from(ModelSettings, given)
    if compare and "dtype" in given:
        raise SettingsError("--compare names the dtypes: leave --dtype out.")
    if data and not compare:
        raise SettingsError("--compare reads --data: name the dtypes too, as in --compare float32,bfloat16.")
    load_pytorch()
    from rerankd.cli import checkup
    from rerankd.cli.compare import run_comparison
    from rerankd.startup import chosen

    choice = chosen(settings, settings.model)
    if compare:
        return run_comparison(choice, compare, data, as_json=as_json)
    return checkup.run(choice, as_json=as_json)


def _check_upstreams(given: Given, *, as_json: bool) -> int:
    if more := sorted(given.keys() - {"config"}):
        raise SettingsError(f"--upstreams loads no model: leave --{more[0].replace('_', '-')} out.")
    from rerankd.cli.upstream_check import run

    return run(settings_from(ServerSettings, given), as_json=as_json)
