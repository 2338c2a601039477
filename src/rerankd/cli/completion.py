"""`rerankd completion SHELL`: a script that completes commands, options and file names without running rerankd."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Literal

from cyclopts import App, Parameter

from rerankd.cli.main import COMMANDS, root
from rerankd.cli.options import command

app = command("completion")


@app.default
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="the shell", metavar="SHELL")], /
) -> int:
    complete = root()
    for name, summary in COMMANDS.items():
        try:
            import_module(f"rerankd.cli.{name}")
        except ImportError:  # without an extra, the command is completed, its options are not
            del complete[name]
            complete.command(App(name=name, help=summary))
    print(complete.generate_completion(prog_name="rerankd", shell=shell))
    return 0
