"""The site and the manual pages are made without a warning, and their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from cosim.cli import cosim
from cosim.paths import SOURCE

_TOP = click.Context(cosim, info_name="cosim")


@dataclass
class _Page(HTMLParser):
    """The links of one page, what it loads, and the places in it that a link can lead to."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "search", "index"):
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `html` and `man`, made as scripts/docs makes them."""
    folder = tmp_path_factory.mktemp("docs")
    for builder in ("html", "man"):
        made = subprocess.run(
            [
                *(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"),
                *("--doctree-dir", str(folder / "doctrees"), "--builder", builder),
                *(str(SOURCE / "docs"), str(folder / builder)),
            ],
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[Path, _Page]:
    """Every HTML page of the site, read."""
    read = {}
    for file in sorted((built / "html").rglob("*.html")):
        page = _Page()
        page.feed(file.read_text())
        read[file] = page
    assert len(read) > 15
    return read


def test_links_lead_to_a_page_and_a_place_in_it(pages: dict[Path, _Page]) -> None:
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or not link.strip("#"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if target not in pages:
                there = target.is_file()
            else:
                there = not anchor or anchor in pages[target].anchors
            if not there:
                broken.append((file.name, link))
    assert not broken


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, _Page]) -> None:
    for file, page in pages.items():
        for name in page.loaded:
            parts = urlsplit(name)
            assert parts.scheme in ("", "data") and not parts.netloc, f"{file.name} loads {name}"
            if not parts.scheme:
                assert (file.parent / parts.path).is_file(), f"{file.name} loads {name}"


def _leaves(command: click.Command, context: click.Context) -> list[click.Command]:
    if isinstance(command, click.Group):
        names = command.list_commands(context)
        found = [command.get_command(context, name) for name in names]
        return [leaf for one in found if one for leaf in _leaves(one, context)]
    return [command]


def _words(roff: str) -> str:
    """The text of a manual page, on one line, without the marks of roff that occur in it."""
    lines = [line for line in roff.splitlines() if not line.startswith('.\\"')]
    text = re.sub(r"^\.\S+ ?", "", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(r"\\f(\[\w*\]|\(..|.)", "", text).replace(r"\%", "").replace(r"\&", "")
    for mark, sign in ((r"\(aq", "'"), (r"\(dq", '"'), (r"\(ga", "`"), (r"\(ha", "^")):
        text = text.replace(mark, sign)
    text = text.replace(r"\(ti", "~").replace(r"\-", "-").replace(r"\e", "\\")
    return " ".join(text.split())


@pytest.mark.parametrize("name", cosim.list_commands(_TOP))
def test_the_manual_page_says_what_help_says(built: Path, name: str) -> None:
    text = _words((built / "man" / f"cosim-{name}.1").read_text())
    command = cosim.get_command(_TOP, name)
    assert command is not None
    options = [
        option
        for leaf in _leaves(command, _TOP)
        for option in leaf.params
        if isinstance(option, click.Option) and not option.hidden
    ]
    assert options
    for option in options:
        assert option.opts[0] in text, option.opts
        assert " ".join((option.help or "").replace("`", "").split()) in text, option.help


def test_the_manual_page_of_run_keeps_its_hyphens(built: Path) -> None:
    text = _words((built / "man" / "cosim-run.1").read_text())
    assert "cosim run linux --json --model shadow,lsp > result.json" in text
    assert "Boot this ELF file or Linux Image." in text
