"""ARCHITECTURE.md is true: the import arrows, the table of folders, and the tests that it names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rerankd

SOURCE = Path(rerankd.__file__).parent
TESTS = Path(__file__).parent
PAGES = [TESTS.parent / "ARCHITECTURE.md", *sorted((TESTS.parent / "docs" / "adr").glob("0*.md"))]

# Who may import whom inside the package, beside OPEN_TO_ALL, which everybody may.
ARROWS = {
    "__init__": {"calibration", "client", "deprecation", "embedder", "local", "rankers", "search"},
    "__main__": {"cli"},
    "types": {"results"},
    "errors": set(),
    "money": set(),
    "stats": set(),
    "arguments": {"surrogates"},
    "results": set(),
    "rankers": {"arguments"},
    "testing": {"arguments"},
    "surrogates": set(),
    "deprecation": set(),
    "version": set(),
    "environment": set(),
    "settings_file": set(),
    "setting": set(),
    "tracing": set(),
    "user_folders": set(),
    "loopback": set(),
    "disk": set(),
    "config": {"environment", "loopback", "setting", "settings_file", "user_folders"},
    "prices": {"settings_file"},
    "mail": {"loopback"},
    "oidc": {"client", "loopback"},
    "accounts": {"prices"},
    "admission": {"accounts", "prices", "setting"},
    "engine": {"disk", "highlighting", "ranking", "user_folders"},
    "passages": set(),
    "splitting": {"passages"},
    "ranking": {"splitting"},
    "highlighting": {"passages", "ranking"},
    "selftest": {"ranking"},
    "compare": {"arguments", "ranking"},
    "startup": {"config", "engine", "selftest"},
    "embedder": {"engine"},
    "local": {"arguments", "calibration", "cascade", "deprecation", "engine", "ranking", "startup"},
    "calibration": set(),
    "cascade": set(),
    "batch": {"disk", "ranking", "resumable", "splitting"},
    "cluster": {"accounts", "app", "config", "engine", "server", "startup"},
    "resumable": set(),
    "files": set(),
    "search": {"disk", "embedder", "files", "runs", "user_folders"},
    "runs": {"disk", "surrogates"},
    "jobs": {"disk", "rankers", "resumable", "runs"},
    "evaluation": {"runs"},
    "capacity": {"cluster", "engine", "ranking"},
    "apis": {"ranking"},
    "server": {
        *(
            "accounts",
            "admission",
            "apis",
            "calibration",
            "cascade",
            "client",
            "config",
            "embedder",
            "highlighting",
            "mail",
            "prices",
            "ranking",
            "search",
            "setting",
            "surrogates",
            "tracing",
            "upstreams",
        ),
    },
    "upstreams": {"apis", "client", "engine", "ranking", "selftest", "settings_file", "tracing"},
    "web": {"accounts", "admission", "config", "mail", "oidc", "prices", "search", "server", "upstreams"},
    "app": {"accounts", "config", "mail", "oidc", "prices", "server", "tracing", "web"},
    "client": {"apis", "arguments", "calibration", "deprecation", "passages", "surrogates"},
    "integrations": {"client", "rankers"},
    "bench": {"engine", "client", "user_folders"},
    "cli": {
        *(
            "apis",
            "batch",
            "calibration",
            "cluster",
            "embedder",
            "evaluation",
            "files",
            "jobs",
            "passages",
            "rankers",
            "resumable",
            "search",
            "user_folders",
            "runs",
            "config",
            "environment",
            "setting",
            "prices",
            "accounts",
            "engine",
            "ranking",
            "selftest",
            "compare",
            "startup",
            "local",
            "server",
            "app",
        ),
        *("capacity", "client", "bench", "tracing", "upstreams"),
    },
}
OPEN_TO_ALL = {"types", "errors", "money", "stats", "version"}

# What only these parts may import from outside.
CONFINED = {
    "torch": {"engine", "bench", "cli"},
    "tokenizers": {"engine"},
    "ray": {"cluster"},
    "sentencex": {"passages"},
    "safetensors": {"engine", "bench"},
    "pyarrow": {"batch", "runs"},
    "yaml": {"runs"},
    "ir_measures": {"evaluation"},
    "mcp": {"cli"},
    "kreuzberg": {"files"},
    "tantivy": {"search"},
    "scipy": {"evaluation"},
    "sentence_transformers": {"engine", "bench"},
    "transformers": {"engine", "bench"},
    "fastapi": {"app", "server", "web"},
    "starlette": {"admission", "server", "web"},
    "prometheus_client": {"server"},
    "opentelemetry": {"tracing"},
    "uvicorn": {"cli", "server"},
    "pydantic": {"apis", "integrations", "prices", "server", "upstreams"},
    "limits": {"admission"},
    "redis": {"admission"},
    "cachetools": {"admission", "engine", "web"},
    "sqlalchemy": {"accounts"},
    "alembic": {"accounts"},
    "argon2": {"accounts"},
    "psycopg": {"accounts"},
    "httpx2": {"bench", "client", "oidc"},
    "langchain_core": {"integrations"},
    "llama_index": {"integrations"},
    "haystack": {"integrations"},
    "rich": {"cli"},
    "pathspec": {"files"},
    "cyclopts": {"cli"},
    "platformdirs": {"user_folders"},
    "joserfc": {"oidc"},
    "segno": {"web"},
    "jinja2": {"evaluation", "web"},
}

# Of its part, only this file may import it.
ONE_FILE = {
    "pathspec": "files/folders.py",
    "kreuzberg": "files/documents.py",
    "argon2": "accounts/passwords.py",
    "joserfc": "oidc/id_token.py",
    "segno": "web/qr.py",
    "limits": "admission/rate_limits.py",
    "redis": "admission/rate_limits.py",
}

# The modules of server/, from bottom to top: each imports only modules of the layers below its own.
SERVER_LAYERS = (
    {"connections", "encodings", "held", "interpreter", "json_text", "listening"},  # bytes and sockets
    {
        "access_log",
        "credit_mails",
        "call_headers",
        "foreign_pages",
        "forwarded",
        "openapi",
        "paths",
        "reply_headers",
        "searching",
        "validation",
    },
    {"api_errors", "beside", "hang_up", "keyed_paths", "openai_errors", "protocol", "served"},
    {"served_pool"},
    {"body", "models"},
    {"cascade", "metrics", "prices_in_force"},
    {"call_log"},
    {"context"},
    {"api_status", "call", "model_cards", "no_route", "status", "tokens"},  # routes
    {"app"},
)

FILES = sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The folder or module right under the package."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(path)
    for module in imports_of(path):
        top, _, rest = module.partition(".")
        if top == "rerankd":
            target = rest.partition(".")[0] or "__init__"
            assert target == part or target in ARROWS[part] | OPEN_TO_ALL, f"{part} must not import {module}"
        elif top in CONFINED:
            assert part in CONFINED[top], f"{part} must not import {top}"
            assert top not in ONE_FILE or path == SOURCE / ONE_FILE[top], f"only {ONE_FILE[top]} may import {top}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports in functions and for types only count, too."""
    names = {module_of(path): path for path in FILES}
    graph = {name: imported_modules(path, names) for name, path in names.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_modules(path: Path, names: Collection[str]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & set(names)
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)} & set(names)
    return found


