"""Trials of a search as a Ray Tune trainable, and the rows they share through the object store."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import tune

from actors.cells import CellWorker
from diet_ray.config import CandidateConfig, FitConfig
from diet_ray.errors import DietError
from diet_ray.evaluation.cell import new_candidate, validation_rows
from diet_ray.evaluation.trial import Trial, TrialData, TrialRecord
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.storage import Folder
from diet_ray.training.candidate import EpochScore
from diet_ray.training.learning import own_device

WORST = 0.0  # AUC


class SharedRows(NamedTuple):
    """Memory and validation rows in embedding space, as arrays that workers read without a copy."""

    reduced_emb: NDArray[np.float32]  # [N, F, D]
    reduced_label: NDArray[np.float32]  # [N, T]
    validation_emb: NDArray[np.float32]
    validation_label: NDArray[np.float32]

    def on(self, device: str) -> TrialData:
        with warnings.catch_warnings():
            # The arrays are read-only, and nobody writes to them.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            parts = [torch.as_tensor(part).to(device) for part in self]
        return TrialData(Examples(*parts[:2]), Examples(*parts[2:]))


class SearchSetting(NamedTuple):
    """What all trials of a search are told."""

    folder: str
    fit: FitConfig
    seeds: int
    threads: int


@ray.remote(num_cpus=1, max_retries=2)
def shared_rows(data: str, run: str, config: dict[str, Any], fit: dict[str, Any]) -> SharedRows:
    """The newest memory, and validation rows embedded by the tables of the newest checkpoint."""
    worker = CellWorker(data, run, config, threads=1)
    reduced = worker.reduced("diet", 0)
    newest = worker.checkpoint(len(worker.log.history))
    validation = validation_rows(newest, worker.log, FitConfig.model_validate(fit).validation_rows)
    return SharedRows(*(part.cpu().numpy() for part in (*reduced, *validation)))


class TuneTrial(tune.Trainable):
    """One epoch per step. Its process goes on to other trials, so a trial starts in milliseconds."""

    def setup(self, config: dict[str, Any], shared: Any = None, setting: Any = None) -> None:
        """`shared` holds a reference to SharedRows, `setting` is a SearchSetting (tune.with_parameters)."""
        torch.set_num_threads(setting.threads)
        self.setting: SearchSetting = setting
        self.device = own_device()
        self.data = ray.get(shared[0]).on(self.device)
        self.trial: Trial | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config, self.trial = new_config, None
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return True

    def step(self) -> dict[str, Any]:
        # Built here and not in `setup`, where a module of the user's that fails would end the whole search.
        self.trial = self.trial or self._trial()
        replayed = self.trial.told < self.trial.record.epochs
        try:
            best = self.trial.epoch()
        except Exception as failure:
            # It is on record. To Tune it is the worst of trials, for an error would cost a new process.
            if self._poisoned(failure):
                raise
            return {"auc": WORST, "now": {}, "done": True}
        now = {} if replayed else self._now()._asdict()
        return {"auc": best.auc, "now": now, "done": self.trial.finished}

    def _poisoned(self, failure: Exception) -> bool:
        """Whether later trials of this process may fail too: an error of a GPU's kernel stays with it."""
        return self.device == "cuda" and not isinstance(failure, DietError | torch.OutOfMemoryError)

    def _now(self) -> EpochScore:
        """The mean over seeds of the epoch just told; a seed that stopped earlier counts with its last."""
        assert self.trial is not None
        of_seed = [scores[: self.trial.told][-1] for scores in self.trial.record.scores]
        return EpochScore(*(float(np.mean(values)) for values in zip(*of_seed, strict=True)))

    def _trial(self) -> Trial:
        started = TrialRecord.model_validate(self.config["trial"])
        setting = self.setting
        return Trial(started, self.data, setting.fit, self._build, setting.seeds, Folder.at(setting.folder))

    def _build(self, candidate: CandidateConfig, seed: int) -> RankingModel:
        fields, dim = self.data.reduced.emb_NFD.shape[1:]
        tasks = self.data.reduced.label_NT.shape[1]
        return new_candidate(candidate, seed, fields=fields, dim=dim, tasks=tasks).to(self.device)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial keeps its own state in the run directory, without pickle."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see `save_checkpoint`."""
