"""Pages of the site that lie outside docs/, and the links to them."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root."""
    for name, page in PAGES.items():
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    """Turn links that fit the repository into links that fit the site."""

    def linked(match: re.Match[str]) -> str:
        target = match["file"].removeprefix("../").removeprefix("docs/")
        return f"]({PAGES.get(target, target)}{match['heading'] or ''})"

    return re.sub(r"\]\((?!https?:)(?P<file>[^)#\s]+)(?P<heading>#[^)\s]*)?\)", linked, markdown)
