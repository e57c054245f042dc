"""Train a candidate architecture's dense part on reduced data, in embedding space, an epoch at a time.

Shape suffixes: N rows, B rows of a batch.
"""

import math
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from diet_ray.config import FitConfig
from diet_ray.errors import RunError
from diet_ray.models.base import DenseModel, train_mode
from diet_ray.models.examples import Examples, predict
from diet_ray.seeding import torch_generator
from diet_ray.strict import NullableFloat
from diet_ray.training.metrics import score_tasks
from diet_ray.training.optimisers import Adam
from diet_ray.training.serialization import to_safetensors

CLIP_NORM = 10.0
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class EpochScore(NamedTuple):
    """Means over the tasks, on the validation rows."""

    auc: NullableFloat  # NaN where every task has one class only
    logloss: NullableFloat


def preference(score: EpochScore) -> tuple[float, float]:
    """A key that is greater for a better score: by AUC, then by LogLoss; without any AUC by LogLoss alone.

    Of equal scores `max` takes the first, the earlier epoch.
    """
    return (-math.inf if math.isnan(score.auc) else score.auc, -score.logloss)


def objective(score: EpochScore) -> float:
    """One number to maximise, for a scheduler or a searcher: the AUC, or minus the LogLoss without an AUC.

    Comparable among scores of the same rows only, which either all have an AUC or all have none.
    """
    return -score.logloss if math.isnan(score.auc) else score.auc


def score_rows(model: DenseModel, rows: Examples) -> EpochScore:
    """Score a model on rows in embedding space.

    Raises:
        DataError: the model has diverged.
    """
    logit_NT = predict(model, rows.emb_NFD).cpu().numpy()
    names = [str(task) for task in range(logit_NT.shape[1])]
    scores = score_tasks(logit_NT, rows.label_NT.cpu().numpy(), names)
    return EpochScore(auc=scores.auc, logloss=scores.logloss)


class CandidateTraining:
    """The model, its optimiser, the score of each epoch and the weights of the best one.

    Training is a function of the arguments alone: saved after any epoch and restored, it continues as if it
    had not stopped, bit for bit on the same number of threads.
    """

    def __init__(
        self, model: DenseModel, reduced: Examples, validation: Examples, config: FitConfig, seed: int
    ) -> None:
        self.model, self.reduced, self.validation, self.config = model, reduced, validation, config
        self.optimiser = Adam(model.parameters(), lr=config.learning_rate)
        self.draw = torch_generator(seed, "candidate", "batches")
        self.scores: list[EpochScore] = []
        self.best_weights: dict[str, Tensor] = {}

    @property
    def best(self) -> int:
        """Number of the best epoch by `preference`, counted from 0."""
        return max(range(len(self.scores)), key=lambda epoch: preference(self.scores[epoch]))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` of them brought no better score."""
        done = len(self.scores)
        return done >= self.config.epochs or (done > 0 and done - 1 - self.best >= self.config.patience)

    def epoch(self) -> EpochScore:
        """Pass once over the reduced rows and score the validation rows.

        Raises:
            DataError: the model has diverged.
        """
        self.train()
        return self.score()

    def score(self) -> EpochScore:
        """Score the validation rows; keep a copy of the weights if the score is the best so far."""
        self.scores.append(score_rows(self.model, self.validation))
        if self.best == len(self.scores) - 1:
            self.best_weights = {name: part.clone() for name, part in self.model.state_dict().items()}
        return self.scores[-1]

    def train(self) -> None:
        """Pass once over the reduced rows."""
        for row_B in self._order().to(self.reduced.emb_NFD.device).split(self.config.batch_size):
            if len(row_B) == 1 < min(self.config.batch_size, self.reduced.rows):
                continue  # a single row left over: a batch norm cannot train on it
            train_mode(self.model, len(row_B))
            batch = self.reduced.take(row_B)
            loss = self.model.loss(batch.emb_NFD, batch.label_NT)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            self.optimiser.step()

    def _order(self) -> Tensor:
        return torch.randperm(self.reduced.rows, generator=self.draw)

    def save(self) -> bytes:
        """Everything the next epoch starts from, as safetensors.

        A frozen or unused parameter has no moments, and a tied one has them once, under its first name.
        """
        state = {"scores": torch.tensor(self.scores, dtype=torch.float64)}
        state |= {f"model.{name}": part for name, part in self.model.state_dict().items()}
        state |= {f"best.{name}": part for name, part in self.best_weights.items()}
        for name, weight in self.model.named_parameters():
            for moment, value in self.optimiser.state.get(weight, {}).items():
                state[f"adam.{name}.{moment}"] = value
        return to_safetensors(state)

    def restore(self, content: bytes) -> None:
        """Continue after the last epoch of `content`.

        Raises:
            RunError: `content` is damaged or of another model.
        """
        try:
            state = load(content)
            self.scores = [EpochScore(*row) for row in state["scores"].tolist()]
            weights = self.model.state_dict()
            self.model.load_state_dict({name: state[f"model.{name}"] for name in weights})
            self.best_weights = {
                name: state[f"best.{name}"].to(part.device) for name, part in weights.items()
            }
            for name, weight in self.model.named_parameters():
                if f"adam.{name}.step" not in state:
                    continue
                moments = {moment: state[f"adam.{name}.{moment}"] for moment in MOMENTS}
                self.optimiser.state[weight] = {
                    moment: value if moment == "step" else value.to(weight.device)
                    for moment, value in moments.items()
                }
        except (SafetensorError, KeyError, RuntimeError, TypeError) as broken:
            raise RunError(f"state of a candidate is damaged or of another model: {broken}") from broken
        for _ in self.scores:
            self._order()  # the draws of the epochs that are done

    def run(self) -> None:
        """Train until `finished`; leave the model at its best epoch."""
        while not self.finished:
            self.epoch()
        self.model.load_state_dict(self.best_weights)
