"""`rerankd serve`."""

from __future__ import annotations

from rerankd.cli.log import log_to_stderr
from rerankd.cli.options import NONE_GIVEN, Given, command, settings_from, takes
from rerankd.config import ServerSettings

app = command("serve")


@app.default
@takes(ServerSettings)
def serve(*, given: Given = NONE_GIVEN) -> int:
    log_to_stderr()
    settings = settings_from(ServerSettings, given)
    log_to_stderr(settings.log_level, settings.log_format)
    from rerankd.cli import serving

    return serving.serve(settings)
