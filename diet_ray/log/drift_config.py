"""Settings of the generated log (diet_ray/log/drift.py), on their own: they need no NumPy and no pandas."""

from typing import Annotated, Literal

from pydantic import Field

from diet_ray.strict import Strict

Positive = Annotated[int, Field(gt=0)]
Kind = Literal["none", "gradual", "abrupt", "recurring", "churn"]


class DriftConfig(Strict):
    """Settings of the generated log; equal settings give the same log, bit for bit."""

    rows: Annotated[int, Field(ge=1000)] = 200_000
    """Rows of the log."""
    users: Positive = 5_000
    """Users; a quarter of them join while the log runs."""
    items: Positive = 4_000
    """Items, most of which appear while the log runs and fade with age."""
    days: Annotated[int, Field(ge=5)] = 10
    """Days that the log covers; the last two are the validation and the test block."""
    kind: Kind = "gradual"
    """How tastes turn: gradual and abrupt once, recurring there and back; churn: items change instead."""
    strength: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How far tastes turn; at 1 they end a quarter turn from where they began."""
    tasks: Literal["nested", "independent"] = "nested"
    """nested: a like is a long view, and a long view is a click."""
    seed: int = 0
    """Seed of the log."""
