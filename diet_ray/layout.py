"""Where everything lies in a run directory and in a prepared log; their paths are written here alone.

config.yaml log.json lease.json
stages/0003.json                        commit record
blocks/0003/block.json part-*.parquet   encoded rows (of a stream; a prepared log has its own)
vocabulary/0003/FIELD.parquet           ids first seen in the stage
events/0003/events.parquet              event ids of the stage
quarantine/0003/REASON-0.parquet        rows that were set aside
reference/0003/checkpoint.json          the reference after the stage: its files, and those it builds on
reference/0003/dense.safetensors rows-0-0000.safetensors
reference/0003/trained.json             mark that its training has finished; the stage may be uncommitted
memory/0003/memory.parquet              the distilled data; memory/latest.json names the newest
evaluation/ studies/                    cells, tables, runs of studies
search/                                 a search; its name is the user's choice
"""

import re

CONFIG = "config.yaml"
LOG_LOCATION = "log.json"
LEASE = "lease.json"
RECORDS = "stages"
RAY_TRAIN = "ray_train"  # folder that Ray Train wants for itself; nothing in it is read
STREAM_MANIFEST = "stream.json"
LATEST_MEMORY = "memory/latest.json"
REPORT = "report.html"

# Folders with one numbered folder per stage.
STAGE_FOLDERS = ("reference", "memory", "blocks", "vocabulary", "events", "quarantine")
# Of those, what a stream removes of old stages.
SWEPT_FOLDERS = ("reference", "memory", "blocks")

SETTINGS = "settings.json"  # of an evaluation or a search
BEST_CANDIDATE = "best.yaml"  # of a search


def stage_folder(part: str, stage: int) -> str:
    """The folder of a stage below `part`, one of STAGE_FOLDERS."""
    return f"{part}/{stage:04d}"


def stage_number(folder: str) -> int | None:
    """The stage of a folder's name; None where it is not the folder of a stage."""
    return int(folder) if re.fullmatch(r"\d{4,}", folder) else None


def record(stage: int) -> str:
    return f"{RECORDS}/{stage:04d}.json"


def checkpoint(stage: int) -> str:
    """The manifest of a checkpoint."""
    return f"reference/{stage:04d}/checkpoint.json"


def checkpoint_dense(stage: int) -> str:
    return f"reference/{stage:04d}/dense.safetensors"


def checkpoint_rows(stage: int, writer: int, number: int) -> str:
    """A file of table rows, one of those of a writing process."""
    return f"reference/{stage:04d}/rows-{writer}-{number:04d}.safetensors"


def single_file_checkpoint(stage: int) -> str:
    """A checkpoint as version 0.1 wrote it."""
    return f"reference/{stage:04d}/checkpoint.safetensors"


def trained(stage: int) -> str:
    """The mark that training of a stage has finished."""
    return f"reference/{stage:04d}/trained.json"


def memory(stage: int) -> str:
    return f"memory/{stage:04d}/memory.parquet"


def stream_block(stage: int) -> str:
    return f"blocks/{stage:04d}/block.json"


def block_part(block: str, part: int) -> str:
    """A file of encoded rows, of a stream or of a prepared log."""
    return f"blocks/{block}/part-{part:05d}.parquet"


def vocabulary(block: str, field: str) -> str:
    """The ids of a field that were first seen in a block, of a stream or of a prepared log."""
    return f"vocabulary/{block}/{field}.parquet"


def side_table(number: int) -> str:
    """A side table as it was joined, of a prepared log or of an exported model."""
    return f"side/{number}.parquet"


def events(stage: int) -> str:
    return f"events/{stage:04d}/events.parquet"


def quarantined(stage: int, reason: str, number: int) -> str:
    return f"quarantine/{stage:04d}/{reason}-{number}.parquet"


def quarantined_chunk(name: str) -> str:
    """Rows of a source file that `prepare` set aside."""
    return f"quarantine/{name}"


def scores(stage: int) -> str:
    """Folder of the EL2N scores of a stage's block, kept for studies and the EL2N baseline."""
    return f"studies/scores/{stage:04d}"


# Below the folder of an exported model.
MODEL_SCHEMA = "schema.yaml"


def model_vocabulary(field: str) -> str:
    """The ids that the table of a field knows."""
    return f"vocabulary/{field}.parquet"


CELLS = "evaluation/cells"


def cell(method: str, candidate: str, seed: int) -> str:
    return f"{CELLS}/{method}-{_file_name(candidate)}-{seed}.json"


def evaluated_candidate(candidate: str) -> str:
    return f"evaluation/candidates/{_file_name(candidate)}.json"


def rehearsal_weight(method: str) -> str:
    return f"evaluation/rehearsal/{method}.json"


def baseline_rows(method: str, seed: int | None) -> str:
    """Rows that a baseline selected; `seed` is None where its choice is not random."""
    return f"evaluation/selected/{method}{'' if seed is None else f'-{seed}'}.parquet"


EVALUATION_SETTINGS = f"evaluation/{SETTINGS}"
EVALUATION_RESULTS = "evaluation/results"  # .parquet and .json
VERDICT = "evaluation/verdict.json"  # numbers of the probes at the end of a distillation


def study(name: str) -> str:
    """A study's table, without its ending .parquet or .json."""
    return f"studies/{name}"


def study_run(variant: str) -> str:
    """Folder of a run that differs from this one in a setting."""
    return f"studies/runs/{re.sub('[^a-z0-9.]+', '-', variant.lower())}"


def trajectory(method: str, candidate: str, seed: int) -> str:
    return f"studies/trajectories/{method}-{candidate}-{seed}.json"


# Below the folder of a truth experiment.
TRUTH_CELLS = "cells"
TRUTH_RESULTS = "truth"  # .parquet and .json


def full_training(candidate: str, seed: int) -> str:
    return f"{TRUTH_CELLS}/{_file_name(candidate)}-{seed}.json"


def full_training_rows(candidate: str, seed: int) -> str:
    """Logits per row of a full training."""
    return f"rows/{_file_name(candidate)}-{seed}.npz"


def judged(judge: str, candidate: str, seed: int) -> str:
    """What a judge found out about a fully trained candidate."""
    return f"judged/{judge}/{_file_name(candidate)}-{seed}.json"


TRUTH_REFERENCE = "reference"  # its one checkpoint is that of stage 1
TRUTH_REFERENCE_COST = "reference.json"
JUDGE_RESULTS = "judges"  # .parquet and .json
JUDGE_PAGE = "judges.html"


# Below the folder of a search.
SEARCH_RESULTS = "results"  # .parquet and .json


def trial(number: int) -> str:
    return f"trials/{number:04d}.json"


def trial_state(number: int, seed: int) -> str:
    return f"state/{number:04d}-{seed}.safetensors"


def trial_states(number: int) -> str:
    """Pattern of the states of all seeds of a trial."""
    return f"state/{number:04d}-*"


def confirmation(method: str, number: int, seed: int) -> str:
    """A cell of one of the best; those that were trained on the memory have no method in their name."""
    return f"confirmed/{'' if method == 'diet' else f'{method}-'}{number:04d}-{seed}.json"


def anchor(number: int) -> str:
    """What the judges say of an anchor."""
    return f"anchors/{number:04d}.json"


CALIBRATION = "calibration.json"  # of the judges, by the anchors


TENSORBOARD = "tensorboard"  # of a run by stage, of a search by trial and epoch


def tensorboard(trial: int) -> str:
    return f"{TENSORBOARD}/{trial:04d}"


def _file_name(candidate: str) -> str:
    return candidate.replace(":", ".").replace("/", "-")
