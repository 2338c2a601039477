"""`rerankd completion SHELL`: a script that completes commands, options and file names, without running rerankd."""

from __future__ import annotations

import argparse
from contextlib import suppress

import shtab

from rerankd.cli.main import add_options as add_options_of
from rerankd.cli.main import root_parser

SHELLS = ("bash", "zsh", "fish")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def run(options: argparse.Namespace) -> int:
    root, commands = root_parser()
    for name, parser in commands.items():
        with suppress(ImportError):  # without an extra, the command is completed, its options are not
            add_options_of(parser, name)
    print(shtab.complete(root, options.shell))
    return 0
