"""A JSON object → an API's parsed body, and the call that it asks for; every mistake in it becomes a `Problem`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rerankd.apis.base import Api, Call
from rerankd.errors import InvalidRequest, Problem, TooManyDocuments
from rerankd.server.json_text import JSONObject

Body = TypeVar("Body", bound=BaseModel)

MAX_PROBLEMS = 10
"""Mistakes in one reply, as in vLLM."""

MAX_INPUT_CHARS = 100
"""Characters of a wrong value in a reply."""

UNKNOWN = "Unknown field"

WANTED = "Input should be "
"""How pydantic's messages begin."""

MEMBERS = ("str", "bool", "float", "int", "constrained-int", "Explain", "PassageOptions")
"""pydantic's names for the members of unions."""


def read_call(value: JSONObject, api: Api[Any], strict: bool) -> tuple[Call, tuple[str, ...]]:
    """The call that an API's body asks for. See `read_as`."""
    body, ignored = read_as(value, api.body, strict)
    return api.read(body), ignored


def read_as(value: JSONObject, kind: type[Body], strict: bool) -> tuple[Body, tuple[str, ...]]:
    """Parses the object as a body of this kind. The warning names unknown fields.

    Args:
        kind: a model that keeps unknown fields.
        strict: refuse unknown fields.

    Raises:
        InvalidRequest: names every mistake.
    """
    body = _validate(value, kind)
    ignored = [name[:100] for name in _unknown_fields(body, "")]
    if ignored and strict:
        problems = [Problem(name, UNKNOWN, "extra_forbidden") for name in ignored[:MAX_PROBLEMS]]
        raise InvalidRequest(f"Unknown fields: {', '.join(ignored[:MAX_PROBLEMS])} (--strict).", problems)
    if ignored:
        more = f" and {len(ignored) - MAX_PROBLEMS} more" if len(ignored) > MAX_PROBLEMS else ""
        return body, (f"fields ignored: {', '.join(map(repr, ignored[:MAX_PROBLEMS]))}{more}",)
    return body, ()


def check_items(value: JSONObject, kind: type[BaseModel], most: int) -> None:
    """Counts the items of lists in known fields before any item is validated.

    Raises:
        TooManyDocuments: a list is longer.
    """
    for name, field in kind.model_fields.items():
        items = value.get(name)
        if isinstance(items, list) and len(items) > most:
            raise TooManyDocuments(len(items), most)
        if isinstance(items, dict):
            for nested in _nested_kinds(field.annotation):
                check_items(items, nested, most)


def _nested_kinds(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _nested_kinds(part)


def _validate(value: JSONObject, kind: type[Body]) -> Body:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        found = [
            Problem(_path(problem["loc"]), _message(problem), problem["type"], _plain(problem["input"]))
            for problem in error.errors(include_url=False, include_context=False)
        ]
    problems = _one_for_each_place(found)
    known = {problem.path for problem in problems}
    misspelt = [name[:100] for name in _misspelt_fields(value, kind, "") if name not in known]
    problems += [Problem(name, UNKNOWN, "extra_forbidden") for name in misspelt]
    raise InvalidRequest("The body does not have the documented shape.", problems[:MAX_PROBLEMS])


def _message(problem: ErrorDetails) -> str:
    """pydantic's message, without the names of our classes."""
    if problem["type"] == "extra_forbidden":
        return UNKNOWN
    return re.sub(r" or instance of \w+", "", problem["msg"])


def _one_for_each_place(found: Sequence[Problem]) -> list[Problem]:
    """Merges the mistakes of one place. pydantic reports one for each member of a union; where a member got as far as
    an item of a list, the mistakes of other members about the list itself are dropped."""
    inner = {problem.path.rpartition(".")[0] for problem in found}
    kept: dict[str, Problem] = {}
    for problem in found:
        if problem.path in inner:
            continue
        if problem.kind == "too_long":
            problem = problem._replace(message=f"{problem.message}: send fewer, or several requests")
        first = kept.setdefault(problem.path, problem)
        wanted = problem.message.removeprefix(WANTED)
        if problem.message.startswith(WANTED) and wanted not in first.message:
            kept[problem.path] = first._replace(message=f"{first.message} or {wanted}")
    return list(kept.values())


def _plain(value: Any) -> Any:
    """The value that a caller sent, shortened; None for lists and objects."""
    if isinstance(value, str):
        return value[:MAX_INPUT_CHARS]
    return value if isinstance(value, int | float) and abs(value) < 2**63 else None  # infinity is no JSON


def _path(location: Sequence[int | str]) -> str:
    """A dotted path, without pydantic's names for the members of unions."""
    return ".".join(
        str(part) for part in location if isinstance(part, int) or (part not in MEMBERS and "[" not in part)
    )


def _misspelt_fields(value: dict[str, Any], kind: type[BaseModel], prefix: str) -> list[str]:
    """Unknown keys of an object that does not fit, nested ones too."""
    names = [f"{prefix}{name}" for name in value if name not in kind.model_fields]
    for name, field in kind.model_fields.items():
        nested = next((part for part in _members(field.annotation) if _is_model(part)), None)
        if nested is not None and isinstance(value.get(name), dict):
            names += _misspelt_fields(value[name], nested, f"{prefix}{name}.")
    return names


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unknown_fields(body: BaseModel, prefix: str) -> list[str]:
    """Unknown keys of a body that fits, nested ones too."""
    names = [f"{prefix}{name}" for name in body.model_extra or {}]
    for name, value in body:
        if isinstance(value, BaseModel):
            names += _unknown_fields(value, f"{prefix}{name}.")
    return names
