"""A line of the price list as it holds on this server: the page, `/v1/rates` and `/v1/models` show this one."""

from __future__ import annotations

from dataclasses import asdict

from rerankd.admission.gate import merge_limits
from rerankd.config import ServerSettings
from rerankd.prices import Price
from rerankd.server.models import Models


def in_force(price: Price, models: Models, settings: ServerSettings) -> Price:
    """The line with the limits in force. The context and the languages of the loaded model win over those of the list.

    The list's limits are those of accounts; without accounts, the server's own hold.
    """
    limits = merge_limits(price.limits, settings.limits) if settings.accounts else settings.limits
    facts = asdict(limits)
    served = models.names().get(price.model)
    if served is not None:
        info = served.scorer.info
        facts["context"] = min(info.max_tokens, settings.max_context)
        facts["languages"] = ", ".join(info.languages) or price.languages
    return price.model_copy(update=facts)
