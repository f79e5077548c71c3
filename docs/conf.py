"""How Sphinx makes the documentation; `scripts/docs` runs it.

The pages of the commands are made here, one for each sub-command, from the same click objects
that print `--help`.  The site and the manual pages share them.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import click
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from cosim.cli import cosim

project = "lsp-cosim"
author = "the lsp-cosim authors"
copyright = f"2026, {author}"
release = metadata.version("lsp-cosim")

extensions = ["myst_parser", "sphinx_click", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

# Options begin with two hyphens, which must stay so in the manual pages.
smartquotes = False

# Links to headings, as GitHub names them.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True

# Every link of a page and every reference in a docstring must resolve, except these.
nitpicky = True
nitpick_ignore_regex = [
    # Python and its libraries are documented elsewhere, and the site is made without the internet.
    (r"py:class", r"(numpy|collections\.abc|contextlib|enum)\..+|(pathlib\.)?Path"),
    # What no user of the API calls has no page.
    (r"py:mod", r"hypervisor_model\.(jit|walk)|cosim\.(trace\.schema|report\.plot_tables)"),
    (r"py:mod", r"cosim\.models\.spread"),
    (r"py:class", r"(cosim\.run\.plan\.)?Plan|(cosim\.models\.pipeline\.)?Pipeline"),
    (r"py:class", r"hypervisor_model\.policies\.options\.NoOptions"),
    (r"py:meth|py:data", r"_\w+|LAYOUTS"),
    # An argument's type has the name that its module imports.
    (r"py:class", r"Location|Output|ObjectStorage"),
    # Compiled functions, which autodoc does not see.
    (r"py:func", r"translate[12]|apply|hypervisor_model\.tlb\.fence"),
]
# A name that a package passes on from another module has two targets. Both are right.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "lsp-cosim"
# The site is read from a folder, without a server and without the internet.
html_copy_source = False
html_show_sourcelink = False

_HERE = Path(__file__).parent
_CONTEXT = click.Context(cosim)
_PAGES = {"cosim": ("cosim.cli:cosim", "none", cosim.get_short_help_str(200))}
for _name in cosim.list_commands(_CONTEXT):
    _command = cosim.get_command(_CONTEXT, _name)
    assert _command is not None
    _summary = _command.get_short_help_str(200)
    _PAGES[f"cosim-{_name}"] = (f"cosim.commands.{_name}:command", "full", _summary)

man_pages = [
    (f"commands/{page}", page, summary.rstrip("."), [author], 1)
    for page, (_, _, summary) in _PAGES.items()
]


def _write_pages() -> None:
    folder = _HERE / "commands"
    folder.mkdir(exist_ok=True)
    for page, (command, nested, _) in _PAGES.items():
        prog = page.replace("-", " ", 1)
        text = f".. click:: {command}\n   :prog: {prog}\n   :nested: {nested}\n"
        file = folder / f"{page}.rst"
        # A page that stays as it is need not be read again.
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)


_write_pages()


def _plain_text(app: Sphinx, context: object, lines: list[str]) -> None:
    """Let help texts, which are plain text with `code`, mean the same as reStructuredText."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        for place, part in enumerate(parts):
            code = place % 2 == 1
            parts[place] = f"``{part}``" if code else part.replace("*", "\\*")
        lines[number] = "".join(parts)


def _anywhere(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Any) -> Any:
    """Resolve a name without its module, or that another module passes on."""
    domain = env.domains.python_domain
    name = node.get("reftarget", "").rpartition(".")[2]
    found = {full for full in domain.objects if full.rpartition(".")[2] == name}
    if node.get("refdomain") != "py" or not found:
        return None
    node["reftarget"] = min(found, key=len)
    node["refspecific"] = False
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], node["reftarget"], node, text
    )


def setup(app: Sphinx) -> None:
    """Connect what is said above to sphinx-click."""
    app.connect("missing-reference", _anywhere)
    app.connect("sphinx-click-process-description", _plain_text)
    app.connect("sphinx-click-process-epilog", _plain_text)
