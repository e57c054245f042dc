"""Raw rows to probabilities: encoded as the log was, scored as the evaluation scored them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import diet_ray
from diet_ray.config import CandidateConfig
from diet_ray.errors import DataError, RunError
from diet_ray.evaluation.cell import CellResult
from diet_ray.log.batches import joined
from diet_ray.log.dataset import PreparedLog
from diet_ray.log.preparation.prepare import prepare
from diet_ray.log.scoring.raw_rows import RawRows
from diet_ray.models.examples import predict
from diet_ray.models.registry import ARCHITECTURES
from diet_ray.training.embedding import embed_rows
from diet_ray.training.metrics import log_loss, roc_auc
from tests.exported_shop import export_model
from tests.shop_log import by_block, shop_rows, shop_schema, write_source

ROW = {"ts": "2017-09-03 12:00", "user_id": "u40", "item_id": 31, "brand": "acme"}


@pytest.fixture(scope="module")
def exported(shop_log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellResult]:
    """The folder of a model of the shop's log; read it, never write to it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    return folder, export_model(shop_log / "out", folder)


@pytest.fixture(scope="module")
def model(exported: tuple[Path, CellResult]) -> diet_ray.ExportedModel:
    return diet_ray.load_model(str(exported[0]))


def block_rows(name: str) -> pd.DataFrame:
    """The raw rows of a block, in order of time."""
    rows = shop_rows()
    return rows.loc[by_block(rows)[name].index]


def model_of(tmp_path: Path, rows: pd.DataFrame, **changes: Any) -> diet_ray.ExportedModel:
    """A model of a log with another schema."""
    out = str(tmp_path / "out")
    prepare(shop_schema(**changes), write_source(tmp_path / "source", rows), out)
    export_model(out, tmp_path / "model")
    return diet_ray.load_model(str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["test", "subsequent"])
def test_probabilities_of_raw_rows_are_those_of_the_encoded_block(
    model: diet_ray.ExportedModel, shop_log: Path, name: str
) -> None:
    """No two rows of the shop's log are at once, so both are in the same order."""
    log = PreparedLog.open(str(shop_log / "out"))
    rows = joined(list(log.chunks(log.blocks[name])))
    logit_NT = predict(model.recommender.dense, embed_rows(model.recommender, rows).emb_NFD)
    ours = model.predict(block_rows(name))
    np.testing.assert_allclose(ours, logit_NT.double().sigmoid(), rtol=0, atol=1e-9)
    assert ours.to_numpy().std() > 0.001


def test_scores_of_raw_rows_are_those_of_the_evaluation(
    model: diet_ray.ExportedModel, exported: tuple[Path, CellResult]
) -> None:
    rows = block_rows("test")
    scores = model.predict(rows)
    assert list(scores) == model.tasks == ["clicked", "bought"]
    for task, expected in exported[1].after.tasks.items():
        logit_N = np.log(scores[task] / (1 - scores[task])).to_numpy()
        assert roc_auc(scores[task].to_numpy(), rows[task].to_numpy()) == pytest.approx(
            expected.auc, abs=1e-6
        )
        assert log_loss(logit_N, rows[task].to_numpy()) == pytest.approx(expected.logloss, abs=1e-6)
        assert model.card["metrics"]["test"]["tasks"][task]["auc"] == pytest.approx(expected.auc, abs=1e-6)


