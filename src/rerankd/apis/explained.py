"""An explanation in JSON and back: the field `explain` of every API, and of `rerankd rank --json`.

Standard library only.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_type_hints

from rerankd.types import Explanation, Truncation


def explained(explanation: Explanation) -> dict[str, Any]:
    """Its fields; the truncations as `cuts`, and the stage of a cascade."""
    fields = asdict(explanation)
    if explanation.stage is None:
        del fields["stage"], fields["model"]
    cuts = [{"part": one.part, "from": one.tokens, "to": one.kept} for one in explanation.truncations]
    return {"cuts" if name == "truncations" else name: value for name, value in {**fields, "truncations": cuts}.items()}


_OF_CASCADES = {"stage": int, "model": str}
_TYPES = {name: kind for name, kind in get_type_hints(Explanation).items() if name not in _OF_CASCADES}


def read_explanation(fields: Any) -> Explanation | None:
    """The explanation that another rerankd sent; None for anything else. Fields of a later version are left out."""
    try:
        cuts = tuple(Truncation(one["part"], one["from"], one["to"]) for one in fields["cuts"])
        known = {name: fields[name] for name in _TYPES if name != "truncations"}
    except (TypeError, LookupError):
        return None
    stage = {name: fields[name] for name, kind in _OF_CASCADES.items() if type(fields.get(name)) is kind}
    is_right = all(type(known[name]) is kind for name, kind in _TYPES.items() if name in known)
    return Explanation(**known, **stage, truncations=cuts) if is_right and all(map(_is_cut, cuts)) else None


def _is_cut(cut: Truncation) -> bool:
    return cut.part in ("query", "document") and type(cut.tokens) is int and type(cut.kept) is int
