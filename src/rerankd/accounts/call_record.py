"""One call as the list of calls keeps it. Knows no database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A rerank call that ended. Holds no text of the caller but the request id.

    Attributes:
        time: when it ended.
        request_id: as the reply has it.
        dialect: the API.
        model: the name of the model that scored; None: the call was refused before its model was found.
        documents, tokens: what was ranked; None for a call that was not answered.
        cost: in millionths of the currency.
        error: the class of the error; None for a call that was answered.
        reason: why it was refused, in a sentence.
    """

    time: datetime
    account_id: int
    key_id: int
    request_id: str
    dialect: str
    status: int
    milliseconds: int
    model: str | None = None
    documents: int | None = None
    tokens: int | None = None
    cost: int = 0
    error: str | None = None
    reason: str | None = None
