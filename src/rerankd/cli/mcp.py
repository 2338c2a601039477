"""`rerankd mcp PATH …`: offers search and ranking to assistants, by the Model Context Protocol over stdin and stdout.

Protocol: https://modelcontextprotocol.io, through its official SDK. An assistant reaches only the folders that the
command line names.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rerankd.cli.indexing import FILES, STAGE, FileOptions, StageOptions, embedder_of, opened
from rerankd.cli.options import COUNT, NONE_GIVEN, Given, command, settings_from, takes
from rerankd.cli.scoring import LOCAL, RemoteOptions, ranker_of
from rerankd.config import RankSettings
from rerankd.errors import InvalidRequest, MissingExtra, RerankdError
from rerankd.rankers import Ranker
from rerankd.search.hit import Hit
from rerankd.search.index import Index
from rerankd.search.order import shown_order
from rerankd.types import DEFAULT_INSTRUCT
from rerankd.version import __version__

app = command("mcp")

MOST_RESULTS = 50

INSTRUCTIONS = (
    "Use `search` to find passages of the user's files by a question or by words, in any language; each result names "
    "its file and lines. Use `rerank` to sort texts that you already have by how well they answer a query."
)


@app.default
@takes(RankSettings)
def mcp(
    *paths: Annotated[Path, Parameter(name="PATH")],
    depth: Annotated[int, COUNT] = 50,
    files: FileOptions = FILES,
    stage: StageOptions = STAGE,
    remote: RemoteOptions = LOCAL,
    given: Given = NONE_GIVEN,
) -> int:
    """Offer search and ranking to an assistant, by the Model Context Protocol on stdin and stdout.

    Its tools are `search`, where folders are named, and `rerank`. The model loads at the first call.

    Args:
        paths: folders or files that the assistant may search; it reaches no other
        depth: parts that the first stage finds and the model ranks
    """
    settings = settings_from(RankSettings, given)
    for path in paths:
        if not path.exists():
            raise InvalidRequest(f"There is no {path}.")
    if files.index and len(paths) > 1:
        raise InvalidRequest("--index keeps one folder's index: leave it out, or name one folder.")
    with ExitStack() as stack:
        tools = Tools(stack, settings, remote, given.get("model"), paths, depth, files, stage)
        _server(tools, has_folders=bool(paths)).run("stdio")
    return 0


@dataclass(frozen=True, slots=True)
class Result:
    """One result, as an assistant reads it.

    Attributes:
        score: how well the text answers the query, in [0, 1] for a reranker.
        source: `file:first-last line`, or the number of the document.
        id: of the record in a corpus; empty for any other file.
    """

    source: str
    score: float
    text: str
    id: str = ""


@dataclass(frozen=True)  # the SDK takes slots for defaults
class Reply:
    """The results of a call, best first. warnings: whatever was not done as asked, such as a text that was cut."""

    results: list[Result]
    warnings: list[str]


class Tools:
    """What the tools do. One thread at a time loads the model or updates an index."""

    def __init__(
        self,
        stack: ExitStack,
        settings: RankSettings,
        remote: RemoteOptions,
        model: str | None,
        paths: Sequence[Path],
        depth: int,
        files: FileOptions,
        stage: StageOptions,
    ) -> None:
        self._stack, self._settings, self._remote, self._model = stack, settings, remote, model
        self._paths, self._depth, self._files, self._stage = paths, depth, files, stage
        self._embedder = embedder_of(stage, settings.device, offline=settings.offline)
        self._indexes: dict[Path, Index] = {}
        self._lock = threading.Lock()
        self._opened: Ranker | None = None

    def _ranker(self) -> Ranker:
        with self._lock:
            if self._opened is None:
                with redirect_stdout(sys.stderr):  # stdout belongs to the protocol
                    self._opened = self._stack.enter_context(ranker_of(self._remote, self._settings, self._model))
            return self._opened

    def _index(self, path: Path) -> Index:
        """Updated; the embedder loads once for each path."""
        if path in self._indexes:
            self._indexes[path].update()
        else:
            self._indexes[path] = opened(path, self._files, self._stage, self._embedder)
        return self._indexes[path]

    def rerank(self, query: str, documents: list[str], top_n: int = 10, instruct: str = DEFAULT_INSTRUCT) -> Reply:
        """Sort texts by how well they answer a query, best first.

        Args:
            query: a question or words, in any language
            documents: the texts
            top_n: results, 1 to 50
            instruct: the task that the texts are sorted for
        """
        _check(query, top_n)
        ranking = self._ranker().rank(query, documents, top_n=top_n, instruct=instruct)
        found = [Result(str(one.index), round(one.score, 6), documents[one.index]) for one in ranking.ranked]
        return Reply(found, list(ranking.warnings))

    def search(self, query: str, top_n: int = 10, only: list[str] | None = None) -> Reply:
        """Find passages of the user's files that answer a query, best first.

        Args:
            query: a question or words, in any language
            top_n: results, 1 to 50
            only: patterns of paths, such as `docs/` or `*.md`; only such files are searched
        """
        _check(query, top_n)
        with self._lock, redirect_stdout(sys.stderr):
            found = [
                (path, hit)
                for path in self._paths
                for hit in self._index(path).search(query, self._depth, only=only or ())
            ]
        if not found:
            return Reply([], [])
        ranking = self._ranker().rank(query, [hit.document for _, hit in found])
        scores = {one.index: one.score for one in ranking.ranked}
        places = [str(path / hit.whole) for path, hit in found]
        order = shown_order([one.index for one in ranking.ranked], places, ranking.model or "")[:top_n]
        return Reply([_result(*found[place], scores[place]) for place in order], list(ranking.warnings))


def _result(path: Path, hit: Hit, score: float) -> Result:
    """A part, with its file and lines, so that an assistant can open it."""
    place = (path if path.is_dir() else path.parent) / (hit.whole if hit.id else hit.source)
    return Result(str(place), round(score, 6), hit.text, hit.id)


def _check(query: str, top_n: int) -> None:
    """Raises InvalidRequest, from whose words an assistant learns."""
    if not query.strip():
        raise InvalidRequest("The query is empty.")
    if not 1 <= top_n <= MOST_RESULTS:
        raise InvalidRequest(f"top_n may be 1 to {MOST_RESULTS}; it is {top_n}.")


def _server(tools: Tools, *, has_folders: bool) -> Any:
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise MissingExtra("The server for assistants", error, "serve HTTP with rerankd serve", "mcp") from None
    server = MCPServer("rerankd", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")

    def said(tool: Any) -> Any:
        """Mistakes become the tool's answer, which an assistant reads and mends."""
        from functools import wraps

        @wraps(tool)
        def call(*args: Any, **options: Any) -> Any:
            try:
                return tool(*args, **options)
            except RerankdError as error:
                raise ToolError(str(error)) from error

        return call

    for tool in (tools.rerank, tools.search) if has_folders else (tools.rerank,):
        server.tool(tool.__name__, description=getdoc(tool))(said(tool))
    return server
