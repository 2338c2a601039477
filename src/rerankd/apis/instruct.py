"""The instruct, which every surface takes under either of two names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from rerankd.apis.base import RequestBody
from rerankd.types import DEFAULT_INSTRUCT


class InstructBody(RequestBody):
    """A body of an API that has no instruct of its own."""

    instruct: str | None = Field(None, description=f"rerankd's own: the sorting task. Default: {DEFAULT_INSTRUCT}")
    instruction: str | None = Field(None, description="The same under vLLM's name.")

    def instruct_asked(self) -> tuple[str, tuple[str, ...]]:
        """The instruct, and a warning where a second one says something else."""
        said, warnings = first_said({"instruct": self.instruct, "instruction": self.instruction})
        return said or DEFAULT_INSTRUCT, warnings


def first_said(values: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The first text that is there, and a warning for each that differs from it. `values`: by the field's name."""
    given = {name: text for name, text in values.items() if isinstance(text, str) and text}
    first = next(iter(given), None)
    if first is None:
        return None, ()
    differing = [name for name, text in given.items() if text != given[first]]
    return given[first], tuple(f"{name} ignored: {first} says something else" for name in differing)
