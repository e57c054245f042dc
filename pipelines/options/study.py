"""The options of `diet-ray study`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from diet_ray.config import FitConfig
from diet_ray.model_config import BUILT_IN

Name = Literal["table3", "table4", "table5", "figure1", "figure3", "ratio", "reference", "ranking"]


@dataclass(frozen=True)
class Study:
    """Run a study on a finished run; rerun to resume, finished cells are kept.

    $ diet-ray study table3 --run runs/globo --seeds 5

    $ diet-ray study table4 --run runs/globo --candidates dcn,finalnet

    $ diet-ray study ranking --run runs/globo --seeds 2

    table3: methods x architectures. table4: parts of the method switched off. table5: seconds and memory.
    figure1: validation AUC along training. figure3: ratio x reference. ratio, reference: one of the two
    alone. ranking: do candidates rank as after full training? Writes RUN/studies/NAME.parquet and NAME.json.
    """

    name: tyro.conf.Positional[Name]
    """Which study."""
    run: str
    """Directory of a run that has distilled all its blocks."""
    seeds: int = 3
    """Number of seeds per cell: 0, 1, ..."""
    candidates: str = ",".join(BUILT_IN)
    """Comma list of architectures, package.module:Class, or YAML files; ranking draws its own."""
    data: str | None = None
    """Directory of the prepared log, if it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        from pipelines.study import execute

        execute(self)
