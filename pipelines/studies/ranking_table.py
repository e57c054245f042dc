"""How well cheap scores rank candidates, as a table."""

from typing import Any

import pandas as pd

from diet_ray.evaluation.agreement import FEWEST, agreement, kendall
from diet_ray.seeding import numpy_generator
from pipelines.studies.ranked_candidates import weak_candidates


def ranking_agreement(cells: pd.DataFrame) -> pd.DataFrame:
    """`agreement_of` all candidates ("all") and of those that are not weak by design ("good").

    Every method recognises the weak ones, which raises every figure.
    """
    weak = cells["candidate"].isin(list(weak_candidates()))
    among = {"all": cells}
    if weak.any() and cells.loc[~weak, "candidate"].nunique() >= FEWEST:
        among["good"] = cells[~weak]
    tables = [agreement_of(part).assign(among=name) for name, part in among.items()]
    return pd.concat(tables, ignore_index=True)


def agreement_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Agreement of each method's scores with full training, one row per method.

    kendall, spearman, regret: of means over seeds, on the test block, with 95 % intervals over candidates.
    kendall_single: mean over pairs of one seed of the method and one of full training; for `full` of two
    different seeds, which is the ceiling. cost_ratio: seconds of full training over seconds of the method.
    """
    scores = {
        m: mine.pivot_table(index="candidate", columns="seed", values="auc")
        for m, mine in cells.groupby("method")
    }
    seconds = cells.groupby("method")["seconds"].mean()
    truth = scores["full"]
    rows = []
    for method, own in scores.items():
        pairs = [
            kendall(truth[t].to_numpy(), own[s].to_numpy())
            for t in truth
            for s in own
            if method != "full" or s != t
        ]
        row: dict[str, Any] = {
            "method": method,
            "kendall_single": sum(pairs) / len(pairs) if pairs else float("nan"),
            "cost_ratio": seconds["full"] / seconds[method],
        }
        if method != "full":
            mean = own.mean(axis=1).loc[truth.index].to_numpy()
            estimates = agreement(truth.mean(axis=1).to_numpy(), mean, numpy_generator(0, "bootstrap"))
            row["candidates"] = estimates.candidates
            for name, estimate in estimates._asdict().items():
                if name != "candidates":
                    row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        rows.append(row)
    return pd.DataFrame(rows).astype({"candidates": "Int64"})
