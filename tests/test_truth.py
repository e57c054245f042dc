"""Full trainings that a search is held against: as the method `full`, resumable, on two splits."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from diet_ray.config import FitConfig, TrainingConfig
from diet_ray.errors import ConfigError, RunError
from diet_ray.evaluation.cell import Setting, run_cell
from diet_ray.evaluation.full_training import train_fully
from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.split import EarlierLog
from pipelines.studies.judging import Judge, judge_all
from pipelines.studies.ranked_candidates import LARGEST, NARROW_RATES, multiply_adds, narrow_candidates
from pipelines.truth import Truth, train_all


def test_a_full_training_is_the_cell_of_the_method_full(drift_log: str) -> None:
    log, candidate = PreparedLog.open(drift_log), narrow_candidates(1)["finalnet-00"]
    training = TrainingConfig(batch_size=256)
    trained = train_fully(candidate, 1, log, 8, training)
    _, cell = run_cell("full", candidate, 1, Setting(log, 8, training, FitConfig()))
    assert trained.validation.scores(log.tasks) == cell.validation
    assert trained.test.scores(log.tasks) == cell.after and trained.rows == cell.rows_trained
    last = trained.pieces["subsequent"]
    assert len(last) == 8 and last[0] == trained.subsequent.parts(8)[0].scores(log.tasks)


def test_one_block_earlier_has_the_same_rows_in_other_parts(drift_log: str) -> None:
    log = PreparedLog.open(drift_log)
    earlier, divided = EarlierLog(log), log.history[-1]
    assert earlier.history == log.history[:-1]
    after = [earlier.blocks[name] for name in ("subsequent", "validation", "test")]
    whole = joined(list(log.chunks(divided)))
    parts = joined([joined(list(earlier.chunks(block))) for block in after])
    assert (parts.id_NF == whole.id_NF).all() and (parts.label_NT == whole.label_NT).all()
    assert [block.rows for block in after] == [
        divided.rows // 2,
        3 * divided.rows // 4 - divided.rows // 2,
        divided.rows - 3 * divided.rows // 4,
    ]
    test = joined(list(earlier.chunks(after[2])))
    some = earlier.rows(after[2], np.array([0, 7]))
    assert (some.id_NF == test.id_NF[[0, 7]]).all()
    assert (
        joined(list(earlier.chunks(log.history[0]))).id_NF[:9]
        == joined(list(log.chunks(log.history[0]))).id_NF[:9]
    ).all()
    log.blocks = {name: b for name, b in log.blocks.items() if b not in log.history[:-1]}
    with pytest.raises(ConfigError, match="too little history"):
        EarlierLog(log)


def test_candidates_are_balanced_small_and_narrow_in_rate() -> None:
    few, more = narrow_candidates(1), narrow_candidates(3)
    assert list(more)[:5] == list(few) and list(more.values())[:5] == list(few.values())
    assert len({candidate.model_dump_json() for candidate in more.values()}) == 15
    for candidate in more.values():
        assert candidate.learning_rate and NARROW_RATES[0] <= candidate.learning_rate <= NARROW_RATES[1]
        assert multiply_adds(candidate) <= LARGEST


def test_truth_and_judges_resume(drift_log: str, tmp_path: Path) -> None:
    out = str(tmp_path / "truth")
    first = train_all(Truth(data=drift_log, out=out, each=1, dim=8))
    path = tmp_path / "truth/cells/dcn-00-0.json"
    kept = path.read_bytes()
    (tmp_path / "truth/cells/wukong-00-0.json").unlink()
    again = train_all(Truth(data=drift_log, out=out, each=1, dim=8))
    assert path.read_bytes() == kept
    assert list(again["candidate"]) == list(first["candidate"]) and len(again) == 5
    assert list(again["test"]) == list(first["test"])
    assert len(json.loads((tmp_path / "truth/truth.json").read_text())) == 5
    rows = np.load(tmp_path / "truth/rows/dcn-00-0.npz")
    assert rows["test"].shape == (PreparedLog.open(drift_log).blocks["test"].rows, 3)
    with pytest.raises(RunError, match="another log or with other settings"):
        train_all(Truth(data=drift_log, out=out, each=1, dim=4))
    known = {"settings": json.loads((tmp_path / "truth/settings.json").read_text())}
    known["full_trainings"] = [json.loads(kept)]
    judged = {"judge": "cold", "seed": 0, "auc": [0.5, 0.6], "rows": 7}
    known["judged"] = [{"candidate": "dcn-00", **judged}]
    (tmp_path / "known.json").write_text(json.dumps(known))
    other = Truth(data=drift_log, out=str(tmp_path / "other"), each=1, dim=8)
    taken = dataclasses.replace(other, known=str(tmp_path / "known.json"))
    assert train_all(taken)["seconds"][0] == json.loads(kept)["seconds"]  # not trained again
    assert not (tmp_path / "other/rows/dcn-00-0.npz").exists()
    path = tmp_path / "other/judged/cold/dcn-00-0.json"
    assert json.loads(path.read_text()) == judged
    path.write_text("{}")
    train_all(taken)
    assert path.read_text() == "{}"  # what is there stays
    with pytest.raises(ConfigError, match="is not of this log"):
        train_all(dataclasses.replace(taken, out=str(tmp_path / "third"), dim=4))
    judge = Judge(truth=out, data=drift_log)
    assert judge_all(judge, ["cold", "mixed"]) == 10 and judge_all(judge, ["cold", "mixed"]) == 0
    record = json.loads((tmp_path / "truth/judged/mixed/dcn-00-0.json").read_text())
    assert 0 < record["auc"][-1] < 1 and record["seconds"] > 0
    with pytest.raises(RunError, match="no truth experiment"):
        judge_all(Judge(truth=str(tmp_path), data=drift_log), ["cold"])
