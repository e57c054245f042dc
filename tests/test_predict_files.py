"""`diet-ray predict`: files of any format to one file of scores, in order, whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import diet_ray
from diet_ray.errors import ConfigError, DataError, ResourceError, RunError
from diet_ray.log.scoring.files import KEPT, READABLE, pieces_of_file
from pipelines.predict import predict
from tests.exported_shop import export_model
from tests.shop_log import shop_rows
from tests.small_log import write_table

TASKS = ["clicked", "bought"]


@pytest.fixture(scope="module")
def shop_model(shop_log: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scored") / "model"
    export_model(shop_log / "out", folder)
    return str(folder)


def columns_of(rows: pd.DataFrame) -> dict[str, Any]:
    return pa.Table.from_pandas(rows, preserve_index=False).to_pydict()


def written(folder: Path, rows: pd.DataFrame) -> Path:
    """The rows in three files of different formats, by name in their order."""
    cut = len(rows) // 3
    write_table(folder / "a.parquet", columns_of(rows[:cut]))
    write_table(folder / "day=1" / "b.csv.gz", columns_of(rows[cut : 2 * cut].astype({"ts": "str"})))
    write_table(folder / "day=2" / "c.jsonl", columns_of(rows[2 * cut :].astype({"ts": "str"})))
    return folder


def test_files_of_several_formats_are_scored_in_order(
    ray_here: None, shop_model: str, tmp_path: Path
) -> None:
    rows, out = shop_rows(), tmp_path / "out" / "scores.parquet"
    source = written(tmp_path / "source", rows)
    assert predict(shop_model, str(source), str(out), ["user_id", "rating"]) == len(rows)
    scored = pd.read_parquet(out)
    assert list(scored) == ["user_id", "rating", *TASKS]
    expected = diet_ray.load_model(shop_model).predict(rows)
    np.testing.assert_allclose(scored[TASKS], expected, rtol=0, atol=1e-6)
    assert scored["user_id"].tolist() == rows["user_id"].tolist()
    assert scored["rating"].tolist() == rows["rating"].tolist() and scored["rating"].dtype == np.int64
    assert [path.name for path in out.parent.iterdir()] == ["scores.parquet"]


def test_a_row_that_cannot_be_read_leaves_no_file(
    ray_here: None, shop_model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "source", shop_rows())
    write_table(source / "z.csv", {**columns_of(shop_rows()[:2]), "ts": ["2017-09-03", "soon"]})
    with pytest.raises(DataError, match=r"z\.csv, row 2: ts is missing or not a time"):
        predict(shop_model, str(source), str(tmp_path / "out" / "scores.parquet"), [])
    assert not list((tmp_path / "out").iterdir())
    assert "Traceback" not in capfd.readouterr().err


def test_more_workers_than_the_cluster_holds_are_refused(
    ray_here: None, shop_model: str, tmp_path: Path
) -> None:
    shop_rows().to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ResourceError, match="--workers is 9: the cluster has room for 1 to 1"):
        predict(shop_model, str(tmp_path / "rows.parquet"), str(tmp_path / "out.parquet"), [], 9)
    assert not (tmp_path / "out.parquet").exists()


def test_mistakes_are_named_before_ray_starts(
    shop_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.predict.connect", lambda: pytest.fail("Ray was started for a mistake"))
    rows = tmp_path / "rows.parquet"
    shop_rows().drop(columns="brand").to_parquet(rows)
    with pytest.raises(ConfigError, match=r"rows\.parquet exists; choose another file"):
        predict(shop_model, str(rows), str(rows), [])
    with pytest.raises(DataError, match=r"rows\.parquet has no column brand; it has ts"):
        predict(shop_model, str(rows), str(tmp_path / "out"), [])
    shop_rows().to_parquet(rows)
    with pytest.raises(ConfigError, match="--keep bought: that is the name of a task"):
        predict(shop_model, str(rows), str(tmp_path / "out"), ["user_id", "bought"])
    with pytest.raises(DataError, match=r"rows\.parquet has no column nothing"):
        predict(shop_model, str(rows), str(tmp_path / "out"), ["nothing"])
    with pytest.raises(RunError, match="holds no exported model"):
        predict(str(tmp_path), str(rows), str(tmp_path / "out"), [])


def quarantining(shop_log: Path, tmp_path: Path) -> diet_ray.ExportedModel:
    """A model whose schema sets malformed rows aside."""
    export_model(shop_log / "out", tmp_path / "model")
    schema = tmp_path / "model" / "schema.yaml"
    schema.write_text(schema.read_text().replace("malformed: error", "malformed: quarantine"))
    return diet_ray.load_model(str(tmp_path / "model"))


def test_rows_that_cannot_be_read_keep_their_place(shop_log: Path, tmp_path: Path) -> None:
    """A line that is no JSON, a cell that is no value, a time that is none."""
    model, path = quarantining(shop_log, tmp_path), tmp_path / "rows.jsonl"
    good = '{"ts": "2017-09-03", "user_id": "u1", "item_id": 5, "brand": "acme", "n": %d}'
    bad = ["{broken", good.replace('"acme"', "[1]") % 4, good.replace("2017-09-03", "soon") % 5]
    path.write_text("\n".join([good % 1, bad[0], good % 3, bad[1], bad[2], good % 6]))
    piece = pa.concat_tables(pieces_of_file(str(path), str(path), model.reader, ["n"]))
    assert piece[READABLE].to_pylist() == [True, False, True, False, False, True]
    assert piece[f"{KEPT}n"].to_pylist() == ["1", None, "3", None, "5", "6"]
    assert piece["field user_id"].to_pylist() == ["u1", None, "u1", None, None, "u1"]
    assert piece["field hour"].to_pylist() == ["0", None, "0", None, None, "0"]


def test_a_kept_column_of_another_type_is_named(shop_log: Path, tmp_path: Path) -> None:
    model, path = quarantining(shop_log, tmp_path), tmp_path / "rows.parquet"
    shop_rows().assign(rating="good").to_parquet(path)
    kinds = pa.schema([("rating", pa.int64())])
    with pytest.raises(
        DataError, match=r"rows\.parquet: column rating is (large_)?string, in the first file int64"
    ):
        list(pieces_of_file(str(path), str(path), model.reader, ["rating"], kinds))
    (piece,) = pieces_of_file(
        str(path), str(path), model.reader, ["rating"], pa.schema([("rating", pa.string())])
    )
    assert set(piece[f"{KEPT}rating"].to_pylist()) == {"good"}


def test_files_without_rows_become_a_file_without_rows(
    ray_here: None, shop_model: str, tmp_path: Path
) -> None:
    shop_rows()[:0].to_parquet(tmp_path / "rows.parquet")
    assert predict(shop_model, str(tmp_path / "rows.parquet"), str(tmp_path / "out.parquet"), ["rating"]) == 0
    assert pq.read_schema(tmp_path / "out.parquet").names == ["rating", *TASKS]
