"""Recorded replies of other servers, asked again of rerankd: the same status, shape and protocol words.

`tests/captures` holds what vLLM, llama.cpp and Infinity answered, with random weights: scores mean nothing there, and
are not compared. vLLM's requests go to the paths as recorded, those of the other two to their folders. Where rerankd
means to differ, `DIFFERENCES` says so, as docs/compatibility.md does; both must be complete and up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.server import Server, StartServer

CAPTURES = Path(__file__).parent.parent / "captures"
COMPATIBILITY = Path(__file__).parent.parent.parent / "docs" / "compatibility.md"

VLLM, LLAMA_CPP, INFINITY = "vLLM 0.32", "llama.cpp", "Infinity 0.0.78"
FILES = {VLLM: "vllm-0.32.json", LLAMA_CPP: "llama.cpp.json", INFINITY: "infinity.json"}
FOLDERS = {  # of rerankd, for the paths that a folder has
    VLLM: (re.compile("(?!)"), ""),
    LLAMA_CPP: (re.compile(r"/(v1/)?rerank(ing)?"), "/llamacpp"),
    INFINITY: (re.compile(r"/rerank|/health"), "/infinity"),
}

LONG = "word " * 5000
SHORTENED = " … (25000 characters)"
"""How the recorder wrote LONG."""

WORDS = {"object", "type", "code", "param", "loc", "prompt_tokens", "total_tokens"}
"""Fields whose value is part of the protocol, or follows from the tokenizer, which vLLM and llama.cpp had from Qwen."""

HEADERS = ("content-type", "allow", "www-authenticate")

ANYWHERE: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """Something that rerankd does otherwise on purpose.

    where: by server, the cases that it changes, or ANYWHERE. changes: as `changes_of` writes them; an asterisk at the
    end stands for the rest.
    """

    name: str
    reason: str
    where: Mapping[str, tuple[str, ...]]
    changes: tuple[str, ...]

    def explains(self, server: str, case: str, change: str) -> bool:
        if server not in self.where or (self.where[server] != ANYWHERE and case not in self.where[server]):
            return False
        return any(change == one or (one.endswith("*") and change.startswith(one[:-1])) for one in self.changes)


OBJECTS = ("document objects", "document objects extra keys")

DIFFERENCES = (
    Difference(
        "`object` and `meta` beside the results",
        "Cohere's, Jina's and Xinference's clients read the same path.",
        {VLLM: ANYWHERE},
        ("added object", "added meta"),
    ),
    Difference(
        "a document without `multi_modal: null`",
        "The model reads text only, and some clients know no null there.",
        {VLLM: ANYWHERE},
        ("missing results[].document.multi_modal",),
    ),
    Difference(
        "`return_documents: false` leaves the documents out",
        "Cohere's and Jina's clients ask for it; vLLM ignores it.",
        {VLLM: ("return_documents false",)},
        ("missing results[].document",),
    ),
    Difference(
        "`message`, `detail`, `code`, `request_id` and `id` beside `error`",
        "The clients of Cohere, Voyage, Jina and DashScope look there.",
        {VLLM: ANYWHERE},
        ("added message", "added detail", "added code", "added request_id", "added id"),
    ),
    Difference(
        "`unix` and `fallback` in `/health`",
        "Infinity's clients read the same path.",
        {LLAMA_CPP: ("GET /health",)},
        ("added fallback", "added unix"),
    ),
    Difference(
        "`usage.completion_tokens` is 0",
        "Together's client insists on it.",
        {VLLM: ANYWHERE},
        ("added usage.completion_tokens",),
    ),
    Difference(
        "a model's card has `model_type`, `model_uid`, `model_name` and `replica` too",
        "Xinference's clients read the same path.",
        {VLLM: ("GET /v1/models",)},
        tuple(f"added data[].{key}" for key in ("model_type", "model_uid", "model_name", "replica")),
    ),
    Difference(
        "a missing or wrong key is reported in an object, `error.message`",
        "The openai SDK reads an object; on `/v1/score` it is vLLM's bare string.",
        {VLLM: ("no key", "wrong key", "basic scheme")},
        ("error: str, here dict",),
    ),
    Difference(
        "a key is asked for on `/rerank` too",
        "vLLM guards `/v1` and `/v2` only; here nobody gets in by accident.",
        {VLLM: ("no key /rerank",)},
        ("status 200, here 401",),
    ),
    Difference(
        "a document that is not a text is named by its index",
        "It says which one is wrong.",
        {VLLM: ("document number", "document null")},
        ("error.param: 'body.documents', here 'body.documents.0'",),
    ),
    Difference(
        "null is accepted for every optional field",
        "SDKs send it for what their caller left out.",
        {VLLM: ("top_n null", "max_tokens_per_doc null"), INFINITY: ("null model",)},
        ("status 400, here 200", "status 422, here 200"),
    ),
    Difference(
        "documents may be objects with the key `text`",
        "Jina's, Cohere's and Pinecone's callers send them.",
        {VLLM: OBJECTS, LLAMA_CPP: OBJECTS, INFINITY: OBJECTS},
        ("status 400, here 200", "status 422, here 200"),
    ),
    Difference(
        "a document's parts of the type `text` are read",
        "vLLM refuses them for a model without images.",
        {VLLM: ("documents content parts",)},
        ("status 400, here 200",),
    ),
    Difference(
        "`qwen3-rerank` and the other names of `/v1/models` are the served model",
        "Some clients always send their own model name.",
        {VLLM: ("qwen3-rerank", "GET /v1/models")},
        ("status 404, here 200", "data: 1 items, here 6"),
    ),
    Difference(
        "`instruct` and `instruction` are both read",
        "Each is some server's name for the same; a field that is ignored spoils the scores.",
        {VLLM: ("instruct",), LLAMA_CPP: ("instruct", "instruction")},
        ("usage.*",),
    ),
    Difference(
        "an instruct inside the query is lifted out",
        "The model was not trained on it there; `--no-lift-instruct` keeps it.",
        {VLLM: ("instruction in query",)},
        ("usage.*",),
    ),
    Difference(
        "a body with `texts` is text-embeddings-inference's",
        "Its clients ask the same path.",
        {VLLM: ("texts body",)},
        ("status 400, here 200",),
    ),
    Difference(
        "`PUT /v1/rerank` is SGLang's",
        "Only SGLang has it.",
        {VLLM: ("PUT rerank",)},
        ("status 405, here 200",),
    ),
    Difference(
        "`GET` on a rerank path is refused with the error of the API",
        "One shape for every error of a path.",
        {VLLM: ("GET rerank",)},
        ("added error", "header allow: POST, here POST, PUT"),
    ),
    Difference(
        "control strings in a text are text",
        "As control tokens a document could end its own prompt and answer for itself.",
        {VLLM: ("tokenize",)},
        ("tokens: 4 items, here 7",),
    ),
    Difference(
        "`/health` and `/ping` have a body",
        "They say what is served, and on what.",
        {VLLM: ("GET /health", "GET /ping"), LLAMA_CPP: ("GET /health",)},
        (": str, here dict", "added model", "added device", "added dtype", "added prompt_id", "added warning"),
    ),
    Difference(
        "no `/props`",
        "Not served.",
        {LLAMA_CPP: ("GET /props",)},
        ("status 200, here 404",),
    ),
    Difference(
        "`/v1/models`, `/tokenize` and `/detokenize` are vLLM's",
        "One path can have one shape only.",
        {LLAMA_CPP: ("GET /v1/models", "tokenize", "detokenize")},
        ("added *", "missing *", "data: 1 items, here 5", "tokens: 0 items, here 7"),
    ),
    Difference(
        "a path that is not served is reported under `detail`",
        "It names the paths that are; vLLM and Infinity have the same key.",
        {LLAMA_CPP: ("no such path",)},
        ("missing error", "added detail"),
    ),
    Difference(
        "a wrong `top_n`, and a body that is not JSON, are the caller's mistake",
        "llama.cpp answers 500, and 200 for a fraction, which it cuts off.",
        {LLAMA_CPP: ("top_n -1", "top_n 1.5", "not json", "empty body")},
        ("status 500, here 400", "status 200, here 400"),
    ),
    Difference(
        "a `top_n` that is a number in quotes counts",
        "vLLM and Infinity read it; llama.cpp ignores it.",
        {LLAMA_CPP: ("top_n '2'",)},
        ("results: 3 items, here 2",),
    ),
    Difference(
        "a mistake has no `ctx`, and `input` only where it is short and plain",
        "A refused body is not sent back.",
        {INFINITY: ANYWHERE},
        ("missing detail[].ctx", "detail[].input: *"),
    ),
    Difference(
        "of the items of a list only the first error is reported",
        "Those of a list with a million items would fill the memory.",
        {INFINITY: ("document number",)},
        ("detail: 2 items, here 1",),
    ),
    Difference(
        "a field that is unknown is named among the mistakes",
        "The mistake is mostly its spelling.",
        {INFINITY: ("texts body",)},
        ("detail: 1 items, here 2",),
    ),
    Difference(
        "the body is read as JSON whatever its type is declared to be",
        "Nothing else can be meant.",
        {INFINITY: ("text content type",)},
        ("status 422, here 200",),
    ),
    Difference(
        "`usage` counts the tokens that were computed",
        "The recorded server counts characters.",
        {INFINITY: ANYWHERE},
        ("usage.*",),
    ),
)


@dataclass(frozen=True)
class Case:
    """A recorded request and its reply."""

    server: str
    name: str
    recorded: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.server}: {self.name}"

    def ask(self, server: Server) -> httpx2.Response:
        """The same request, of rerankd."""
        paths, folder = FOLDERS[self.server]
        path = self.recorded["path"]
        url = server.url + (folder + path if paths.fullmatch(path) else path)
        request = _whole(self.recorded["request"])
        content = json.dumps(request) if isinstance(request, dict) else request
        kind = {"Content-Type": "application/json"} if content is not None else {}
        headers = {"Authorization": f"Bearer {server.key}", **kind, **self.recorded["request_headers"]}
        return httpx2.request(self.recorded["method"], url, content=content, headers=headers, timeout=60)

    def changes(self, response: httpx2.Response) -> list[str]:
        """What is otherwise in rerankd's reply; a different status says it all."""
        if response.status_code != self.recorded["status"]:
            return [f"status {self.recorded['status']}, here {response.status_code}"]
        is_json = response.headers.get("content-type", "").startswith("application/json")
        body = response.json() if is_json else response.text
        changes = [*_changes_of(self.recorded["response"], body, ""), *self._header_changes(response)]
        return list(dict.fromkeys(changes))

    def _header_changes(self, response: httpx2.Response) -> Iterator[str]:
        for name in HEADERS:
            if (recorded := self.recorded["headers"].get(name)) is None:
                continue
            here = response.headers.get(name)
            if here is None:
                yield f"header {name} missing"
            elif here.partition(";")[0] != recorded.partition(";")[0]:
                yield f"header {name}: {recorded}, here {here}"


