"""How a command opens a finished run, and writes its tables."""

import json

import pandas as pd
import pyarrow as pa

from diet_ray import layout
from diet_ray.config import RunConfig
from diet_ray.errors import RunError
from diet_ray.log.dataset import PreparedLog
from diet_ray.runs.run import Run
from diet_ray.runs.trained import trained_ahead
from diet_ray.storage import Folder


def log_of(run: str) -> str:
    """URL of the log that a run was last distilled from; RunError where there is no run."""
    folder = Folder.at(run)
    if not folder.exists(layout.LOG_LOCATION):
        raise RunError(f"{run} is not a run: it has no {layout.LOG_LOCATION}; run `diet-ray distill` first")
    return str(folder.read_json(layout.LOG_LOCATION)["data"])


def complete_run(run: str, log: PreparedLog) -> RunConfig:
    """The config of a run that has distilled all of `log`; RunError where it has not."""
    opened = Run.read(run)
    if opened.config["fingerprint"] != log.fingerprint:
        raise RunError(f"{run} was distilled from a different preparation of the log")
    if opened.stage < len(log.history):
        raise RunError(
            f"{run} has {opened.stage} of {len(log.history)} stages; finish it with `diet-ray distill`"
        )
    return opened.run_config


def kept_stages(run: Run) -> str:
    """What of a run an interrupted command leaves, as a clause."""
    committed = {0: "no stage is committed yet", 1: "stage 1 is kept"}
    kept = committed.get(run.stage, f"stages 1 to {run.stage} are kept")
    return f"{kept}{trained_text(run)}"


def trained_text(run: Run) -> str:
    """The stages after the last committed one whose training is not repeated, as a clause; "" for none."""
    count = trained_ahead(run.folder, run.stage)
    stages = " and ".join(str(run.stage + number) for number in range(1, count + 1))
    return f", the training of stage {stages} too" if stages else ""


def write_table(folder: Folder, path: str, rows: pd.DataFrame) -> None:
    """Write `path`.parquet and `path`.json."""
    folder.write_parquet(f"{path}.parquet", pa.Table.from_pandas(rows, preserve_index=False))
    folder.write_json(f"{path}.json", json.loads(rows.to_json(orient="records")))
