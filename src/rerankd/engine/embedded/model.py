"""The embedded model: pairs → logits, from sentence vectors and shared words. Knows no file format.

A document is read as passages of sentences. A passage's logit is a line through four numbers: how near its vector and
that of its nearest sentence are to the query's, the largest share of the query's words in one sentence, and how foreign
its script is to the query's. The document's logit is its best passage's. docs/embedded-model.md has the figures.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rerankd.engine.embedded.passages import passages
from rerankd.engine.embedded.sentence_vectors import SentenceVectors, Vector, framed
from rerankd.engine.embedded.words import Scripts, Words, foreign, scripts_of, shared
from rerankd.engine.protocols import Prompts
from rerankd.engine.text_tokens import at_most
from rerankd.types import ModelInfo, Prompt, RerankRequest

NAME = "embedded-multilingual"
LANGUAGES = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh", "zh-TW")
MAX_TOKENS = 8192  # of a query, and of a document
SPECIAL_TOKENS = 2

# logit = SLOPES · features + OFFSET; benchmarks/embedded.py fits them.
SLOPES, OFFSET = np.array((6.34, 8.03, 6.49, 2.06)), -6.12

MAX_RECENT_BYTES = 64_000_000
"""The size of the cache of documents. A text of one sentence takes 3 kB, a text of ten pages 400 kB."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query, ready to be compared with documents."""

    vector: Vector
    weights: dict[int, float]
    scripts: Scripts


@dataclass(frozen=True, slots=True)
class Passage:
    """vectors: (1 + num_sentences, DIMENSIONS), the whole passage first; words: of each sentence."""

    vectors: Vector
    words: list[array[int]]
    scripts: Scripts

    @property
    def bytes(self) -> int:
        """The approximate memory that it takes."""
        return self.vectors.nbytes + sum(200 + 8 * len(words) for words in self.words)