def _cases() -> Iterator[Case]:
    for server, file in FILES.items():
        for recorded in json.loads((CAPTURES / file).read_text())["cases"]:
            yield Case(server, recorded["case"], recorded)


CASES = tuple(_cases())


def _whole(value: Any) -> Any:
    """The request as it was sent."""
    if isinstance(value, str):
        return LONG if value.endswith(SHORTENED) else value
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value


def _changes_of(recorded: Any, here: Any, path: str) -> Iterator[str]:
    """Keys, types and lengths, all the way down, and the values of the protocol's words."""
    if type(recorded) is not type(here):
        yield f"{path}: {type(recorded).__name__}, here {type(here).__name__}"
    elif isinstance(recorded, dict):
        prefix = f"{path}." if path else ""
        yield from (f"missing {prefix}{key}" for key in recorded if key not in here)
        yield from (f"added {prefix}{key}" for key in here if key not in recorded)
        for key in recorded:
            if key in here:
                yield from _changes_of(recorded[key], here[key], f"{prefix}{key}")
    elif isinstance(recorded, list):
        if len(recorded) != len(here):
            yield f"{path}: {len(recorded)} items, here {len(here)}"
        for one, other in zip(recorded, here, strict=False):
            yield from _changes_of(one, other, f"{path}[]")
    elif re.sub(r".*\.|\[\]", "", path) in WORDS and recorded != here:
        yield f"{path}: {recorded!r}, here {here!r}"


