"""A small model of the shop's log, exported with all that scoring raw rows needs."""

from pathlib import Path

from diet_ray.config import CandidateConfig, FitConfig, TrainingConfig
from diet_ray.evaluation.cell import CellResult, Setting, run_cell
from diet_ray.evaluation.export import write_model
from diet_ray.log.dataset import PreparedLog
from diet_ray.storage import Folder

CANDIDATE = CandidateConfig(name="finalnet", options={"hidden": [8]}, learning_rate=0.01)


def export_model(
    log: str | Path, url: str | Path, candidate: CandidateConfig = CANDIDATE, method: str = "full"
) -> CellResult:
    """Train a candidate on a prepared log and export it; return its scores."""
    opened = PreparedLog.open(str(log))
    setting = Setting(opened, 4, TrainingConfig(batch_size=16, learning_rate=0.01), FitConfig())
    recommender, result = run_cell(method, candidate, 0, setting)
    write_model(Folder.at(str(url)), recommender, candidate, opened, result, {"run": "here"})
    return result
