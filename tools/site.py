"""MkDocs hooks: pages that are generated when the site is built, every page as Markdown too, and `llms.txt`."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools import evidence_of_tests, reference

ROOT = Path(__file__).resolve().parent.parent
_HOW_TOS, _DECISIONS = "How to", "Decisions"
_markdown: dict[str, str] = {}
_titles: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put into the navigation what it does not name: how-tos of other parts, decisions, pages of errors."""
    nav: Any = config.nav
    named = set(_named(nav))
    docs = Path(config.docs_dir)
    others = [path.name for path in sorted(docs.glob("*.md")) if path.name not in named]
    _section(nav, _HOW_TOS).extend(others)
    decisions = sorted(f"decisions/{path.name}" for path in (docs / "decisions").glob("*.md"))
    _section(nav, _DECISIONS).extend(decisions)
    _section(nav, "Errors").extend(sorted(path for path in reference.error_pages() if path not in named))
    return config


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [name for part in parts for name in _named(part)]


def _section(nav: list[Any], title: str) -> list[Any]:
    """What is below that title, wherever it is."""
    for part in nav:
        for name, below in part.items() if isinstance(part, dict) else ():
            if name == title and isinstance(below, list):
                return below
            if isinstance(below, list):
                with suppress(KeyError):
                    return _section(below, title)
    raise KeyError(title)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    generated = {"first-exchange.md": first_exchange(), **reference.pages(), **evidence_of_tests.pages()}
    generated["llms.txt"] = ""  # written at the end, when all titles are known
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def first_exchange() -> str:
    """The tutorial is the README's own section, which the tests run."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("## A first exchange by hand\n")
    section = section.partition("\n## ")[0].replace("](docs/", "](")
    start = "You need `make` and Python 3.11. In a checkout:\n\n```sh\nmake serve\n```\n"
    return f"# A first exchange\n\n{start}{section}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Keep what the page is made of."""
    _markdown[page.file.src_uri] = markdown
    _titles[page.file.src_uri] = page.title or page.file.name


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Say where the page's Markdown is."""
    name = Path(page.file.src_uri).name
    link = f'<link rel="alternate" type="text/markdown" href="{name}">'
    return output.replace("</head>", f"{link}</head>", 1)


def on_post_build(config: MkDocsConfig) -> None:
    """Write every page as Markdown beside its HTML, and the list of them."""
    site = Path(config.site_dir)
    for path, markdown in _markdown.items():
        (site / path).write_text(f"{markdown.strip()}\n", encoding="utf-8")
    (site / "llms.txt").write_text(_llms(config), encoding="utf-8")


def _llms(config: MkDocsConfig) -> str:
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    nav: Any = config.nav
    for part in nav:
        ((title, below),) = part.items()
        lines += [f"## {title}", ""]
        for path in _named(below):
            lines.append(f"- [{_titles[path]}]({path}): {_first_sentence(_markdown[path])}")
        lines.append("")
    return "\n".join(lines)


def _first_sentence(markdown: str) -> str:
    for paragraph in markdown.split("\n\n"):
        if re.match(r"[A-Za-z`*\[]", paragraph) and not paragraph.startswith("```"):
            flat = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(paragraph.split()))
            return re.split(r"(?<=\.)\s", flat)[0]
    return ""
