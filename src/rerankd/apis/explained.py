"""An explanation in JSON and back: the field `explain` of every API, and of `rerankd rank --json`.

Standard library only.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

from rerankd.types import Explanation, Truncation


def explained(explanation: Explanation) -> dict[str, Any]:
    """Its fields; the truncations as `cuts`, and the stage of a cascade."""
    shown = {_WORDS.get(name, name): getattr(explanation, name) for name in _NAMES}  # asdict would copy deeply
    shown["cuts"] = [{"part": one.part, "from": one.tokens, "to": one.kept} for one in explanation.truncations]
    if explanation.stage is None:
        del shown["stage"], shown["model"]
    return shown


_NAMES = tuple(field.name for field in fields(Explanation))
_WORDS = {"truncations": "cuts"}
_OF_CASCADES = {"stage": int, "model": str}
_TYPES = {name: kind for name, kind in get_type_hints(Explanation).items() if name not in _OF_CASCADES}


def read_explanation(sent: Any) -> Explanation | None:
    """The explanation that another rerankd sent; None for anything else. Fields of a later version are left out."""
    try:
        cuts = tuple(Truncation(one["part"], one["from"], one["to"]) for one in sent["cuts"])
        known = {name: sent[name] for name in _TYPES if name != "truncations"}
    except (TypeError, LookupError):
        return None
    stage = {name: sent[name] for name, kind in _OF_CASCADES.items() if type(sent.get(name)) is kind}
    is_right = all(type(known[name]) is kind for name, kind in _TYPES.items() if name in known)
    return Explanation(**known, **stage, truncations=cuts) if is_right and all(map(_is_cut, cuts)) else None


def _is_cut(cut: Truncation) -> bool:
    return cut.part in ("query", "document") and type(cut.tokens) is int and type(cut.kept) is int
