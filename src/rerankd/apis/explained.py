"""An explanation in JSON: the field `explain` of every API, and of `rerankd rank --json`. Standard library only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rerankd.types import Explanation


def explained(explanation: Explanation) -> dict[str, Any]:
    """Its fields; the truncations as `cuts`."""
    fields = asdict(explanation)
    cuts = [{"part": one.part, "from": one.tokens, "to": one.kept} for one in explanation.truncations]
    return {"cuts" if name == "truncations" else name: value for name, value in {**fields, "truncations": cuts}.items()}
