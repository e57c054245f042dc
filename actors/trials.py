"""Trials of a search as a Ray Tune trainable; their rows are shared through the object store."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from ray import tune

from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import DietError
from diet_ray.evaluation.trial import Trial, TrialData
from diet_ray.evaluation.trial_record import TrialRecord
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.storage import Folder
from diet_ray.training.candidate import EpochScore, objective
from diet_ray.training.candidate_setup import new_candidate
from diet_ray.training.device import default_device

WORST = -1e6  # below every AUC and every negative LogLoss; finite, for schedulers take means


class SearchSetting(NamedTuple):
    """What all trials of a search share, besides their rows."""

    folder: str  # URL
    fit: FitConfig
    seeds: int
    threads: int


class TuneTrial(tune.Trainable):
    """One epoch per step. Its process goes on to other trials, so a trial starts in milliseconds."""

    def setup(self, config: dict[str, Any], rows: Any = None, setting: Any = None) -> None:
        """`rows` is a list of one reference to cells.trial_arrays, `setting` a SearchSetting."""
        torch.set_num_threads(setting.threads)
        self.setting: SearchSetting = setting
        self.device = default_device()
        self.data = _on_device(ray.get(rows[0]), self.device)
        self.trial: Trial | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config, self.trial = new_config, None
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return True

    def step(self) -> dict[str, Any]:
        # Built here and not in `setup`, where a failing module of the user's would end the whole search.
        self.trial = self.trial or self._trial()
        replayed = self.trial.replayed < self.trial.record.epochs
        try:
            best = self.trial.epoch()
        except Exception as failure:
            # It is on record. To Tune it is the worst of trials, for an error would cost a new process.
            if self._process_is_unsafe(failure):
                raise
            return {"objective": WORST, "epoch": {}, "done": True}
        epoch = {} if replayed else self._newest_epoch()._asdict()
        return {"objective": objective(best), "epoch": epoch, "done": self.trial.finished}

    def _process_is_unsafe(self, failure: Exception) -> bool:
        """Whether later trials of this process may fail too: an error of a GPU kernel stays with it."""
        return self.device == "cuda" and not isinstance(failure, DietError | torch.OutOfMemoryError)

    def _newest_epoch(self) -> EpochScore:
        """Mean over seeds of the newest epoch; a seed that stopped earlier counts with its last one."""
        assert self.trial is not None
        newest = [scores[: self.trial.replayed][-1] for scores in self.trial.record.scores]
        return EpochScore(*(float(np.mean(values)) for values in zip(*newest, strict=True)))

    def _trial(self) -> Trial:
        setting = self.setting
        return Trial(
            TrialRecord.model_validate(self.config["trial"]),
            self.data,
            setting.fit,
            self._build,
            setting.seeds,
            Folder.at(setting.folder),
        )

    def _build(self, candidate: CandidateConfig, seed: int) -> RankingModel:
        fields, dim = self.data.reduced.emb_NFD.shape[1:]
        tasks = self.data.reduced.label_NT.shape[1]
        return new_candidate(candidate, seed, fields=fields, dim=dim, tasks=tasks).to(self.device)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial keeps its own state in the run directory, without pickle."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see `save_checkpoint`."""


def _on_device(arrays: list[np.ndarray], device: str) -> TrialData:
    with warnings.catch_warnings():
        # The arrays are read-only, and nobody writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        emb, label, validation_emb, validation_label = (torch.as_tensor(a).to(device) for a in arrays)
    return TrialData(Examples(emb, label), Examples(validation_emb, validation_label))
