"""A pytest plugin: marks by fixture and folder, the quick run, and no unexpected skip in CI.

It marks tests by what they use, so that nobody has to mark each test:

- `server`: a server in a process of its own
- `database`: PostgreSQL
- `browser`: Chromium
- `model`: a checkpoint or the tokenizer of Qwen3-Reranker
- `slow`: more than ten seconds, or a Python process for each call
- `alone`: a test that measures the machine, or fixes a resource; `make test` runs it after the parallel tests
"""

from __future__ import annotations

import importlib.abc
import os
import re
import sys
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from support.quick import QUICK, ROOT, changed_files

FIXTURES = {
    "server": ("start_server",),
    "database": ("new_postgres",),
    "browser": ("browser",),
    "model": ("make_checkpoint", "tokenizer_folder"),
    "slow": ("machine",),
}
"""The fixtures by which a test gets a mark, directly or through other fixtures."""

PROCESSES = (
    "apis/test_new_api.py",
    "cli/test_accounts.py",
    "cli/test_command_line.py",
    "cli/test_doctor_and_bench.py",
    "cli/test_rank.py",
    "test_environment.py",
    "test_quick.py",
    "test_examples.py",
    "test_readme.py",
    "test_site.py",
)
"""Modules whose tests start many Python processes: slow."""

ALONE = ("bench/test_load.py", "server/test_bad_databases.py", "server/test_container.py")
"""Modules that measure time or memory, or need namespaces of the kernel."""

EXPECTED_SKIPS = {
    r"could not import '(haystack|langchain_core|llama_index\.core)'": "make test-clients runs these tests",
    r"could not import 'ray'": "make test-ray runs these tests",
    r"does not name xquad\.en\.json": "the data set is not in the repository",
    r"processor (has no int8 products|has no AMX|cannot run the kernels)": "not every machine of CI has them",
    r"this machine can have no kernels": "nor a compiler for them",
    r"this machine has no CUDA": "make gpu-report runs these tests on one that has it",
    r"no compiler or no emulator for ARM": "make test-arm says what it needs",
    r"this machine has no IPv6": "nor that",
    r"no user namespaces here|no unshare here": "containers often forbid namespaces",
    r"only root can give files away": "CI may run as a user",
    r"reads /proc": "macOS has no /proc",
}
"""Reasons for which a test may be skipped in CI, and why."""

QUICK_OUT = "slow or server or database or browser or model or alone"
"""What `--quick` leaves out: everything that is not over in a moment."""

TORCH_SOURCES = ("src/rerankd/engine/", "src/rerankd/selftest.py", "src/rerankd/startup.py", "tests/engine/")
"""The quick run loads torch only if one of these differs from the main branch."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only fast tests, without torch unless the engine changed")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--quick"):
        return
    os.environ[QUICK] = "1"
    if not any(name.startswith(TORCH_SOURCES) for name in changed_files()):
        sys.meta_path.insert(0, WithoutTorch())


class WithoutTorch(importlib.abc.MetaPathFinder):
    """Skips a test, or a module of tests, that imports torch."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name in ("torch", "transformers"):
            pytest.skip("--quick: the engine did not change", allow_module_level=True)


@pytest.hookimpl(tryfirst=True)  # before -m is applied
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in _marks(item):
            item.add_marker(mark)
    # With xdist, modules are handed out in this order: a long one at the end would run while the others wait.
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path not in long)
    if config.getoption("--quick"):
        left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in QUICK_OUT.split(" or "))]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _marks(item: pytest.Item) -> Iterable[str]:
    fixtures = set(getattr(item, "fixturenames", ()))
    for mark, names in FIXTURES.items():
        if fixtures & set(names):
            yield mark
    place = item.path.relative_to(ROOT / "tests").as_posix() if item.path.is_relative_to(ROOT / "tests") else ""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if parameters.get("database_url") == "postgresql":
        yield "database"
    if place in PROCESSES:
        yield "slow"
    if place in ALONE:
        yield "alone"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_unexpected_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_unexpected_skip(report)
    return report


def _fail_unexpected_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI, a test is skipped only for a reason in the list."""
    if not os.environ.get("CI") or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(re.search(expected, reason) for expected in EXPECTED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped in CI, but tests/support/selection.py does not list: {reason}"