def test_the_layers_of_the_server() -> None:
    layer_of = {name: place for place, names in enumerate(SERVER_LAYERS) for name in names}
    for path in sorted((SOURCE / "server").rglob("*.py")):
        name = path.relative_to(SOURCE / "server").parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        for module in server_modules(path) - {name}:
            assert layer_of[module] < layer_of[name], f"server/{name} must not import server/{module}"


def server_modules(path: Path) -> set[str]:
    """The modules of server/ that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rerankd.server"):
            rest = (node.module or "").split(".")[2:]
            found |= {rest[0]} if rest else {alias.name for alias in node.names}
    return found


def test_domain_types_need_the_standard_library_only() -> None:
    for name in ("types", "errors", "arguments", "rankers", "results", "stats", "surrogates", "testing"):
        modules = {module.partition(".")[0] for module in imports_of(SOURCE / f"{name}.py")}
        assert modules <= set(sys.stdlib_module_names) | {"__future__", "rerankd"}


def test_nobody_imports_one_api() -> None:
    names = ("base", "errors", "explained", "facts", "fields", "openai", "registry", "status")
    of_server = ("rerankd.apis", *(f"rerankd.apis.{name}" for name in names))
    for path in FILES:
        if part_of(path) == "apis":
            continue
        allowed = (
            of_server if part_of(path) == "server" else ("rerankd.apis", "rerankd.apis.explained", "rerankd.apis.facts")
        )
        for module in imports_of(path):
            assert not module.startswith("rerankd.apis") or module in allowed, f"{path} imports {module}"


def test_the_facts_of_an_api_need_the_standard_library_only() -> None:
    for name in ("__init__", "explained", "facts"):
        modules = {module.partition(".")[0] for module in imports_of(SOURCE / "apis" / f"{name}.py")}
        assert modules <= set(sys.stdlib_module_names) | {"__future__", "rerankd"}


def test_importing_the_package_is_light() -> None:
    code = "import sys, rerankd; print({'torch', 'fastapi', 'pydantic', 'httpx2'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_admission_without_accounts_needs_no_database() -> None:
    code = "import sys, rerankd.admission.gate; print({'sqlalchemy', 'alembic', 'argon2'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_exported_name_is_there() -> None:
    assert [name for name in rerankd.__all__ if not hasattr(rerankd, name)] == []
    assert not hasattr(rerankd, "Nothing")


def test_the_table_of_folders_is_that_of_the_arrows() -> None:
    listed = set()
    folders = PAGES[0].read_text().partition("\n## Folders\n")[2]
    for row in re.findall(r"^\| (`[^|]+`) \| [^|]* \| ([^|]+) \|$", folders, re.MULTILINE):
        parts = {name.removesuffix(".py").removesuffix("/") for name in re.findall(r"`([^`]+)`", row[0])}
        if not parts <= set(ARROWS):
            continue  # a file of a folder
        imports = set().union(*(ARROWS[part] for part in parts)) - parts
        assert set(re.findall(r"`(\w+)`", row[1])) == imports, f"the row of {row[0]} in ARCHITECTURE.md"
        listed |= parts
    assert listed == set(ARROWS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_it_names_exist(page: Path) -> None:
    named = re.findall(r"`(\w[\w/]*test_\w+\.py|test_\w+\.py)(?:::(\w+))?`", page.read_text())
    assert named
    for file, name in named:
        path = TESTS.parent / file if file.startswith("tests/") else TESTS / file
        assert re.search(rf"^(async )?def {name}", path.read_text(), re.MULTILINE), f"{page.name} names {file}::{name}"


# Words of single APIs; LangChain's metadata and another server that is measured have one of them too.
WIRE_WORDS = {
    "relevance_score",
    "top_k",
    "return_documents",
    "max_tokens_per_doc",
    "truncate_prompt_tokens",
    "raw_scores",
}
WIRE_FILES = {"integrations/langchain.py", "bench/peer_main.py"}


def test_the_words_of_an_api_stay_with_the_apis_and_the_client() -> None:
    for path in FILES:
        if part_of(path) in {"apis", "client"} or path.relative_to(SOURCE).as_posix() in WIRE_FILES:
            continue
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & WIRE_WORDS, f"{path} has words of an API"


# Statuses that no API words: HTTP before there is a path, health, pages; and one number that is no status.
OTHER_STATUSES = {
    "server/protocol.py": {400, 408, 414, 431, 503},
    "server/no_route.py": {404, 405},
    "server/foreign_pages.py": {403},
    "server/status.py": {503},
    "server/reply_headers.py": {401},
    "server/call.py": {499},  # the caller hung up
    "server/tokens.py": {499},
    "server/metrics/vllm_names.py": {499},
    "server/access_log.py": {500},  # no reply was sent
    "server/listening.py": {0o660},  # the mode of a file
}


def test_the_status_of_an_error_stays_with_the_apis() -> None:
    for path in FILES:
        if part_of(path) not in {"server", "admission", "ranking", "errors", "types"}:
            continue
        numbers = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        statuses = {one for one in numbers if type(one) is int and 400 <= one < 600}
        assert statuses <= OTHER_STATUSES.get(path.relative_to(SOURCE).as_posix(), set()), f"{path} chooses a status"


def test_no_file_has_more_than_400_lines_and_no_function_more_than_50() -> None:
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{path}: {node.name} is too long"
