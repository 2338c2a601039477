"""The documentation site builds without a warning, and its pages load nothing from outside."""

from __future__ import annotations

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MKDOCS = ROOT / ".docs" / "bin" / "mkdocs"

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""By tag, the attribute with the address that a browser loads."""


class Loaded(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if value and name == LOADING.get(tag)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not MKDOCS.exists():
        if not os.environ.get("CI"):
            pytest.skip("make docs makes the environment that builds the site")
        subprocess.run(["make", ".docs/installed"], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("site")
    command: list[str | Path] = [MKDOCS, "build", "--quiet", "--strict", "--site-dir", folder]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_outside(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text())
        assert parser.addresses
        outside = [address for address in parser.addresses if re.match(r"\w+:|//", address) and address[:5] != "data:"]
        assert not outside, f"{page.name} loads {outside}"


def test_style_sheets_load_nothing_from_outside(site: Path) -> None:
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(\w+:)?//|@import", sheet.read_text().replace("data:", "")), sheet.name


def test_the_public_names_are_documented(site: Path) -> None:
    import rerankd

    page = (site / "reference" / "python.html").read_text()
    missing = [name for name in rerankd.__all__ if not name.startswith("__") and name not in page]
    assert not missing
