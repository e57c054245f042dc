"""A recommender's whole state as safetensors: tables, dense model, buffers and both optimisers; no pickle."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from diet_ray.errors import RunError
from diet_ray.training.recommender import Recommender
from diet_ray.training.serialization import to_safetensors

MOMENTS = ("exp_avg", "exp_avg_sq")


def to_bytes(learner: Recommender) -> bytes:
    """Serialise everything the next block's training starts from.

    A frozen or unused parameter has no moments, and a tied one has them once, under its first name.
    """
    state = {f"dense.{name}": tensor for name, tensor in learner.dense.state_dict().items()}
    for name, weight, optimiser in _trained(learner):
        state[name] = weight.detach()
        moments = optimiser.state.get(weight, {})
        for moment in MOMENTS:
            if moment in moments:
                state[f"{name}.{moment}"] = moments[moment]
        if "step" in moments:
            state[f"{name}.step"] = torch.as_tensor(moments["step"])
    return to_safetensors(state)


def restore(learner: Recommender, content: bytes) -> None:
    """Put a saved state into a freshly built recommender; its tables take the saved sizes.

    Raises RunError where the content is damaged or of another architecture.
    """
    saved = _loaded(content)
    try:
        learner.dense.load_state_dict(_below(saved, "dense.", learner.dense.state_dict()))
        for name, weight, optimiser in _trained(learner):
            if name.startswith("tables."):
                weight.data = saved[name].to(learner.device)
            _restore_moments(saved, name, weight, optimiser)
    except (KeyError, RuntimeError) as differs:
        raise RunError(f"checkpoint is of another architecture: {differs}") from differs


def restore_weights(learner: Recommender, content: bytes) -> None:
    """Put saved tables and dense model into a learner that only scores, and so needs no moments."""
    saved = _loaded(content)
    _restore_table_weights(learner, saved)
    try:
        learner.dense.load_state_dict(_below(saved, "dense.", learner.dense.state_dict()))
    except (KeyError, RuntimeError) as differs:
        raise RunError(f"checkpoint is of another architecture: {differs}") from differs


def restore_tables(learner: Recommender, content: bytes) -> None:
    """Give a candidate the reference's tables and their optimiser's moments, as far as it was trained.

    Without the moments the first steps on the next block move every row by the whole learning rate, which a
    model trained on all history does not suffer (docs/tried.md).
    Raises RunError where the content is damaged or its tables do not fit.
    """
    saved = _loaded(content)
    _restore_table_weights(learner, saved)
    for field, weight in enumerate(learner.tables.weights()):
        _restore_moments(saved, f"tables.{field}", weight, learner.table_optimiser)


def _loaded(content: bytes) -> dict[str, Tensor]:
    try:
        return load(content)
    except SafetensorError as broken:
        raise RunError(f"checkpoint is damaged: {broken}") from broken


def _restore_table_weights(learner: Recommender, saved: dict[str, Tensor]) -> None:
    for field, weight in enumerate(learner.tables.weights()):
        table = saved.get(f"tables.{field}")
        if table is None:
            raise RunError(f"checkpoint is of another log: it has no table of field {field}")
        if table.shape[1] != weight.shape[1]:
            raise RunError(f"checkpoint has embeddings of dim {table.shape[1]}, not {weight.shape[1]}")
        weight.data = table.to(learner.device)


def _restore_moments(
    saved: dict[str, Tensor], name: str, weight: nn.Parameter, optimiser: torch.optim.Optimizer
) -> None:
    if f"{name}.step" not in saved:
        return
    step = saved[f"{name}.step"]
    # SparseAdam counts steps in an int, Adam in a tensor.
    count = int(step) if isinstance(optimiser, torch.optim.SparseAdam) else step
    moments = {moment: saved[f"{name}.{moment}"].to(weight.device) for moment in MOMENTS}
    optimiser.state[weight] = {"step": count, **moments}


def _trained(learner: Recommender) -> list[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
    """Every parameter with its name in the file and the optimiser that moves it."""
    tables = [(f"tables.{f}", w, learner.table_optimiser) for f, w in enumerate(learner.tables.weights())]
    dense = [(f"dense.{n}", p, learner.dense_optimiser) for n, p in learner.dense.named_parameters()]
    return [*tables, *dense]


def _below(saved: dict[str, Tensor], prefix: str, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: saved[prefix + name] for name in wanted}
