"""Compare what candidates learn from the memory with what they learn from all history.

One file per finished cell: started again, only missing cells run.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple

import fsspec
import pandas as pd
import pyarrow as pa
import ray
import tyro
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from actors.cells import evaluate_cell, find_rehearsal
from actors.cluster import as_finished, gpu_share
from actors.connection import connect, user_errors
from diet_ray.config import CandidateConfig, FitConfig, RunConfig
from diet_ray.errors import ConfigError, RunError
from diet_ray.evaluation.cell import METHODS, REDUCED, Method, new_candidate
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.registry import ARCHITECTURES
from diet_ray.runs.run import Run
from diet_ray.storage import Folder, absolute
from diet_ray.strict import config_error
from pipelines.distill import LOG_OF_RUN
from pipelines.runtime.command import run_command
from pipelines.runtime.progress import bars, console


@dataclass(frozen=True)
class Evaluate:
    """Train candidates on the memory of a run and on its rivals; compare them on the test block.

    $ diet-ray evaluate --run runs/globo

    $ diet-ray evaluate --run runs/globo --methods warmup,random,diet,full --candidates dcn,wukong --seeds 3

    $ diet-ray evaluate --run runs/globo --candidates my_package.models:MyNet,runs/globo/search/best.yaml

    Writes RUN/evaluation/results.parquet and results.json, one row per method, candidate and seed.
    """

    run: str
    """Directory of a run that has distilled all its blocks."""
    methods: str = ",".join(METHODS)
    """Comma list: what stands for history."""
    candidates: str = ",".join(ARCHITECTURES)
    """Comma list of architectures, package.module:Class of your own, or YAML files such as best.yaml."""
    seeds: int = 3
    """How often each cell is repeated, with seeds 0, 1, ..."""
    data: str | None = None
    """Directory of the prepared log, where it has moved since the run."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = FitConfig()

    def __call__(self) -> None:
        methods = tuple(listed(self.methods, "methods", METHODS))
        candidates = load_candidates(listed(self.candidates, "candidates"))
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; at least 1 is needed")
        results = evaluate(self.data or log_of(self.run), self.run, methods, candidates, self.seeds, self.fit)
        # A pipe has no width of its own; Rich would cut the spread off at 80 columns.
        Console(width=None if sys.stdout.isatty() else 160).print(table(results))


def log_of(run: str) -> str:
    """Where the log of a run was when it was last distilled."""
    folder = Folder.at(run)
    if not folder.exists(LOG_OF_RUN):
        raise RunError(f"{run} is not a run: it has no {LOG_OF_RUN}; run `diet-ray distill` first")
    return str(folder.read_json(LOG_OF_RUN)["data"])


def load_candidates(words: list[str]) -> dict[str, CandidateConfig]:
    """Candidates by what they are called: an architecture's name, or that of a YAML file without its ending.

    Raises ConfigError where a file cannot be read, and where two candidates would be called alike.
    """
    found: dict[str, CandidateConfig] = {}
    for word in words:
        is_file = word.endswith((".yaml", ".yml"))
        called = PurePath(word).stem if is_file else word
        if called in found:
            raise ConfigError(f"two candidates are called {called}; rename a file")
        found[called] = load_candidate(word) if is_file else CandidateConfig(name=word)
    return found


def load_candidate(file: str) -> CandidateConfig:
    """A candidate as `diet-ray search` writes it; ConfigError names the file, and each key that is wrong."""
    try:
        with fsspec.open(file, "rb") as opened:
            return CandidateConfig.model_validate(yaml.safe_load(opened.read()) or {})
    except OSError as missing:
        raise ConfigError(f"candidate {file} cannot be read: {missing}") from missing
    except yaml.YAMLError as broken:
        raise ConfigError(f"candidate {file} is not YAML: {broken}") from broken
    except ValidationError as wrong:
        raise config_error(wrong, f"candidate {file}") from wrong


class Cell(NamedTuple):
    method: Method
    candidate: str
    seed: int

    @property
    def path(self) -> str:
        return f"evaluation/cells/{self.method}-{self.candidate.replace(':', '.')}-{self.seed}.json"


def evaluate(
    data: str,
    run: str,
    methods: tuple[Method, ...],
    candidates: dict[str, CandidateConfig],
    seeds: int,
    fit: FitConfig,
) -> pd.DataFrame:
    """`run_cells`, and RUN/evaluation/results.parquet and .json of what was asked for."""
    results = run_cells(data, run, methods, candidates, seeds, fit)
    write_table(Folder.at(run), "evaluation/results", results)
    return results


def run_cells(
    data: str,
    run: str,
    methods: tuple[Method, ...],
    candidates: dict[str, CandidateConfig],
    seeds: int,
    fit: FitConfig,
) -> pd.DataFrame:
    """Run the missing cells; return one row for each that was asked for.

    Raises RunError where the run is not complete, ConfigError where a candidate cannot be built.
    """
    data, run = absolute(data), absolute(run)
    log, folder = PreparedLog.open(data), Folder.at(run)
    config = complete_run(run, log)
    for called, candidate in candidates.items():
        new_candidate(candidate, 0, fields=len(log.fields), dim=config.dim, tasks=len(log.tasks))
        _check_same(
            folder,
            f"evaluation/candidates/{called.replace(':', '.')}.json",
            candidate.model_dump(mode="json"),
        )
    _check_same(
        folder, "evaluation/settings.json", {"candidate": fit.model_dump(), "fingerprint": log.fingerprint}
    )
    cells = [Cell(m, c, s) for s in range(seeds) for c in candidates for m in methods]
    missing = [cell for cell in cells if not folder.exists(cell.path)]
    if missing:
        connect()
        _run(missing, candidates, folder, data, run, config, fit)
    return pd.DataFrame([folder.read_json(cell.path) for cell in cells])


