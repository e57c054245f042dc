"""An exported model as its users read it: probabilities of raw rows.

Shape suffixes: N rows, F fields, T tasks.
"""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from diet_ray import layout
from diet_ray.errors import DataError, RunError
from diet_ray.evaluation.export import read_model
from diet_ray.log.scoring.encoding import FieldEncoder
from diet_ray.log.scoring.fields import FieldReader
from diet_ray.log.scoring.raw_rows import RawRows
from diet_ray.models.examples import predict
from diet_ray.storage import Folder, absolute
from diet_ray.training.recommender import Recommender

ROWS = 65_536  # that are scored at once


class ExportedModel:
    """A trained candidate, its description, and what turns raw rows into rows of its tables.

    Attributes:
        recommender: embedding tables, one per field, and the dense model above them.
        card: content of card.json: candidate, schema, metrics, provenance, versions.
    """

    def __init__(self, folder: Folder, device: str = "cpu") -> None:
        self._folder = folder
        self.recommender: Recommender
        self.card: dict[str, Any]
        self.recommender, self.card = read_model(folder, device)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the logits."""
        return list(self.card["schema"]["tasks"])

    def predict(self, rows: RawRows) -> pd.DataFrame:
        """Probabilities of raw rows, as they come from where the log came from.

        Rows need the columns that the fields are made of, and no labels; other columns are ignored. An id
        that the model has not learned, and a missing value, count as out-of-vocabulary, as in training. The
        schema's filters (`where`) leave no row out here.

        Args:
            rows: a pandas frame, an Arrow table or a list of dicts.

        Returns:
            A column per task and a row per row, in their order; a pandas frame's index is kept. NaN in rows
            that cannot be read, where the log's schema says `malformed: quarantine`.

        Raises:
            DataError: where a column is missing, or a row cannot be read.
            RunError: where the model was exported by an earlier version, without its vocabulary.
        """
        fields = self.reader.of_rows(rows)
        probability_NT = np.full((len(rows), len(self.tasks)), np.nan)
        probability_NT[fields.row_N - 1] = self.probabilities(fields.texts)
        index = rows.index if isinstance(rows, pd.DataFrame) else None
        return pd.DataFrame(probability_NT, columns=self.tasks, index=index)

    def probabilities(self, texts: pa.Table) -> NDArray[np.float64]:
        """Probabilities of rows whose fields have been read (`reader`); [N, T]."""
        parts = [self._scored(texts.slice(start, ROWS)) for start in range(0, texts.num_rows, ROWS)]
        return np.concatenate([np.empty((0, len(self.tasks))), *parts])

    def dense_program(self) -> torch.export.ExportedProgram:
        """The dense model for other runtimes: embeddings [N, F, D] to logits [N, T], any number of rows N.

        `torch.export.save` writes it; the tables are the tensors `tables.F` of model.safetensors.
        """
        fields, dim = len(self.card["schema"]["fields"]), self.card["schema"]["dim"]
        emb_NFD = torch.zeros(2, fields, dim, device=self.recommender.device)
        shapes = ({0: torch.export.Dim("rows")},)
        return torch.export.export(self.recommender.dense.eval(), (emb_NFD,), dynamic_shapes=shapes)

    @cached_property
    def reader(self) -> FieldReader:
        """Takes the fields out of raw rows; RunError where the model has no schema."""
        self._check_encoding()
        return FieldReader(self._folder)

    @cached_property
    def encoder(self) -> FieldEncoder:
        """Turns the fields' ids into rows of the tables; RunError where there is none, or a damaged one."""
        self._check_encoding()
        try:
            return FieldEncoder(self._folder, self.recommender.tables.rows)
        except DataError as broken:
            raise RunError(f"{self._folder.root} holds a damaged model: {broken}") from broken

    def _check_encoding(self) -> None:
        if not self._folder.exists(layout.MODEL_SCHEMA):
            raise RunError(
                f"{self._folder.root} was exported by an earlier version of diet_ray, without its "
                "vocabulary: it cannot predict from raw rows; export it again with `diet-ray train`"
            )

    @torch.no_grad()
    def _scored(self, texts: pa.Table) -> NDArray[np.float64]:
        id_NF = torch.from_numpy(self.encoder.encode(texts)).long().to(self.recommender.device)
        logit_NT = predict(self.recommender.dense, self.recommender.tables(id_NF))
        # In float64 no two logits become one probability.
        return logit_NT.double().sigmoid().cpu().numpy()


def load_model(model: str, device: str = "cpu") -> ExportedModel:
    """Read a model that `diet-ray train` exported.

    The weights are safetensors; nothing is unpickled. An architecture of your own must be importable here by
    the name under which it was trained.

    Args:
        model: directory or fsspec URL of the exported model.
        device: where it computes, such as "cuda".

    Returns:
        The model: `predict` takes raw rows, `card` says what it is. Below them, `recommender.tables` maps
        rows of the tables, int64 [N, F], to embeddings [N, F, D], and `recommender.dense` maps embeddings
        to logits [N, T]; row 0 of each table stands for ids that the table does not know.

    Raises:
        RunError: where the directory holds no exported model, or a damaged one.
        ConfigError: where its architecture cannot be imported or built.

    Example:
        >>> import diet_ray
        >>> model = diet_ray.load_model("models/best")
        >>> model.predict([{"user": "u1"}, {"user": "never seen"}, {"user": None}]).round(1)
           clicked
        0      0.5
        1      0.5
        2      0.5
        >>> sorted(model.card)
        ['candidate', 'format', 'metrics', 'provenance', 'schema', 'versions']
    """
    return ExportedModel(Folder.at(absolute(model)), device)