class EmbeddedModel:
    """Reads 16 languages without a model hub. It is not a Qwen model, and it ignores the instruct.

    Implements `engine.protocols.LoadedModel`.

    Args:
        notice: goes to every caller, e.g. that this is a fallback.
        is_fallback: it replaces a model that is not available.

    Raises:
        CheckpointNotFound: its package is not installed.
        CheckpointInvalid: its files are not the published ones.
    """

    def __init__(self, device: torch.device, notice: str | None = None, *, is_fallback: bool = False) -> None:
        self._vectors = SentenceVectors(device)
        self._vocabulary, self._counter = self._vectors.vocabulary, self._vectors.counter
        self._words = Words(self._vocabulary)
        self._recent = Recent(MAX_RECENT_BYTES)
        self.info = ModelInfo(
            name=NAME,
            kind="bi-encoder",
            prompt_id="none",
            max_tokens=MAX_TOKENS,
            device=str(device),
            dtype="float32",
            num_parameters=self._vectors.num_parameters,
            folder=str(self._vectors.folder),
            notice=notice,
            is_fallback=is_fallback,
            languages=LANGUAGES,
            reads_instruct=False,
        )

    @property
    def prompts(self) -> Prompts:
        """Itself."""
        return self

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """Query and document are read apart, so each has the whole window."""
        limits, side = request.limits, request.limits.truncation_side
        longest = limits.max_prompt_tokens if limits.on_overlong != "refuse" else None
        window = max(at_most(MAX_TOKENS, longest) - SPECIAL_TOKENS, 8)
        query_limit = at_most(window, limits.max_query_tokens)
        document_limit = at_most(window, limits.max_document_tokens)
        counted = self._counter.truncate_all
        queries = counted("query", request.queries, query_limit, window, side)
        documents = counted("document", request.documents, document_limit, window, side)
        texts = list(dict.fromkeys(text.text for text in (*queries.values(), *documents.values())))
        ids = {text: framed(found) for text, found in zip(texts, self._counter.token_ids(texts), strict=True)}
        return [
            Prompt(
                query.text,
                document.text,
                ids[query.text] + ids[document.text],
                query.tokens,
                document.tokens,
                query.truncations + document.truncations,
            )
            for query, document in zip(
                request.per_document([queries[text] for text in request.queries]),
                (documents[text] for text in request.documents),
                strict=True,
            )
        ]

    def room(self, request: RerankRequest) -> int:
        """The whole window, but no prompt over the call's limit."""
        limits, window = request.limits, MAX_TOKENS - SPECIAL_TOKENS
        if limits.max_prompt_tokens is None:
            return window
        limit = at_most(window, limits.max_query_tokens)
        queries = self._counter.truncate_all("query", request.queries, limit, window)
        longest = max(query.tokens for query in queries.values())
        return max(0, min(window, limits.max_prompt_tokens - longest - 2 * SPECIAL_TOKENS))

    def lens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each bare text."""
        return self._counter.lens(texts)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, begin and end included."""
        return str(self._vocabulary.tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, nothing added."""
        [ids] = self._counter.token_ids([text])
        return list(ids)

    def logits(self, batch: Sequence[Prompt]) -> list[float]:
        """Each document's best passage."""
        queries = self.queries(item.query for item in batch)
        documents = self.documents(item.document for item in batch)
        return [_logit(queries[item.query], documents[item.document]) for item in batch]

    def queries(self, texts: Iterable[str]) -> dict[str, Query]:
        """Text → its query."""
        distinct = list(dict.fromkeys(texts))
        vectors, words = self._vectors.of(distinct), self._words.of(distinct)
        return {
            text: Query(vectors[text], self._words.weights(some), scripts_of(text))
            for text, some in zip(distinct, words, strict=True)
        }

    def documents(self, texts: Iterable[str]) -> dict[str, list[Passage]]:
        """Text → its passages. They do not depend on the query, so recent ones are cached."""
        keys = {text: hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts}
        documents = {text: self._recent.get(key) for text, key in keys.items()}
        unknown = [text for text, document in documents.items() if document is None]
        read = dict(zip(unknown, self._read(unknown), strict=True))
        for text, document in read.items():
            self._recent.keep(keys[text], document)
        return {text: read[text] if document is None else document for text, document in documents.items()}

    def _read(self, texts: Sequence[str]) -> list[list[Passage]]:
        documents = [passages(text) for text in texts]
        flat = [passage for document in documents for passage in document]
        vectors = self._vectors.of([text for passage in flat for text in ("".join(passage), *passage)])
        words = self._words.of([sentence for passage in flat for sentence in passage])
        return [
            [
                Passage(
                    np.stack([vectors[text] for text in ("".join(passage), *passage)]),
                    [next(words) for _ in passage],
                    scripts_of("".join(passage)),
                )
                for passage in document
            ]
            for document in documents
        ]


class Recent:
    """An LRU cache of documents. Not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._documents: OrderedDict[bytes, list[Passage]] = OrderedDict()
        self._bytes, self._max_bytes = 0, max_bytes

    def get(self, key: bytes) -> list[Passage] | None:
        """The cached document, or None."""
        if key in self._documents:
            self._documents.move_to_end(key)
        return self._documents.get(key)

    def keep(self, key: bytes, document: list[Passage]) -> None:
        """Caches a document, and evicts the least recently used ones."""
        self._documents[key] = document
        self._bytes += _size(document)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(self._documents.popitem(last=False)[1])


def _size(document: list[Passage]) -> int:
    return 300 + sum(passage.bytes for passage in document)


def features(query: Query, passage: Passage) -> tuple[float, float, float, float]:
    """The cosines of the passage and of its nearest sentence, the words that one sentence shares, how foreign it is."""
    cosines = passage.vectors @ query.vector
    found = max(shared(query.weights, words) for words in passage.words)
    return float(cosines[0]), float(cosines[1:].max()), found, foreign(query.scripts, passage.scripts)


def _logit(query: Query, document: Sequence[Passage]) -> float:
    """The logit of the best passage. A document without words scores like one that shares nothing with the query."""
    return max((float(SLOPES @ features(query, passage)) for passage in document), default=0.0) + OFFSET
