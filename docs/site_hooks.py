"""
What the site adds to the Markdown of ``docs/``: hooks of mkdocs, named in ``mkdocs.yml``.

The README is the first page. Links to files that are no pages lead to the repository. ``llms.txt`` lists the pages for
language models (llmstxt.org), and ``llms-full.txt`` has them all in one file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(\]\()(?!https?://|mailto:|#)([^)#\s]+)(#[^)]*)?(\))")
_pages: dict[str, tuple[str, str]] = {}
"""By the path of the source: the title of each page and its Markdown."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the first page."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    """Point the links of a page to where their targets are on the site."""
    source = page.file.src_uri
    folder = "" if source == "index.md" else "docs"  # where the text lies in the repository

    def moved(link: re.Match[str]) -> str:
        before, target, section, after = link.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path == "README.md":
            target = "index.md"
        elif path.startswith("docs/") and (file := files.get_file_from_path(path[5:])) and file.inclusion.is_included():
            target = path[5:]
        else:
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            target = f"{config.repo_url}/{kind}/main/{path}"
        return f"{before}{target}{section or ''}{after}"

    # Not in the fences of code.
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    markdown = "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)
    title = re.match(r"# (.+)", markdown)
    _pages[source] = (title[1] if title else source, markdown)
    return markdown


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Remember the order of the pages."""
    order = [page.file.src_uri for page in nav.pages]
    _pages.clear()
    _pages.update(dict.fromkeys(order, ("", "")))
    return nav


def on_post_build(config: MkDocsConfig) -> None:
    """Write ``llms.txt`` and ``llms-full.txt``."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", "", "## Docs", ""]
    for source, (title, text) in _pages.items():
        paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
        first = next((part for part in paragraphs if part and part[0].isalpha()), "")
        sentence = re.split(r"(?<=[.:]) ", first, maxsplit=1)[0]
        address = re.sub(r"(index)?\.md$", "", source)
        lines.append(f"- [{title}]({config.site_url or '/'}{address}{'/' if address else ''}): {sentence}")
    site = Path(config.site_dir)
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [text.replace("\n::: ", "\n") for _, text in _pages.values()]
    (site / "llms-full.txt").write_text("\n\n".join(texts), encoding="utf-8")
