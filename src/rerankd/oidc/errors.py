"""Why a sign-in at a provider fails. The messages are for the log, not for the person who signs in."""

from __future__ import annotations


class ProviderError(Exception):
    """The root."""


class ProviderUnreachable(ProviderError):
    """The provider does not answer, or not as its protocol says. A later attempt may work."""


class SignInRefused(ProviderError):
    """The provider refuses the code, or its ID token is not valid."""


class UnknownKey(SignInRefused):
    """The provider signed with a key that is not among those that it published last."""
