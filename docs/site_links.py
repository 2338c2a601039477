"""For mkdocs: a link to a file outside docs/ has no page on the site; the site shows the name of the file instead."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+)([^)#]+)(?:#[^)]*)?\)")
FOLDER = re.compile(r"\[([^\]]+)\]\((screens/)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    depth = page.file.src_uri.count("/")

    def replace(link: re.Match[str]) -> str:
        text, up, file = link.groups()
        if up.count("../") <= depth:
            return link[0]  # stays within docs/
        return text if file in text else f"{text} (`{file}` in the repository)"

    return FOLDER.sub(r"\1", OUTSIDE.sub(replace, markdown))
