"""Writes the pages beside this file from the code: `make reference`. `--check` only compares them."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from rerankd.apis import facts
from rerankd.apis.facts import ApiFacts
from rerankd.cli.examples import EXAMPLES
from rerankd.cli.main import root
from rerankd.config import GROUPS, SECRETS, ServerSettings
from rerankd.environment import PREFIX
from rerankd.setting import Setting, settings_of

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by `make reference`. Edit the code, not this file. -->\n\n"

SETTINGS = """# Settings reference

Every setting of `rerankd serve`. The option overrides the variable, the variable overrides the name in the TOML file,
and the file overrides the default; [Settings](../settings.md) explains them. `rerankd rank`, `doctor` and the commands
about accounts read those of these settings that their own `--help` lists.

A variable marked with * may instead end in `_FILE` and name a file that holds the value.
"""


APIS = """# APIs

Every API that the server answers, with the names of its fields. A path of its own answers one API only. On a shared
path the body decides; [api.md](../api.md) says how. The method is POST unless the table names another one. The server
also answers Infinity under `--infinity-prefix`. `/docs` on a running server describes every field.

"""


def settings_page() -> str:
    """docs/reference/settings.md."""
    return NOTE + SETTINGS + "".join(_group(title) for title in GROUPS)


def cli_page() -> str:
    """docs/reference/cli.md."""
    page = root().generate_docs(output_format="markdown")
    sections = re.split(r"^(?=#+ rerankd)", page, flags=re.MULTILINE)
    return NOTE + "\n".join(map(_with_examples, filter(None, sections)))


def apis_page() -> str:
    """docs/reference/apis.md."""
    shared = Counter((method, path) for one in facts.ALL for method, path in _paths(one))
    rows = [_api(one, shared) for one in facts.ALL]
    head = "| API | own paths | shared paths | `Client(dialect=…)` | texts, best *n* | results, score |\n"
    return NOTE + APIS + head + "|---|---|---|---|---|---|\n" + "".join(rows)


def _paths(one: ApiFacts) -> list[tuple[str, str]]:
    return [*(("POST", path) for path in one.paths), *(("PUT", path) for path in one.put_paths)]


def _api(one: ApiFacts, shared: Counter[tuple[str, str]]) -> str:
    own = [key for key in _paths(one) if shared[key] == 1]
    others = [key for key in _paths(one) if shared[key] > 1]
    fields = ", ".join(f"`{name}`" for name in (one.query, one.documents, one.top_n) if name)
    client = f"`{one.client}`" if one.client else "–"
    results = f"`{one.results}`" if one.results else "a list"
    return f"| {one.title} | {_list(own)} | {_list(others)} | {client} | {fields} | {results}, `{one.score}` |\n"


def _list(keys: list[tuple[str, str]]) -> str:
    shown = (f"`{method} {path}`" if method != "POST" else f"`{path}`" for method, path in keys)
    return ", ".join(shown).replace("{path:path}", "…") or "–"


def _with_examples(section: str) -> str:
    heading = section.partition("\n")[0].lstrip("# ")
    lines = "\n".join(EXAMPLES[heading])
    return f"{section.rstrip()}\n\n**Examples**:\n\n```sh\n{lines}\n```\n"


def _group(title: str) -> str:
    rows = [_row(one) for one in settings_of(ServerSettings).values() if one.rule.group == title]
    head = "| option | variable, name in the file | default | meaning |\n|---|---|---|---|\n"
    return f"\n## {title}\n\n{head}{''.join(rows)}"


def _row(one: Setting) -> str:
    secret = " *" if one.name in SECRETS else ""
    return (
        f"| {_option(one)} | `{PREFIX}{one.name.upper()}`{secret}<br>`{one.name}` | {_default(one)} | {_help(one)} |\n"
    )


def _option(one: Setting) -> str:
    if one.type is bool:
        return f"`--no-{one.option[2:]}`" if one.default else f"`{one.option}`"
    value = "\\|".join(one.choices) or one.rule.metavar or "N"
    return f"`{one.option} {value}`"


def _default(one: Setting) -> str:
    if one.type is bool:
        return "on" if one.default else "off"
    return f"`{one.shown_default}`" if one.shown_default else "–"


def _help(one: Setting) -> str:
    limits = (("at least", one.rule.at_least), ("at most", one.rule.at_most))
    bounds = ", ".join(f"{word} {bound:,}" for word, bound in limits if bound)
    return (one.rule.help + (f" ({bounds})" if bounds else "")).replace("|", "\\|")


PAGES = {"settings.md": settings_page, "cli.md": cli_page, "apis.md": apis_page}


def main(arguments: list[str]) -> int:
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"{', '.join(stale)} are stale: run make reference", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
