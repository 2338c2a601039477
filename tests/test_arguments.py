"""What a call may be made of, and what is refused in words."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rerankd.arguments import Arguments, checked
from rerankd.errors import InvalidRequest

TEXTS = ("first", "second")


class Column:
    """What is asked of a column of a table: it can be walked through, and its truth cannot be told."""

    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a Series is ambiguous.")


@pytest.mark.parametrize(
    "documents",
    [
        list(TEXTS),
        TEXTS,
        (text for text in TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        Column(),
        dict.fromkeys(TEXTS).keys(),
        [{"text": "first", "id": 7}, "second"],
        [types.MappingProxyType({"text": text}) for text in TEXTS],
        list(enum.Enum("Texts", {text: text for text in TEXTS}, type=str)),  # type: ignore[call-overload]
    ],
    ids=lambda documents: type(documents).__name__,
)
def test_texts_are_taken_from_whatever_holds_them_in_order(documents: Any) -> None:
    asked = checked("query", documents, np.int64(1))
    assert asked == Arguments("query", TEXTS, 1, None)
    assert {type(text) for text in asked.documents} == {str}
    assert type(asked.top_n) is int


def test_strings_of_numpy_are_strings() -> None:
    asked = checked(np.str_("query"), [np.str_("first")], instruct=np.str_("Find."))
    assert [type(text) for text in (asked.query, *asked.documents, asked.instruct)] == [str] * 3


def test_no_documents_are_no_mistake() -> None:
    assert checked("query", []).documents == ()


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("abc", "The documents are one string: send a list of strings"),
        (b"abc", "The documents are one run of bytes"),
        ({"a": "b"}, r"The documents are one object \(dict\)"),
        ({"a", "b"}, "are a set, which has no order"),
        (types.SimpleNamespace(columns=["text"]), "are a table: send one of its columns"),
        (None, "The documents are None"),
        (7, r"The documents are of type int \(7\)"),
        (float("nan"), "The documents are NaN"),
        (np.array("abc"), "The documents are of type ndarray"),
        (["a", None], "Document 1 is None: send a string"),
        (["a", "b", float("nan")], "Document 2 is NaN, a missing value"),
        (["a", np.float64("nan")], "Document 1 is NaN, a missing value"),
        ([b"a"], r"Document 0 is bytes \(bytes\), not text: decode them"),
        (["a", 3], r"Document 1 is of type int \(3\)"),
        (["a", True], r"Document 1 is of type bool \(True\)"),
        ([["a"]], "Document 0 is of type list"),
        (np.array([["a", "b"]]), "Document 0 is of type ndarray"),
        (["a", {"content": "b"}], r"Document 1 is an object \(dict\) without 'text'"),
        ([{"text": None}], "The 'text' of document 0 is None"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_with_its_place(documents: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        checked("query", documents)


async def generator() -> Any:
    yield "a"


def test_an_asynchronous_generator_is_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="collect them in a list first"):
        checked("query", generator())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": None}, "The query is None: send a string"),
        ({"query": 5}, r"The query is of type int \(5\)"),
        ({"query": ["a"]}, "The query is of type list"),
        ({"instruct": 5}, r"The instruct is of type int \(5\)"),
        ({"top_n": 0}, "top_n must be at least 1, or left out for all; it is 0"),
        ({"top_n": -1}, "top_n must be at least 1"),
        ({"top_n": np.int64(0)}, "top_n must be at least 1"),
        ({"top_n": 1.5}, r"top_n is of type float \(1\.5\): send a whole number"),
        ({"top_n": "3"}, "top_n is of type str: send a whole number"),
        ({"top_n": True}, r"top_n is of type bool \(True\)"),
    ],
)
def test_the_other_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        checked(**{"query": "query", "documents": TEXTS, **arguments})


@pytest.mark.parametrize("query", ["", " \n"])
def test_an_empty_query_is_warned_of(query: str) -> None:
    assert checked(query, TEXTS).warnings == ("the query is empty: the scores mean little",)
