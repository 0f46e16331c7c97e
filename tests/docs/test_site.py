"""The site builds without a warning, is whole, loads nothing from elsewhere, and says what the code says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from authserver.app import build
from authserver.config import Settings
from authserver.explained import ERRORS
from tests.attacks.serving import ROOT
from tests.world import World
from tools import evidence_of_tests, reference

# What loads something, by which attribute.
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


@dataclass
class Page(HTMLParser):
    """The links, targets and loaded files of one page."""

    path: Path
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag points to."""
        said = {name: value or "" for name, value in attrs}
        self.ids |= {said[name] for name in ("id", "name") if name in said}
        self.classes |= {*said.get("class", "").split()}
        if tag == "a" and "href" in said:
            self.links.append(said["href"])
        if (address := said.get(LOADS.get(tag, ""))) and said.get("rel") not in ("next", "prev"):
            self.loads.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_there_as_markdown_too_and_is_listed(site: Path, pages: dict[Path, Page]) -> None:
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    assert len(pages) > 60
    for path in pages:
        markdown = path.with_suffix(".md")
        assert markdown.read_text(encoding="utf-8").startswith("# "), markdown
        assert f"]({markdown.relative_to(site)})" in listed, markdown


def test_every_link_inside_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    broken = [
        f"{page.path.relative_to(site)}: {link}"
        for page in pages.values()
        for link in (*page.links, *page.loads)
        if not leads_somewhere(page, link, pages)
    ]
    assert broken == []


def leads_somewhere(page: Page, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or link.startswith("#__"):  # elsewhere; or a theme's switch
        return True
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return False
    return not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].ids


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    for page in pages.values():
        assert [address for address in page.loads if urlsplit(address).netloc] == []
        assert "mermaid" not in page.classes  # which the theme would fetch


# --- what is generated --------------------------------------------------------------------------------------------


def test_every_setting_is_told() -> None:
    told = {(setting.section, setting.key) for setting in reference.settings()}
    assert told == {
        (section, key) for section in Settings.model_fields for key in reference._keys_of(section)
    }
    assert all(setting.text for setting in reference.settings())


def test_every_verb_is_told_as_its_help_says_it() -> None:
    page = reference.verbs_page()
    for context in reference.verbs():
        assert f"\n## {context.command_path.removeprefix('manage.py ')}\n" in page
    assert "  --overlap TEXT" in page


def test_every_endpoint_is_told(shared_world: World) -> None:
    app = build(shared_world.services)
    page = reference.endpoints_page(app)
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith("pages.") and not rule.rule.startswith("/api/"):
            assert f"`{reference._path(rule.rule)}`" in page


def test_every_error_has_its_page(site: Path) -> None:
    for error, explained in ERRORS.items():
        page = (site / "reference" / "errors" / f"{error}.md").read_text(encoding="utf-8")
        assert explained.what_to_do in page


# --- what is told of the tests ------------------------------------------------------------------------------------


def rows() -> Iterator[str]:
    for group in evidence_of_tests.threats().values():
        yield from group


def test_every_threat_of_which_there_is_a_test_is_told() -> None:
    numbers = {number for number in evidence_of_tests.by_number() if number[0] in "AF"}
    assert numbers <= {*rows()}
    assert len([*rows()]) == len({*rows()})


def test_what_has_no_test_is_not_said_to_have_one() -> None:
    page, held = evidence_of_tests.threats_page(), evidence_of_tests.by_number()
    for number in rows():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {number} |")]
        assert ("**none yet**" in line) == (not held.get(number))


def test_every_standard_says_what_is_held_and_by_which_test() -> None:
    page = evidence_of_tests.standards_page()
    conformance = {path.name for path in (ROOT / "tests" / "conformance").glob("test_*.py")}
    cited = {name for one in evidence_of_tests.standards() for name in one.get("tests", [])}
    # Those are about other people's programs, and cite no clause.
    others = {"test_clients.py", "test_asking_clients.py", "test_modules.py", "test_offline.py"}
    assert {f"conformance/{name}" for name in conformance - others} <= cited
    for standard in evidence_of_tests.standards():
        section = page.partition(f"## {standard['title']}\n")[2].partition("\n## ")[0]
        assert "| §" in section or "Not held:" in section or "| --- |" in section
