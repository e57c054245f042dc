"""Frames as tables of a terminal that is 80 columns wide: cells fold, numbers stay whole."""

from typing import Any

import pandas as pd
from rich.table import Column, Table

INTERVAL = ("_low", "_high")


def plain_table(rows: pd.DataFrame, title: str) -> Table:
    """A row per row; below a value its interval, where the frame has it in columns NAME_low and NAME_high."""
    ends = [name + end for name in rows.columns for end in INTERVAL if name + end in rows.columns]
    names = [name for name in rows.columns if name not in ends]
    caption = "below a value: the ends of its 95 % interval" if ends else None
    heads = (Column(name.replace("_", " "), overflow="fold") for name in names)
    shown = Table(*heads, title=title, caption=caption)
    for row in rows.to_dict("records"):
        stacked = ([row[name + end] for end in ("", *INTERVAL) if name + end in row] for name in names)
        shown.add_row(*("\n".join(filter(None, map(_text, values))) for values in stacked))
    return shown


def _text(value: Any) -> str:
    """Four decimals below 100, one above; empty where nothing is known."""
    if pd.isna(value):
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