@pytest.fixture(scope="module")
def vllm_server(start_server: StartServer, tiny_checkpoint: Path) -> Server:
    """Started as the recorded server of vLLM was."""
    options = ("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test")
    return start_server(*options, "--max-context", "2048", "--alias", "Qwen/Qwen3-Reranker-0.6B", key="test-key")


@pytest.fixture(scope="module")
def replayed(vllm_server: Server, qwen_server: Server) -> dict[tuple[str, str], list[str]]:
    """By server and case: what has changed."""
    return {
        (case.server, case.name): case.changes(case.ask(vllm_server if case.server == VLLM else qwen_server))
        for case in CASES
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_recorded_reply_but_for_what_is_listed(case: Case, replayed: Mapping[tuple[str, str], list[str]]) -> None:
    changes = replayed[case.server, case.name]
    assert not [
        change for change in changes if not any(one.explains(case.server, case.name, change) for one in DIFFERENCES)
    ]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_each_listed_difference_is_one(difference: Difference, replayed: Mapping[tuple[str, str], list[str]]) -> None:
    for server, cases in difference.where.items():
        found = {
            case
            for (of, case), changes in replayed.items()
            if of == server and any(difference.explains(server, case, change) for change in changes)
        }
        assert found >= set(cases) and found, f"{server}: no longer so in {set(cases) - found or 'any case'}"
    for change in difference.changes:
        assert any(
            difference.explains(server, case, found) and (found == change or change.endswith("*"))
            for (server, case), changes in replayed.items()
            for found in changes
        ), f"never: {change}"


def test_a_case_is_named_once() -> None:
    assert len({(case.server, case.name) for case in CASES}) == len(CASES) > 200


def test_the_documentation_lists_every_difference() -> None:
    section = COMPATIBILITY.read_text().partition("## Differences from recorded servers\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert rows == [f"| {one.name} | {', '.join(one.where)} | {one.reason} |" for one in DIFFERENCES]
