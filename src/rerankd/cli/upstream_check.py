"""`rerankd doctor --upstreams`: asks every upstream of the settings for the known answers. Loads no model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rerankd.cli.table import show_table
from rerankd.config import ServerSettings
from rerankd.errors import SettingsError
from rerankd.selftest import PUBLISHED_0_6B
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.probe import Verdict, check
from rerankd.upstreams.roster import Roster
from rerankd.upstreams.settings import ModelSettings, read_models, short_form
from rerankd.upstreams.upstream import Upstream

BAD = ("wrong", "failed")


@dataclass(frozen=True, slots=True)
class Checked:
    """One upstream with the outcome of its check.

    Attributes:
        model: that it answers for; asked_for: the name that it is asked for, None for its own default.
        seconds: that the check took.
    """

    model: str
    name: str
    asked_for: str | None
    verdict: Verdict
    seconds: float

    @property
    def drift(self) -> float | None:
        """The largest distance from the logits published for Qwen3-Reranker-0.6B; None without scores."""
        logits = self.verdict.logits
        return (
            max((abs(logits[text] - logit) for text, logit in PUBLISHED_0_6B.items()), default=None) if logits else None
        )


def run(settings: ServerSettings, *, as_json: bool) -> int:
    """Prints a row for each upstream; the status is 1 if one of them gives no scores, or wrong ones.

    Raises:
        SettingsError: there are no upstreams, or their settings are invalid.
    """
    models: dict[str, ModelSettings] = dict(read_models(settings.config))
    if settings.upstream:
        models["(--upstream)"] = short_form(settings.upstream, settings.upstream_key)
    if not models:
        raise SettingsError('There are no upstreams: set RERANKD_UPSTREAM, or [models."…"] in the file of --config.')
    checked = asyncio.run(_check_all(models))
    if as_json:
        print(json.dumps([_facts(one) for one in checked], ensure_ascii=False, indent=2))
    else:
        columns = ("model", "upstream", "check", "drift", "seconds", "verdict")
        show_table(columns, map(_row, checked), numbers=("drift", "seconds"))
    return 1 if any(one.verdict.status in BAD for one in checked) else 0


async def _check_all(models: Mapping[str, ModelSettings]) -> list[Checked]:
    """All of them at the same time, in the order of the settings."""
    found = await asyncio.gather(*[_check_model(name, settings) for name, settings in models.items()])
    return [one for of_model in found for one in of_model]


async def _check_model(name: str, settings: ModelSettings) -> list[Checked]:
    pool = Pool(name)
    roster = Roster(pool, settings)
    try:
        await roster.resolve()
        upstreams = [member for member in pool.members if isinstance(member, Upstream)]
        return list(await asyncio.gather(*[_check(name, upstream) for upstream in upstreams]))
    finally:
        await roster.close()


async def _check(model: str, upstream: Upstream) -> Checked:
    started = time.monotonic()
    verdict = await check(upstream)
    return Checked(model, upstream.name, upstream.model, verdict, time.monotonic() - started)


def _facts(one: Checked) -> dict[str, object]:
    return {
        "model": one.model,
        "upstream": one.name,
        "asked_for": one.asked_for,
        "check": one.verdict.status,
        "verdict": one.verdict.sentence,
        "drift": one.drift,
        "logits": dict(one.verdict.logits),
        "seconds": round(one.seconds, 3),
    }


def _row(one: Checked) -> tuple[object, ...]:
    drift = None if one.drift is None else f"{one.drift:.2g}"
    return one.model, one.name, one.verdict.status, drift, f"{one.seconds:.2f}", one.verdict.sentence
