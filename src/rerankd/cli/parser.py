"""The command line's parser: whole option names, files after options, mistakes with a way out, examples in the help."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from rerankd.cli.examples import EXAMPLES


class Parser(argparse.ArgumentParser):
    """Of the whole command, or of one subcommand, which makes its own excuses. The name decides the examples."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **{**options, "allow_abbrev": False})
        if examples := EXAMPLES.get(self.prog):
            self.epilog = "\n".join(["examples:", *(f"  {example}" for example in examples)])

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Takes files wherever they stand, and refuses what is left over here: the root does not know the options."""
        self.usage = self.usage or self._short_usage()
        namespace, rest = super().parse_known_args(args, namespace)
        if unknown := [text for text in self._before_files(rest) if text.startswith("-") and text != "-"]:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown[0])}")
        if rest and (last := self._last_positional()):
            found: list[str] = getattr(namespace, last)
            setattr(namespace, last, [*found, *(text for text in rest if text != "--")])
        elif rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return namespace, []

    def error(self, message: str) -> NoReturn:
        """The usage in one line, the mistake in the next."""
        self.exit(2, f"{self.format_usage()}{self.prog}: error: {message}\n")

    def refuse_command(self, name: str, known: Sequence[str]) -> NoReturn:
        """There is no such subcommand."""
        close = difflib.get_close_matches(name, known, 1)
        meant = f"; did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}"
        self.error(f"there is no command {name!r}{meant}")

    def _short_usage(self) -> str:
        """Options by name are the help's: `serve` has 60."""
        words = [self.prog, "[options]"]
        for action in self._get_positional_actions():
            name = str(action.metavar or action.dest)
            words.append({"*": f"[{name} ...]", argparse.PARSER: f"{name} ..."}.get(str(action.nargs), name))
        return " ".join(words).replace("%", "%%")

    def _before_files(self, rest: Sequence[str]) -> Sequence[str]:
        return rest[: rest.index("--")] if "--" in rest else rest

    def _last_positional(self) -> str | None:
        """The one that takes any number of arguments, if there is one."""
        several = [action.dest for action in self._get_positional_actions() if action.nargs == "*"]
        return several[-1] if several else None

    def _meant(self, text: str) -> str:
        """`--topn` → `; did you mean --top-n?`"""
        name = text.partition("=")[0]
        known = [option for option in self._option_string_actions if option.startswith("--")]
        begun = [option for option in known if option.startswith(name)] if re.match("--.", name) else []
        close = begun or difflib.get_close_matches(name, known, 1)
        return f"; did you mean {' or '.join(close[:3])}?" if close else ""
