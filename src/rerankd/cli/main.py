"""Reads the command line and runs one subcommand. Subcommands import what they need when they run."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from rerankd.errors import RerankdError
from rerankd.version import __version__

COMMANDS = {
    "serve": "serve the rerank APIs over HTTP",
    "rank": "rank lines, files or folders for a query",
    "config": "show the settings in force, and where each was set",
    "doctor": "check this machine, the model and its scores",
    "bench": "measure speed and memory",
    "accounts": "make and change the accounts of callers",
    "keys": "make, list and revoke API keys",
    "credits": "add to an account's balance",
    "usage": "what was charged, by day, key, model or account",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Errors of ours become one line on stderr and status 1."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="rerankd", description="Qwen3-Reranker on your own hardware.", epilog="rerankd COMMAND --help tells more."
    )
    parser.add_argument("--version", action="version", version=f"rerankd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name in arguments[:1]:  # only the one that runs loads what its options need
            try:
                import_module(f"rerankd.cli.{name}").add_options(subparser)
            except ImportError as error:
                return _missing(name, error)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        status: int = import_module(f"rerankd.cli.{options.command}").run(options)
        return status
    except ImportError as error:
        return _missing(options.command, error)
    except RerankdError as error:
        print(f"rerankd {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _missing(command: str, error: ImportError) -> int:
    hint = ", or ask a server with --url" if command == "rank" else ""
    print(f"rerankd {command}: {error.name} is missing: pip install 'rerankd[server]'{hint}", file=sys.stderr)
    return 1
