"""The ratio that a study recommends."""

import pandas as pd

from diet_ray.evaluation.verdicts.ratio_choice import RatioChoice, choose_ratio
from diet_ray.seeding import numpy_generator


def ratio_of(variants: pd.Series) -> pd.Series:
    """The ratio at the end of a variant's name: 0.015 of "dcn 1.5%"."""
    return variants.str.split().str[-1].str.rstrip("%").astype(float) / 100


def recommended_ratio(cells: pd.DataFrame) -> RatioChoice | None:
    """From the DIET cells of `study ratio`; None where no candidate and seed has an AUC at every ratio."""
    own = cells[cells["method"] == "diet"].assign(ratio=lambda table: ratio_of(table["variant"]))
    wide = own.pivot_table(index=["candidate", "seed"], columns="ratio", values="auc").dropna()
    if wide.empty:
        return None
    return choose_ratio(wide.columns.to_numpy(), wide.to_numpy(), numpy_generator(0, "bootstrap"))
