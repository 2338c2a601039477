"""A calibration profile: what a logit of one model, prompt and instruct is worth, and which threshold to trust.

Standard library only; `fit.py` makes profiles. Knows no text.
"""

from __future__ import annotations

import json
import math
import tomllib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rerankd.errors import SettingsError
from rerankd.types import ModelInfo, sigmoid


@dataclass(frozen=True, slots=True)
class Curve:
    """From a logit to the probability that a candidate is relevant; never falls.

    Attributes:
        kind: `platt` and `temperature`: sigmoid(slope · logit + offset). `isotonic`: steps joined by lines.
        logits, probabilities: of the steps, both ascending.
    """

    kind: str
    slope: float = 1.0
    offset: float = 0.0
    logits: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    def probability(self, logit: float) -> float:
        """In [0, 1]."""
        if not self.logits:
            return sigmoid(self.slope * logit + self.offset)
        right = bisect_right(self.logits, logit)
        if right in (0, len(self.logits)):
            return self.probabilities[min(right, len(self.logits) - 1)]
        low, high = self.logits[right - 1], self.logits[right]
        share = (logit - low) / (high - low)
        return self.probabilities[right - 1] * (1 - share) + self.probabilities[right] * share


@dataclass(frozen=True, slots=True)
class Threshold:
    """A logit that a split-conformal argument chose from the best logits of `queries` queries.

    alpha: the probability of the mistake that it bounds, for a further query like those.
    """

    logit: float
    alpha: float
    queries: int


KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("model", "prompt_id", "instruct", "dtype"), str),
    **dict.fromkeys(("depth", "labels", "passage_tokens"), int),
    "relevant_share": (int, float),
}
"""The types of a file's values, without its tables."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The file of `rerankd calibrate`.

    Attributes:
        model, prompt_id, instruct, dtype: of the scores that it was made from. It holds for these only; another dtype
            is warned about.
        depth: the largest number of candidates of a query: the best of more is higher by chance.
        relevant_share: the share of relevant candidates.
        keep: under it is the best relevant candidate of a query with probability at most alpha.
        nothing: over it is the best candidate of a query without a relevant one with probability at most alpha.
        passage_tokens: the most of a passage, where the documents were split; 0: they were scored whole.
    """

    name: str
    model: str
    prompt_id: str
    instruct: str
    dtype: str
    depth: int
    labels: int
    relevant_share: float
    curve: Curve
    keep: Threshold | None = None
    nothing: Threshold | None = None
    passage_tokens: int = 0

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Reads a file of `rerankd calibrate`; its name is that of the file.

        Raises:
            SettingsError: the file cannot be read, or is not a calibration.
        """
        path = Path(path)
        try:
            values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
            values["curve"] = _curve(values["curve"])
            values.setdefault("passage_tokens", 0)
            for name in {"keep", "nothing"} & values.keys():
                values[name] = Threshold(**values[name])
            if wrong := [name for name, kind in KINDS.items() if not isinstance(values[name], kind)]:
                raise ValueError(f"{wrong[0]} has the wrong type")
            return cls(name=path.stem, **values)
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"{path} is not a calibration: {error}.") from error

    def save(self, path: Path) -> None:
        """Writes it as TOML."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        del own["name"]
        parts = {name: own.pop(name) for name in ("curve", "keep", "nothing")}
        lines = ["# Made by `rerankd calibrate`. It holds for this model, prompt and instruct only.", *_toml(own)]
        for name, part in parts.items():
            if part is not None:
                lines += ["", f"[{name}]", *_toml(asdict(part))]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def misfit(self, info: ModelInfo, instruct: str) -> str | None:
        """Why it does not hold for a call, in words; None if it does."""
        for what, made_for, found in (
            ("model", self.model, info.name),
            ("prompt", self.prompt_id, info.prompt_id),
            ("instruct", self.instruct.rstrip("."), instruct.rstrip(".")),
        ):
            if made_for != found:
                return f"it was made for the {what} {made_for[:200]!r}"
        return None

    def threshold(self, word: str) -> Threshold | None:
        """The threshold that `min_score` names."""
        return {"keep": self.keep, "relevant": self.nothing}[word]


def _curve(values: Mapping[str, Any]) -> Curve:
    read: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
    curve = Curve(**read)
    numbers = (curve.slope, curve.offset, *curve.logits, *curve.probabilities)
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise ValueError("its curve has values that are not numbers")
    if curve.slope <= 0 or len(curve.logits) != len(curve.probabilities) or len(curve.logits) == 1:
        raise ValueError("its curve is incomplete or falls")
    for steps in (curve.logits, curve.probabilities):
        if list(steps) != sorted(steps):
            raise ValueError("its curve falls")
    return curve


def _toml(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items()]


def _value(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(map(repr, value))}]"
    return repr(value)


def load_calibrations(sources: Sequence[str]) -> dict[str, Calibration]:
    """Calibrations by name, from `FILE` or `NAME=FILE`.

    Raises:
        SettingsError: a file cannot be read or is not a calibration, or two have the same name.
    """
    found: dict[str, Calibration] = {}
    for source in sources:
        name, given, file = source.rpartition("=")
        calibration = Calibration.load(file)
        calibration = replace(calibration, name=name) if given and name else calibration
        if calibration.name in found:
            raise SettingsError(f"Two calibrations have the name {calibration.name!r}: pass NAME=FILE.")
        found[calibration.name] = calibration
    return found
