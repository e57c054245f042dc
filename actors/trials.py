"""Trials of a search as a Ray Tune trainable; the memory's rows are shared through the object store."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from ray import tune

from actors.cells import evaluator
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import DietError
from diet_ray.evaluation.judges.prequential import JUDGES
from diet_ray.evaluation.judges.trial import JudgedTrial
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
    judges: tuple[str, ...] = ()  # names of JUDGES; without any, trials train on the memory to their end
    memory_epochs: int = 1  # before the judges
    evaluated: tuple[str, str, dict[str, Any]] = ("", "", {})  # data, run, config; for judges only


class TuneTrial(tune.Trainable):
    """One epoch or piece per step. Its process goes on to other trials, so a trial starts in milliseconds."""

    def setup(self, config: dict[str, Any], rows: Any = None, setting: Any = None) -> None:
        """`rows` is a list of one reference to cells.trial_arrays, `setting` a SearchSetting."""
        self.setting: SearchSetting = setting
        self.judges = {name: JUDGES[name] for name in setting.judges}
        if self.judges:
            own = evaluator(*setting.evaluated)
            wanted = any(judge.needs_reference for judge in self.judges.values())
            self.judge_setting = own.judge_setting(with_reference=wanted)
        torch.set_num_threads(setting.threads)
        self.device = default_device()
        self.data = _on_device(ray.get(rows[0]), self.device)
        if self.judges:
            self.full_cost = own.full_cost(self.data.reduced.rows)
        self.trial: Trial | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config, self.trial = new_config, None
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return True

    def step(self) -> dict[str, Any]:
        # Built here and not in `setup`, where a failing module of the user's would end the whole search.
        self.trial = self.trial or self._trial()
        replayed = self.trial.replayed < self.trial.record.steps
        try:
            best = self.trial.epoch()
        except Exception as failure:
            # It is on record. To Tune it is the worst of trials, for an error would cost a new process.
            if self._process_is_unsafe(failure):
                raise
            return {"objective": WORST, "epoch": {}, "cost": self._cost(), "done": True}
        newest = best if self.judges else self._newest_epoch()
        return {
            "objective": objective(best),
            "epoch": {} if replayed else newest._asdict(),
            "cost": self._cost(),
            "done": self.trial.finished,
        }

    def _cost(self) -> float:
        """Of the trial so far, in full trainings; 0 in a search without judges, which cannot tell."""
        if not self.trial or not self.judges:
            return 0.0
        return self.full_cost.spent(self.trial.record)

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
        own = (
            TrialRecord.model_validate(self.config["trial"]),
            self.data,
            setting.fit,
            self._build,
            setting.seeds,
            Folder.at(setting.folder),
        )
        if not self.judges:
            return Trial(*own)
        return JudgedTrial(*own, self.judges, setting.memory_epochs, self.judge_setting)

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
