"""The scheduler of a search by judges, who is below the best share at a rung stops there, and its budget.

Successive halving as in ASHA (Li et al., arXiv 1810.05934), asynchronous and with a share per rung: the
memory, which cannot order good candidates, stops few; the judges stop more. Tune's own ASHA has one share for
all rungs and compares the best score so far, where here the score after each step counts. The best of an
architecture goes on in any case: which architecture wins in the end no early score tells (docs/results.md).
"""

import math
import time
from typing import Any, NamedTuple

import numpy as np
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from actors.trials import WORST
from diet_ray.errors import ConfigError

FEWEST = 4  # scores at a rung before anyone is stopped there


class Rung(NamedTuple):
    """After `step` steps the best `keep` of those who came so far go on."""

    step: int
    keep: float


def default_rungs(memory_epochs: int, pieces: int) -> tuple[Rung, ...]:
    """The memory stops a fifth; after a quarter of the pieces half of the rest go on, after their half again.

    Nobody is stopped after the first piece: until then candidates score like chance (docs/results.md).
    """
    memory = [Rung(memory_epochs, 0.8)] if memory_epochs else []
    places = sorted({max(2, pieces // 4), pieces // 2})
    return (*memory, *(Rung(memory_epochs + place, 0.5) for place in places if 2 <= place < pieces))


class Rungs(FIFOScheduler):
    """Tune's view of the rungs.

    Decisions depend on the order in which trials reach a rung. A search that resumes replays the scores on
    record first; a trial that was stopped stays so.
    """

    def __init__(self, rungs: tuple[Rung, ...]) -> None:
        super().__init__()
        self.rungs = {rung.step: rung for rung in rungs}
        self.scores: dict[int, dict[str, list[float]]] = {step: {} for step in self.rungs}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        score, step = float(result["objective"]), int(result["training_iteration"])
        if step not in self.rungs or score <= WORST:
            return self.CONTINUE
        architecture = str(trial.config["trial"]["candidate"]["name"])
        self.scores[step].setdefault(architecture, []).append(score)
        return self.CONTINUE if self.goes_on(step, architecture, score) else self.STOP

    def goes_on(self, step: int, architecture: str, score: float) -> bool:
        """Whether a score is among the best share of those at the rung, or the best of its architecture."""
        known = self.scores[step]
        every = [other for scores in known.values() for other in scores]
        if len(every) < FEWEST or score >= max(known.get(architecture, [score])):
            return True
        return score >= float(np.quantile(every, 1 - self.rungs[step].keep))


class Budget(tune.Stopper):
    """Ends a sweep whose budget is spent: no trial goes on, none starts. Steps that run are finished.

    seconds: of the clock; trainings: full trainings that all trials together may cost. None: without limit.
    """

    def __init__(self, seconds: float | None = None, trainings: float | None = None) -> None:
        self.seconds, self.trainings = seconds, trainings
        self.started = time.monotonic()
        self.spent: dict[str, float] = {}

    @property
    def exhausted(self) -> bool:
        late = self.seconds is not None and time.monotonic() - self.started > self.seconds
        return late or (self.trainings is not None and sum(self.spent.values()) >= self.trainings)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.spent[trial_id] = float(result.get("cost", 0.0))
        return self.exhausted

    def stop_all(self) -> bool:
        return self.exhausted


def parsed_budget(text: str | None) -> Budget:
    """A budget as it is typed: full trainings ("8"), or minutes ("20m"); ConfigError where it is neither."""
    if text is None:
        return Budget()
    number, minutes = text.removesuffix("m"), text.endswith("m")
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise ConfigError(f"--budget is {text!r}: give full trainings (8) or minutes (20m)")
    return Budget(seconds=60 * amount) if minutes else Budget(trainings=amount)
