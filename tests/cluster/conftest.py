"""Ray reads these when it is imported; a server that starts a Ray of its own sets others."""

from __future__ import annotations

import os

os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
