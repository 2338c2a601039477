"""The assumptions of the simulation about machine, front, network and database: each number by name."""

from __future__ import annotations

from dataclasses import dataclass

TEMPLATE_TOKENS = 86
"""Around a document: system prompt, default instruct and a query of 12 tokens, which a part of a call shares (77), and
the end (9)."""

SHARED_TOKENS = 77

CACHED_TOKENS = 61
"""The shared tokens before the query. A replica keeps their keys and values (`engine/qwen3/shared_prefix.py`)."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine.

    Attributes:
        token_s: seconds a computed token.
        batch_s: seconds a batch, beside those of its tokens.
        max_batch_tokens: see `Engine.max_batch_tokens`.
    """

    token_s: float
    batch_s: float = 0.0
    max_batch_tokens: int = 512

    def seconds(self, tokens: int) -> float:
        """The time of a batch."""
        return self.batch_s + tokens * self.token_s

    @classmethod
    def from_rate(cls, documents_per_s: float, document_tokens: int, max_batch_tokens: int = 512) -> Replica:
        """A replica with a known rate, whose batches cost nothing beside their tokens."""
        own = document_tokens + TEMPLATE_TOKENS - SHARED_TOKENS
        return cls(1 / (documents_per_s * own), 0.0, max_batch_tokens)


@dataclass(frozen=True, slots=True)
class Front:
    """One server process that tokenises, routes and answers; its work is one after the other.

    Attributes:
        call_s: processor time a call, beside that of its documents.
        document_s: of a document, beside that of its tokens.
        token_s: of a token: reading, tokenising, sending.
    """

    call_s: float = 1.0e-3
    document_s: float = 20e-6
    token_s: float = 0.4e-6

    def seconds(self, documents: int, tokens: int) -> float:
        """The time of a call. tokens: of all documents."""
        return self.call_s + documents * self.document_s + tokens * self.token_s


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts between the fronts and the replicas, and beside them.

    Attributes:
        hop_s: from a front to a replica or back: packing, the network, unpacking.
        text_bytes: of a token on its way to a front.
        id_bytes: of a token on its way to a replica.
        network_bytes_per_s: of a front's network.
        database_s: time of the accounts' database a call, all fronts together; 0 without accounts.
    """

    hop_s: float = 5e-3
    text_bytes: float = 5.0
    id_bytes: float = 4.0
    network_bytes_per_s: float = 1.25e9
    database_s: float = 0.5e-3
