"""The studies: which runs and cells each needs, what it should show, how long it takes.

Each returns a table with one row per cell. Whatever a study needs is kept in the run directory: cells in
RUN/evaluation, runs that differ from RUN in one setting in RUN/studies/runs/NAME. Times are rough, of two CPU
cores on the Globo log (1.6 M rows of history).
"""

from collections.abc import Callable

import pandas as pd

from diet_ray.config import RunConfig
from diet_ray.evaluation.methods import METHODS, Method
from diet_ray.models.registry import ARCHITECTURES
from pipelines.studies.context import StudyContext
from pipelines.studies.ranked_candidates import ranked_candidates, weak_candidates

RATIOS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.05)
CONTROLLED: tuple[Method, ...] = ("diet", "random", "newest")  # the memory and its controls
RANKED: tuple[Method, ...] = ("full", "diet", "newest", "random", "kmeans", "el2n", "warmup", "cold")


def table3(study: StudyContext) -> pd.DataFrame:
    """Table 3: every method with every architecture.

    Shows: DIET above all reduced rows, by little, and as good as full training. Takes five hours.

        diet-ray study table3 --run runs/globo --seeds 5
    """
    return study.cells(METHODS, study.candidates)


def table4(study: StudyContext) -> pd.DataFrame:
    """Table 4: memory fusion (MF), target selection (TS), memory selection (MS) and what else the method has.

    Each is switched off by itself.

    Shows: in the paper each lowers AUC; on Globo none by more than a seed's noise (docs/results.md). Takes an
    hour and a half.

        diet-ray study table4 --run runs/globo --seeds 5
    """
    base = study.config.model_dump()
    method = base["method"]
    without = {
        "without MF": {**method, "boundary": {**method["boundary"], "fusion": False}},
        "without TS": {**method, "outer": {**method["outer"], "target_selection": False}},
        "without MS": {**method, "outer": {**method["outer"], "memory_selection": False}},
        "without realignment": {**method, "boundary": {**method["boundary"], "realign": False}},
        "without optimisation": {**method, "outer": {**method["outer"], "iterations": 0}},
    }
    variants = {
        name: RunConfig.model_validate({**base, "method": changed}) for name, changed in without.items()
    }
    return study.variants({"DIET": study.config, **variants}, ("diet",), study.candidates)


def figure3(study: StudyContext) -> pd.DataFrame:
    """Figure 3: ratio of the memory against architecture of the reference, which learns alone here.

    Shows: AUC rises with the ratio and levels off; a stronger reference lifts all candidates. Takes a day:
    thirty runs.

        diet-ray study figure3 --run runs/globo --seeds 1
    """
    return study.variants(_references(study.config, RATIOS), CONTROLLED, study.candidates)


def reference(study: StudyContext) -> pd.DataFrame:
    """The row of Figure 3 that has the run's own ratio; it shares its runs with `figure3`.

    Shows: how much hangs on what the reference is, alone and as the run has it. Takes two and a half hours
    with two candidates.

        diet-ray study reference --run runs/globo --seeds 1
    """
    variants = {"as in the run": study.config, **_references(study.config, (study.config.ratio,))}
    return study.variants(variants, CONTROLLED, study.candidates)


def _references(config: RunConfig, ratios: tuple[float, ...]) -> dict[str, RunConfig]:
    """`config` with each architecture alone as its reference, at each ratio."""
    base = config.model_dump()
    return {
        f"{name} {ratio:.1%}": RunConfig.model_validate(
            {**base, "ratio": ratio, "reference": {"name": name, "ensemble": ()}}
        )
        for name in ARCHITECTURES
        for ratio in ratios
    }


def ratio(study: StudyContext) -> pd.DataFrame:
    """The column of Figure 3 that has the run's own reference.

    Shows: how few rows are enough; on Globo 0.2 % lose 0.0025 AUC to 5 %. Takes three hours.

        diet-ray study ratio --run runs/globo --seeds 1
    """
    base = study.config.model_dump()
    variants = {f"{value:.1%}": RunConfig.model_validate({**base, "ratio": value}) for value in RATIOS}
    return study.variants(variants, CONTROLLED, study.candidates)


def table5(study: StudyContext) -> pd.DataFrame:
    """Table 5: seconds per epoch and peak memory of full training, distillation and distilled training.

    Shows: an epoch of distilled training costs a fraction of one of full training, on Globo a thirtieth or
    less. Takes an hour.

        diet-ray study table5 --run runs/globo --seeds 1
    """
    cells = study.cells(("full", "diet"), study.candidates)
    cells["epochs_trained"] = [max(1, len(epochs)) for epochs in cells["epochs"]]
    cells["seconds_epoch"] = cells["seconds_history"] / cells["epochs_trained"]
    columns = [
        "method",
        "candidate",
        "seed",
        "epochs_trained",
        "seconds_epoch",
        "seconds_history",
        "peak_bytes",
    ]
    stages = [
        {
            "method": "distillation",
            "candidate": study.config.reference.name,
            "seed": record.stage,
            "seconds_history": record.metrics.seconds.score + record.metrics.seconds.distill,
            "peak_bytes": record.metrics.memory.peak_bytes,
        }
        for record in study.run.records
    ]
    return pd.concat([cells[columns], pd.DataFrame(stages)], ignore_index=True)


def figure1(study: StudyContext) -> pd.DataFrame:
    """Figure 1: validation AUC along the steps of full training, of DIET and of random rows.

    Shows: distilled training passes the end of full training after a small part of the steps. Takes an hour.

        diet-ray study figure1 --run runs/globo --seeds 1
    """
    return study.trajectories(("full", *CONTROLLED), study.candidates)


def ranking(study: StudyContext) -> pd.DataFrame:
    """Ranking: do candidates trained on reduced rows rank as they do after full training?

    Four candidates of each architecture, of 80 thousand to 4 million parameters, their learning rates over a
    factor of 30, and a weak one of each: four units wide, and slow. Shows: how near Kendall tau comes to that
    of full training with another seed; on Globo it does not (docs/results.md). Takes four hours.

        diet-ray study ranking --run runs/globo --seeds 2
    """
    return study.cells(RANKED, {**ranked_candidates(), **weak_candidates()})


STUDIES: dict[str, Callable[[StudyContext], pd.DataFrame]] = {
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "figure1": figure1,
    "figure3": figure3,
    "ratio": ratio,
    "reference": reference,
    "ranking": ranking,
}
