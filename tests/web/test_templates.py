"""Each template uses exactly the variables that its page class has."""

from __future__ import annotations

from dataclasses import fields

import pytest
from jinja2 import Environment, PackageLoader, meta, nodes

import rerankd.web.account_routes
import rerankd.web.oidc_pages
import rerankd.web.routes  # noqa: F401  # with account_routes, imports every page class
from rerankd.web.formatting import FILTERS
from rerankd.web.pages import Page

EVERYWHERE = {
    *("path", "root", "session", "static", "version", "accounts_on", "by_mail", "has_index", "provider", "sign_up"),
}


def page_classes(base: type[Page] = Page) -> dict[str, type[Page]]:
    """By name: a dataclass with slots is a second class, which replaces the first one."""
    found: dict[str, type[Page]] = {}
    for kind in base.__subclasses__():
        found |= page_classes(kind)
        if "template" in vars(kind):
            found[kind.__name__] = kind
    return found


def variables_of(environment: Environment, name: str) -> set[str]:
    """The variables that a template reads, without its own macros, imports and assignments."""
    assert environment.loader is not None
    tree = environment.parse(environment.loader.get_source(environment, name)[0])
    own = {macro.name for macro in tree.find_all(nodes.Macro)}
    for found in tree.find_all(nodes.FromImport):
        own |= {one if isinstance(one, str) else one[1] for one in found.names}
    own |= {one.target.name for one in tree.find_all(nodes.Assign) if isinstance(one.target, nodes.Name)}
    return meta.find_undeclared_variables(tree) - own


@pytest.mark.parametrize("page", page_classes().values(), ids=lambda page: page.__name__)
def test_a_template_uses_the_fields_of_its_page(page: type[Page]) -> None:
    environment = Environment(loader=PackageLoader("rerankd.web"))
    environment.filters.update(FILTERS)
    used = variables_of(environment, page.template) | variables_of(environment, "layout.html")
    assert used - EVERYWHERE == {one.name for one in fields(page)}


def test_every_template_has_a_page() -> None:
    environment = Environment(loader=PackageLoader("rerankd.web"))
    pages = {page.template for page in page_classes().values()}
    assert set(environment.list_templates()) - {"layout.html", "parts.html"} == pages
