"""Each setting of a run changes what it should and only that.

A small run of two stages is distilled with every setting changed in turn. What came out is compared part by
part with the run of the usual settings: checkpoints of the reference, the pool of real rows, the rows that
are selected, the targets, the memory of the first stage, what the second keeps of it, and its own memory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import diet_ray
from diet_ray.config import BoundaryConfig, RunConfig
from diet_ray.distillation import distiller as distiller_module
from diet_ray.distillation import memory_update as update_module
from diet_ray.distillation.memory import fuse
from diet_ray.distillation.row_choice import Draw
from diet_ray.distillation.scored_rows import LocalScorer
from diet_ray.runs import stage as run_stage_module
from diet_ray.runs.run import Run
from diet_ray.seeding import derived_seed
from tests.distinct_blocks import HEAD, SMALL, write_distinct_blocks

CHECKPOINT, POOL, SELECTED, TARGETS = "checkpoint", "pool", "selected", "targets"
FIRST, KEPT, MEMORY = "first memory", "kept", "second memory"
EVERYTHING = {CHECKPOINT, POOL, SELECTED, TARGETS, FIRST, KEPT, MEMORY}
# Another reference embeds and scores the rows otherwise; the draw of the pool does not depend on it.
OF_REFERENCE = EVERYTHING - {POOL}
OF_SELECTION = {SELECTED, FIRST, KEPT, MEMORY}
# The rows kept by the second stage are those of the first memory, whatever made that.
OF_OPTIMISATION = {FIRST, KEPT, MEMORY}
OF_FUSION = {SELECTED, KEPT, MEMORY}

# Path of a key -> another value, and what it changes.
CHOICES: dict[str, tuple[Any, set[str]]] = {
    "seed": (1, EVERYTHING),
    "ratio": (0.3, OF_SELECTION),
    "dim": (5, OF_REFERENCE),
    "pool_rows": (50, {POOL, TARGETS, *OF_OPTIMISATION}),
    "reference.name": ("dcnv2", OF_REFERENCE),
    "reference.options": ({"hidden": (5,)}, OF_REFERENCE),
    "reference.head": (HEAD.model_copy(update={"experts": 3}).model_dump(), OF_REFERENCE),
    "reference.ensemble": ((), OF_REFERENCE),
    "training.batch_size": (16, OF_REFERENCE),
    "training.learning_rate": (0.01, OF_REFERENCE),
    "training.clip_norm": (0.01, OF_REFERENCE),
    "training.shuffle_rows": (50, OF_REFERENCE),
    "method.boundary.quantile": (0.2, OF_SELECTION),
    "method.boundary.span": (0.1, OF_SELECTION),
    "method.boundary.quota": ("equal", OF_SELECTION),
    "method.boundary.new_share": (0.5, OF_FUSION),
    "method.boundary.fusion": (False, OF_FUSION),
    "method.boundary.realign": (False, {KEPT, MEMORY}),
    "method.outer.target_labels": ("real", {TARGETS, *OF_OPTIMISATION}),
    "method.inner.optimiser": ("sgd", OF_OPTIMISATION),
    "method.inner.learning_rate": (0.02, OF_OPTIMISATION),
    "method.inner.batch_size": (5, OF_OPTIMISATION),
    "method.inner.horizon": (6, OF_OPTIMISATION),
    "method.inner.window": (3, OF_OPTIMISATION),
    "method.outer.iterations": (2, OF_OPTIMISATION),
    "method.outer.embedding_rate": (0.02, OF_OPTIMISATION),
    "method.outer.logit_rate": (0.02, OF_OPTIMISATION),
    "method.outer.clip": (0.05, OF_OPTIMISATION),
    "method.outer.real_rows": (30, OF_OPTIMISATION),
    "method.outer.memory_rows": (15, OF_OPTIMISATION),
    "method.outer.hard_ratio": (0.3, OF_OPTIMISATION),
    "method.outer.hard_share": (0.5, {POOL, TARGETS, *OF_OPTIMISATION}),
    "method.outer.active_rows": (5, OF_OPTIMISATION),
    "method.outer.address_every": (1, OF_OPTIMISATION),
    "method.outer.target_selection": (False, OF_OPTIMISATION),
    "method.outer.memory_selection": (False, OF_OPTIMISATION),
}


def with_value(config: RunConfig, path: str, value: Any) -> RunConfig:
    settings = config.model_dump()
    *parents, key = path.split(".")
    section = settings
    for parent in parents:
        section = section[parent]
    assert section[key] != value, f"{path} is {value} already"
    section[key] = value
    return RunConfig.model_validate(settings)


def usual() -> RunConfig:
    """An even pool: one with hard rows depends on the memory, hence on nearly everything."""
    config = with_value(SMALL, "method.boundary.span", 0.5)
    config = with_value(config, "method.outer.hard_share", 0.0)
    return with_value(config, "method.boundary.quantile", 0.8)


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Paths of all settings; a model's own options and head count as one."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if nested and name != "head":
            paths += keys(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            paths.append(f"{prefix}{name}")
    return paths


def test_every_setting_of_a_run_is_in_the_table() -> None:
    assert sorted(CHOICES) == sorted(keys(RunConfig))


Parts = dict[str, list[Any]]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("choices")
    write_distinct_blocks(folder)
    return str(folder)


def plain(parts: Any) -> list[Any]:
    return [np.asarray(part).tolist() for part in parts]


def distilled(log: str, run: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Distill, and note on the way what each part of the two stages was."""
    seen: Parts = {part: [] for part in EVERYTHING}

    def noted(module: Any, name: str, part: str, values: Callable[..., Any]) -> None:
        original = getattr(module, name)

        def spy(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            seen[part].append(values(result, *args, **kwargs))
            return result

        monkeypatch.setattr(module, name, spy)

    noted(run_stage_module, "boundary_rows", SELECTED, lambda chosen, *_: plain(chosen[0]))

    def chosen(self: LocalScorer, draw: Draw, *rest: Any) -> Any:
        result = choose(self, draw, *rest)
        if draw.seed == derived_seed(config.seed, "pool", len(seen[POOL]) + 1):
            seen[POOL].append(plain(result[0]))
        return result

    choose = LocalScorer.choose
    monkeypatch.setattr(LocalScorer, "choose", chosen)

    def fused(*args: Any, new: Any, old: Any, keep: int, weight_N: Any) -> Any:
        result = fuse(*args, new=new, old=old, keep=keep, weight_N=weight_N)
        seen[KEPT].append(plain(result.take(slice(new.rows, None))))  # type: ignore[arg-type]
        return result

    monkeypatch.setattr(update_module, "fuse", fused)
    optimise = distiller_module.optimise_memory

    def optimised(proxies: Any, memory: Any, real: Any, *rest: Any) -> Any:
        seen[TARGETS].append(plain([*real, *([] if rest[-1] is None else [rest[-1]])]))
        return optimise(proxies, memory, real, *rest)

    monkeypatch.setattr(update_module, "optimise_memory", optimised)
    done = diet_ray.distill(log, str(run), config, probe_seeds=0)
    seen[CHECKPOINT] = [record.checkpoint_stamp().sha256 for record in done.records]
    seen[FIRST], seen[MEMORY] = ([record.memory_stamp().sha256] for record in done.records)
    return seen


@pytest.fixture(scope="module")
def as_usual(log: str, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return distilled(log, tmp_path_factory.mktemp("usual") / "run", usual(), monkeypatch)


def test_the_usual_settings_leave_every_part(as_usual: Parts) -> None:
    of_both = dict.fromkeys((CHECKPOINT, POOL, SELECTED, TARGETS), 2)
    of_one = dict.fromkeys((FIRST, KEPT, MEMORY), 1)
    assert {part: len(values) for part, values in as_usual.items()} == of_both | of_one


@pytest.mark.parametrize("path", CHOICES)
def test_a_setting_changes_its_parts_and_no_other(
    log: str, as_usual: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    value, changes = CHOICES[path]
    parts = distilled(log, tmp_path / "run", with_value(usual(), path, value), monkeypatch)
    differing = {part for part in EVERYTHING if str(parts[part]) != str(as_usual[part])}
    assert differing == changes


def test_without_fusion_nothing_is_kept(log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_value(usual(), "method.boundary.fusion", False)
    assert distilled(log, tmp_path / "run", config, monkeypatch)[KEPT] == []
    sizes = [record.metrics.memory.rows_by_stage for record in Run.read(str(tmp_path / "run")).records]
    assert sizes == [{1: 32}, {2: 60}]


@pytest.mark.parametrize(
    ("budget", "old_rows", "share", "expected"),
    [(60, 32, 0.8, 48), (60, 32, 0.5, 30), (60, 20, 0.5, 40), (60, 0, 0.1, 60), (7, 7, 0.5, 4)],
)
def test_the_share_of_new_rows(budget: int, old_rows: int, share: float, expected: int) -> None:
    assert BoundaryConfig(new_share=share).new_rows(budget, old_rows) == expected
