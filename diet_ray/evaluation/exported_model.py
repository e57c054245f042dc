"""An exported model as its users read it."""

from typing import Any, NamedTuple

from diet_ray.evaluation.export import read_model
from diet_ray.storage import Folder, absolute
from diet_ray.training.recommender import Recommender


class ExportedModel(NamedTuple):
    """A trained candidate and its description."""

    recommender: Recommender
    """Embedding tables, one per field, and the dense model above them; on the CPU."""
    card: dict[str, Any]
    """Content of card.json: candidate, schema, metrics and provenance."""


def load_model(model: str) -> ExportedModel:
    """Read a model that `diet-ray train` exported.

    The weights are safetensors; nothing is unpickled. An architecture of your own must be importable here by
    the name under which it was trained.

    Args:
        model: directory or fsspec URL of the exported model.

    Returns:
        The recommender and its card. `recommender.tables` maps rows of the tables, int64 [N, F], to
        embeddings [N, F, D], and `recommender.dense` maps embeddings to logits [N, T]. Row 0 of each table
        stands for ids that the table does not know.

    Raises:
        RunError: where the directory holds no exported model, or a damaged one.
        ConfigError: where its architecture cannot be imported or built.

    Example:
        >>> import diet_ray, torch
        >>> model = diet_ray.load_model("models/best")
        >>> sorted(model.card)
        ['candidate', 'metrics', 'provenance', 'schema']
        >>> fields, tasks = len(model.card["schema"]["fields"]), len(model.card["schema"]["tasks"])
        >>> unknown = torch.zeros(2, fields, dtype=torch.int64)
        >>> with torch.no_grad():
        ...     logits = model.recommender.dense.eval()(model.recommender.tables(unknown))
        >>> logits.shape == (2, tasks)
        True
    """
    return ExportedModel(*read_model(Folder.at(absolute(model))))
