"""One self-contained HTML page: sections of tables, charts and text; nothing is fetched."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

CSS = """
:root { --ink: #1b1b1b; --soft: #63635e; --line: #dededa; --paper: #fdfdfb; --accent: #c8452d; }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .4rem; padding-top: .9rem; border-top: 2px solid var(--ink) }
p { margin: .4rem 0; max-width: 46rem }
.soft, figcaption { color: var(--soft); font-size: .9rem }
nav { margin: 1rem 0 }
nav a { margin-right: .9rem; color: var(--accent); text-decoration: none; white-space: nowrap }
figure { margin: 1rem 0 }
svg { width: 100%; height: auto; display: block }
.wide { overflow-x: auto }
.wide svg { min-width: 30rem }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .8rem 0 }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top }
th, td { border-bottom: 1px solid var(--line) }
th { font-weight: 600 }
td.number, th.number { text-align: right; white-space: nowrap }
td.text { min-width: 14rem }
td small { display: block; color: var(--soft) }
pre { overflow-x: auto; font-size: .82rem }
"""

Cell = Any  # text, a number, or (large, small): two lines
LONG = 30  # characters of a text that gets a column of its own width


def page(title: str, about: Sequence[str], sections: Sequence[tuple[str, str]]) -> str:
    """The whole page from sections of (heading, HTML); those that are empty are left out."""
    shown = [(heading, body) for heading, body in sections if body]
    anchors = {heading: f"s{number}" for number, (heading, _) in enumerate(shown)}
    links = " ".join(f'<a href="#{anchors[heading]}">{escape(heading)}</a>' for heading, _ in shown)
    parts = [f'<section id="{anchors[h]}"><h2>{escape(h)}</h2>{body}</section>' for h, body in shown]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{''.join(text(line, soft=True) for line in about)}"
        f"<nav>{links}</nav>{''.join(parts)}</main></body></html>\n"
    )


def text(line: str, *, soft: bool = False) -> str:
    kind = ' class="soft"' if soft else ""
    return f"<p{kind}>{escape(line)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    if not rows:
        return ""
    numbers = [_is_number(cell) for cell in rows[0]]
    heads = "".join(
        f"<th{' class=number' if number else ''}>{escape(word)}</th>"
        for word, number in zip(head, numbers, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    return f'<figure><div class="wide">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(content)}</pre></details>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, tuple):
        large, small = cell
        return f'<td class="number">{escape(str(large))}<small>{escape(str(small))}</small></td>'
    if _is_number(cell):
        return f'<td class="number">{escape(cell) if isinstance(cell, str) else f"{cell:,}"}</td>'
    kind = ' class="text"' if len(str(cell)) > LONG else ""
    return f"<td{kind}>{escape(str(cell))}</td>"


def _is_number(cell: Cell) -> bool:
    """Numbers, formatted or not, stand on the right."""
    return not isinstance(cell, str) or re.fullmatch(r"[+-]?\d[\d.,]*", cell) is not None