def as_arrow(rows: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(rows, preserve_index=False)


@pytest.mark.parametrize(
    "form",
    [
        as_arrow,
        lambda rows: as_arrow(rows).combine_chunks().to_batches()[0],
        lambda rows: rows.astype({"item_id": "float64"}),
        lambda rows: rows.astype({"item_id": "str", "ts": "str", "brand": "category"}),
        lambda rows: rows.assign(item_id=[i if n % 2 else str(i) for n, i in enumerate(rows["item_id"])]),
        lambda rows: rows.to_dict("records"),
        lambda rows: [
            {**row, "item_id": float(row["item_id"]) if n % 2 else str(row["item_id"])}
            for n, row in enumerate(as_arrow(rows).to_pylist())
        ],
        lambda rows: rows[["brand", "item_id", "ts", "user_id"]],
    ],
)
def test_rows_may_come_in_any_form(
    model: diet_ray.ExportedModel, form: Callable[[pd.DataFrame], RawRows]
) -> None:
    rows = block_rows("test")
    given = form(rows)
    np.testing.assert_array_equal(model.predict(given), model.predict(rows))


def test_a_frames_index_is_kept_and_rows_have_their_own_scores(model: diet_ray.ExportedModel) -> None:
    rows = block_rows("test")
    turned = rows.iloc[::-1]
    assert model.predict(turned).index.equals(turned.index)
    pd.testing.assert_frame_equal(model.predict(turned).sort_index(), model.predict(rows))
    alone = pd.concat([model.predict(rows.iloc[n : n + 1]) for n in range(5)])
    pd.testing.assert_frame_equal(alone, model.predict(rows).head(5))


def test_many_rows_are_scored_in_pieces(
    model: diet_ray.ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = block_rows("test")
    whole = model.predict(rows)
    monkeypatch.setattr("diet_ray.evaluation.exported_model.ROWS", 7)
    pd.testing.assert_frame_equal(model.predict(rows), whole)


def test_no_rows_have_no_scores(model: diet_ray.ExportedModel) -> None:
    for rows in ([], block_rows("test").head(0), as_arrow(block_rows("test")).slice(0, 0)):
        assert model.predict(rows).shape == (0, 2)


def test_an_unknown_and_a_missing_id_are_out_of_vocabulary(model: diet_ray.ExportedModel) -> None:
    changes = [{"item_id": "never seen"}, {"item_id": None}, {"item_id": ""}, {"item_id": float("nan")}]
    absent = {name: value for name, value in ROW.items() if name != "item_id"}
    scores = model.predict([*({**ROW, **change} for change in changes), absent, ROW]).to_numpy()
    id_NF = torch.from_numpy(model.encoder.encode(model.reader.of_rows([ROW]).texts)).long()
    id_NF[0, 1] = 0
    expected = predict(model.recommender.dense, model.recommender.tables(id_NF)).double().sigmoid()
    np.testing.assert_allclose(scores[:-1], expected.expand(5, 2), rtol=0, atol=1e-7)
    assert (abs(scores[-1] - scores[0]) > 1e-5).all()


def test_ids_of_the_test_block_stay_unknown(model: diet_ray.ExportedModel, shop_log: Path) -> None:
    """As in the evaluation: validation and test rows teach no ids."""
    log = PreparedLog.open(str(shop_log / "out"))
    known = {field: encoder.rows for field, encoder in zip(log.fields, model.encoder.encoders, strict=True)}
    assert tuple(known.values()) == log.blocks["subsequent"].table_rows
    frames = by_block(shop_rows())
    seen = set(pd.concat([frames[name] for name in ("0001", "0002", "subsequent")])["user_id"])
    new = sorted(set(frames["test"]["user_id"]) - seen)[0]
    assert (model.predict([{**ROW, "user_id": new}]) == model.predict([{**ROW, "user_id": None}])).all(None)


def test_a_missing_column_is_named_and_labels_are_not_needed(model: diet_ray.ExportedModel) -> None:
    rows = block_rows("test")
    bare = rows[["ts", "user_id", "item_id", "brand"]]
    pd.testing.assert_frame_equal(model.predict(bare), model.predict(rows))
    for name in bare:
        with pytest.raises(DataError, match=f"the table has no column {name}; it has "):
            model.predict(bare.drop(columns=name))
        with pytest.raises(DataError, match=f"the table has no column {name}; it has "):
            model.predict(bare.drop(columns=name).to_dict("records"))
    with pytest.raises(DataError, match="the table has the column brand 2 times"):
        model.predict(pd.concat([bare, bare["brand"]], axis=1))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("rows.parquet", "a list of dicts, but this is a str"),
        ({"user_id": "u1"}, "a list of dicts, but this is a dict"),
        (5, "a list of dicts, but this is a int"),
        ([ROW, "u1"], "row 2 is a str, expected a dict"),
        ([ROW, {**ROW, "brand": ["a", "b"]}], "the table, row 2: brand is not a single value"),
        ([{**ROW, "user_id": [1]}], "column user_id cannot be a field"),
        ([ROW, {**ROW, "user_id": "\ud800"}], "the table, row 2: user_id is .*surrogates"),
        ([ROW, {**ROW, "ts": None}], "the table, row 2: ts is missing or not a time"),
        ([{**ROW, "ts": "03/09/2017"}], "03/09/2017"),
        ([ROW, {**ROW, "item_id": 2.0**60}], "row 2: item_id is a float beyond"),
    ],
)
def test_what_is_no_row_is_named(model: diet_ray.ExportedModel, rows: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as raised:
        model.predict(rows)
    assert "quarantine" not in str(raised.value)


def test_where_malformed_rows_are_quarantined_they_have_no_scores(tmp_path: Path) -> None:
    model = model_of(tmp_path, shop_rows(), malformed="quarantine")
    scores = model.predict([ROW, {**ROW, "ts": "soon"}, ROW, {**ROW, "item_id": 2.0**60}])
    assert scores.isna().all(axis=1).tolist() == [False, True, False, True]
    assert scores.notna().all(axis=1).tolist() == [True, False, True, False]


def test_filters_and_event_ids_are_those_of_the_log_alone(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"where": [{"column": "rating", "at_least": 2}], "event_id": "event"}
    rows = shop_rows().assign(event=lambda frame: [f"e{n}" for n in range(len(frame))])
    model = model_of(tmp_path, rows, **changes)
    assert len(model.predict([ROW, {**ROW, "rating": 1}])) == 2
    scores = model.predict(block_rows("test"))
    assert len(scores) == len(block_rows("test")) and scores.notna().all(None)


def test_a_model_without_a_field_of_the_time_needs_no_time(tmp_path: Path) -> None:
    model = model_of(
        tmp_path, shop_rows(), fields=["user_id", {"name": "stars", "from": "rating", "at_most": 3}]
    )
    scores = model.predict([{"user_id": "u20", "rating": stars} for stars in (3, "5.0", 2)])
    assert scores.iloc[0].equals(scores.iloc[1]) and not scores.iloc[0].equals(scores.iloc[2])
    with pytest.raises(DataError, match="row 1: rating is not a number"):
        model.predict([{"user_id": "u20", "rating": "many"}])


def test_hashed_ids_are_hashed(tmp_path: Path) -> None:
    model = model_of(tmp_path, shop_rows(), encoder={"kind": "hashed", "buckets": 50})
    assert not (tmp_path / "model" / "vocabulary").exists()
    rows = block_rows("test")
    log = PreparedLog.open(str(tmp_path / "out"))
    block = joined(list(log.chunks(log.blocks["test"])))
    np.testing.assert_array_equal(model.encoder.encode(model.reader.of_rows(rows).texts), block.id_NF)


def test_side_tables_are_joined_and_a_rows_own_column_comes_first(tmp_path: Path) -> None:
    rows, source = shop_rows(), tmp_path / "source"
    source.mkdir()
    brands = pd.DataFrame({"item_id": range(60), "brand": [f"b{n % 4}" for n in range(60)]})
    brands.to_csv(source / "items.csv", index=False)
    joins = [{"files": "items.csv", "on": "item_id"}]
    model = model_of(tmp_path, rows.drop(columns="brand"), join=joins)
    shutil.rmtree(source)
    bare = block_rows("test").drop(columns="brand")
    own = bare.assign(brand=[f"b{n % 4}" for n in bare["item_id"]])
    pd.testing.assert_frame_equal(model.predict(bare), model.predict(own))
    assert not model.predict(own.assign(brand="b1")).equals(model.predict(own))
    with pytest.raises(DataError, match="no column item_id"):
        model.predict(bare.drop(columns="item_id"))
    shutil.rmtree(tmp_path / "model" / "side")  # of a log that version 0.1 prepared
    without = diet_ray.load_model(str(tmp_path / "model"))
    pd.testing.assert_frame_equal(without.predict(own), model.predict(own))
    with pytest.raises(DataError, match="the table has no column brand"):
        without.predict(bare)


def test_a_model_of_an_earlier_version_says_that_it_cannot(
    exported: tuple[Path, CellResult], tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(exported[0], old)
    shutil.rmtree(old / "vocabulary")
    (old / "schema.yaml").unlink()
    model = diet_ray.load_model(str(old))
    assert model.recommender.tables.rows and model.card["metrics"]
    with pytest.raises(RunError, match=r"old was exported by an earlier version .*`diet-ray train`"):
        model.predict([ROW])


def test_a_vocabulary_that_does_not_fit_is_a_damaged_model(
    exported: tuple[Path, CellResult], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(exported[0], broken)
    shutil.copy(broken / "vocabulary" / "brand.parquet", broken / "vocabulary" / "user_id.parquet")
    with pytest.raises(RunError, match=r"broken holds a damaged model: .*the encoding of user_id has 4 rows"):
        diet_ray.load_model(str(broken)).predict([ROW])
    (broken / "vocabulary" / "user_id.parquet").unlink()
    with pytest.raises(RunError, match=r"broken holds a damaged model: .*user_id\.parquet does not exist"):
        diet_ray.load_model(str(broken)).predict([ROW])


def test_a_model_of_a_later_version_is_refused(exported: tuple[Path, CellResult], tmp_path: Path) -> None:
    later = tmp_path / "later"
    shutil.copytree(exported[0], later)
    card = (later / "card.json").read_text().replace('"format": 2', '"format": 3')
    (later / "card.json").write_text(card)
    with pytest.raises(RunError, match="later holds a model of a later version"):
        diet_ray.load_model(str(later))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_dense_part_runs_outside_of_this_package(shop_log: Path, tmp_path: Path, name: str) -> None:
    export_model(shop_log / "out", tmp_path, CandidateConfig(name=name), "cold")
    model = diet_ray.load_model(str(tmp_path))
    torch.export.save(model.dense_program(), tmp_path / "dense.pt2")
    program = torch.export.load(tmp_path / "dense.pt2").module()
    for rows in (1, 2, 33):
        emb_NFD = torch.randn(rows, 4, 4, generator=torch.Generator().manual_seed(rows))
        with torch.no_grad():
            torch.testing.assert_close(program(emb_NFD), model.recommender.dense(emb_NFD))