def write_table(folder: Folder, path: str, rows: pd.DataFrame) -> None:
    """Write `path`.parquet and `path`.json."""
    folder.write_parquet(f"{path}.parquet", pa.Table.from_pandas(rows, preserve_index=False))
    folder.write_json(f"{path}.json", json.loads(rows.to_json(orient="records")))


def complete_run(run: str, log: PreparedLog) -> RunConfig:
    """The config of a run that has distilled all of `log`; RunError where it has not."""
    opened = Run.read(run)
    if opened.config["fingerprint"] != log.fingerprint:
        raise RunError(f"{run} was distilled from another preparation of the log than the one given")
    if opened.stage < len(log.history):
        raise RunError(
            f"{run} has {opened.stage} of {len(log.history)} stages; go on with `diet-ray distill`"
        )
    own = {key: value for key, value in opened.config.items() if key not in ("log", "fingerprint")}
    return RunConfig.model_validate(own)


def _check_same(folder: Folder, path: str, settings: dict[str, Any]) -> None:
    """Cells of one directory are comparable only where they were trained alike."""
    if not folder.exists(path):
        folder.write_json(path, settings)
    elif folder.read_json(path) != settings:
        raise RunError(f"{folder / path} differs from what is asked; move the evaluation folder away first")


def _run(
    missing: list[Cell],
    candidates: dict[str, CandidateConfig],
    folder: Folder,
    data: str,
    run: str,
    config: RunConfig,
    fit: FitConfig,
) -> None:
    plain = (data, run, config.model_dump(mode="json"))
    gpus = gpu_share(ray.cluster_resources())
    if fit.weight_is_open:
        reduced = tuple(dict.fromkeys(cell.method for cell in missing if cell.method in REDUCED))
        _find_rehearsals(reduced, find_rehearsal.options(num_gpus=gpus), plain, fit)
    cell_task = evaluate_cell.options(num_gpus=gpus)
    models = {called: candidate.model_dump(mode="json") for called, candidate in candidates.items()}
    running = {
        cell_task.remote(*plain, c.method, models[c.candidate], c.seed, fit.model_dump()): c for c in missing
    }
    with bars() as shown, shown.bar("cells", len(missing), "cells") as bar:
        for cell, done in as_finished(running):
            with user_errors():
                result = ray.get(done)
            folder.write_json(cell.path, {**cell._asdict(), **result.flat()})
            bar.advance(1)
            console.print(
                f"{cell.method} {cell.candidate} seed {cell.seed}: AUC {result.after.auc:.4f}, "
                f"LogLoss {result.after.logloss:.4f}, {result.seconds:.0f} s"
            )


def _find_rehearsals(methods: tuple[Method, ...], task: Any, plain: tuple[Any, ...], fit: FitConfig) -> None:
    """Before the cells start, lest each of them look for the weight itself."""
    running = {task.remote(*plain, method, fit.model_dump()): method for method in methods}
    with bars() as shown, shown.bar("rehearsal", len(running), "methods") as bar:
        for method, done in as_finished(running):
            with user_errors():
                weight = ray.get(done)
            bar.advance(1)
            console.print(f"{method}: rehearsal weighs {weight:g} x the rows of the block")


def table(results: pd.DataFrame) -> Table:
    """Test AUC over LogLoss, mean ± standard deviation over seeds; the last column means over candidates."""
    shown = Table("method", show_lines=True, caption="test AUC over LogLoss, mean ± deviation over seeds")
    for name in [*results["candidate"].unique(), "mean"]:
        shown.add_column(name, overflow="fold")
    for method in [m for m in METHODS if m in set(results["method"])]:
        mine = results[results["method"] == method]
        cells = [_told(mine[mine["candidate"] == c]) for c in results["candidate"].unique()]
        by_seed = mine.groupby("seed")[["auc", "logloss"]].mean()
        shown.add_row(method, *cells, _told(by_seed))
    return shown


def listed(text: str, option: str, allowed: tuple[Any, ...] | None = None) -> list[Any]:
    """The words of a comma list, each once; ConfigError names one that is not allowed."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise ConfigError(f"--{option} is empty")
    for word in words:
        if allowed and word not in allowed:
            raise ConfigError(f"--{option} holds {word!r}; use {', '.join(allowed)}")
    return words


def _told(rows: pd.DataFrame) -> str:
    return "\n".join(with_spread(rows[score]) for score in ("auc", "logloss"))


def with_spread(values: pd.Series) -> str:
    """Mean ± standard deviation of what is known; the mean alone of one value, nothing of none."""
    known = values.dropna()
    spread = f" ± {known.std():.4f}" if len(known) > 1 else ""
    return f"{known.mean():.4f}{spread}" if len(known) else ""


if __name__ == "__main__":
    sys.exit(run_command(Evaluate, "diet-ray evaluate"))
