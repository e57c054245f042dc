"""What a stage makes of its rows and checkpoints: realignment, fusion, proxies, and what it records.

Each part is compared with a version of its own in this file. A small run of two stages provides checkpoints
that differ, so that taking the wrong one shows.

Shape suffixes: N rows, F fields, D embedding dim, T tasks.
"""

from collections.abc import Iterator
from itertools import chain, count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import diet_ray
from diet_ray.config import RunConfig
from diet_ray.distillation import memory_update as update_module
from diet_ray.distillation.baselines import random_rows
from diet_ray.distillation.boundary import boundary_rows, el2n_histogram
from diet_ray.distillation.distiller import Progress, Proxy, optimise_memory
from diet_ray.distillation.memory import Memory
from diet_ray.distillation.memory_update import (
    block_influence,
    fused_memory,
    memory_rows,
    optimised_memory,
    realigned_memory,
)
from diet_ray.distillation.pool import Pool, draw_pool
from diet_ray.distillation.scored_rows import Columns, EmbeddedRows, LocalScorer, PartScorer
from diet_ray.log.batches import joined
from diet_ray.log.dataset import Block, PreparedLog
from diet_ray.models.examples import Examples, dense_params, loss_of, predict
from diet_ray.models.registry import build_model
from diet_ray.runs.metrics import MeanScores, MemoryMetrics
from diet_ray.runs.stage import Budget, ProbeScores, TrainedBlock, missing_groups, run_stage
from diet_ray.runs.stage_memory import DistilledMemory, StageMemory
from diet_ray.runs.state import RunState
from diet_ray.seeding import derived_seed, numpy_generator, torch_generator
from diet_ray.storage import FileStamp, Folder
from diet_ray.training.recommender import Recommender
from tests.distinct_blocks import SMALL, write_distinct_blocks
from tests.test_influence import per_example_gradients
from tests.tiny_run import stage_metrics


class Prepared(NamedTuple):
    """A run of two stages and what its second stage started from."""

    log: PreparedLog
    state: RunState
    previous: Recommender
    reference: Recommender
    old: Memory
    boundary: Memory
    pool: EmbeddedRows


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("small")
    log = write_distinct_blocks(folder / "log")
    done = diet_ray.distill(str(folder / "log"), str(folder / "run"), SMALL, probe_seeds=0)
    state = RunState(log, done.folder, SMALL)
    scorer = LocalScorer(PartScorer(state.checkpoint(2), log, log.block(2)))
    old = state.memory(1)
    assert old
    return Prepared(
        log=log,
        state=state,
        previous=state.checkpoint(1),
        reference=state.checkpoint(2),
        old=old,
        boundary=selected(scorer, 40, SMALL).as_memory(2),
        pool=EmbeddedRows.joined(scorer.embed(random_rows(scorer, 70, 0))),
    )


def selected(scorer: LocalScorer, rows: int, config: RunConfig) -> EmbeddedRows:
    """The boundary rows of the second stage."""
    seed = derived_seed(config.seed, "boundary", 2)
    chosen = boundary_rows(scorer, el2n_histogram(scorer), rows, config.method.boundary, seed)
    return EmbeddedRows.joined(scorer.embed(chosen))


def changed(section: str | None = None, **values: Any) -> RunConfig:
    """SMALL with other values in a section of its method, or at the top."""
    config = SMALL.model_dump()
    (config["method"][section] if section else config).update(values)
    return RunConfig.model_validate(config)


def fused_only(**boundary: Any) -> RunConfig:
    config = changed("boundary", **boundary).model_dump()
    config["method"]["outer"]["iterations"] = 0
    return RunConfig.model_validate(config)


def memory_of(
    stage: int,
    prepared: Prepared,
    config: RunConfig,
    rows: int,
    *,
    old: Memory | None,
    reference: Recommender,
    previous: Recommender | None,
) -> Memory:
    """Realigned, fused and optimised."""
    log = prepared.log
    old = realigned_memory(old, stage, log, config, previous=previous, reference=reference)
    fused = fused_memory(prepared.boundary, old, reference, rows=rows)
    real = prepared.pool.targets("teacher")
    return optimised_memory(stage, log, config, fused, real, None, previous)


def second(prepared: Prepared, config: RunConfig, rows: int = 60, **given: Any) -> Memory:
    parts = {"old": prepared.old, "reference": prepared.reference, "previous": prepared.previous, **given}
    return memory_of(2, prepared, config, rows, **parts)


def best_rows(judge: Recommender, new: Memory, old: Memory, keep: int) -> tuple[list[int], torch.Tensor]:
    """Numbers of the old rows to keep, ascending, and the weight of all (eqs. 10-11), row by row."""
    bits_NT = torch.stack([new.group_N % 2, new.group_N // 2 % 2], 1).float()
    new_grads = per_example_gradients(judge.dense, Examples(new.emb_NFD, bits_NT))
    soft_NT = 1 / (1 + (-old.logit_NT).exp())
    weight_N = per_example_gradients(judge.dense, Examples(old.emb_NFD, soft_NT)) @ new_grads.sum(0)
    order = sorted(range(old.rows), key=lambda row: -weight_N[row].item())
    return sorted(order[:keep]), weight_N


def test_fusion_is_judged_by_the_checkpoint_of_the_stage(prepared: Prepared) -> None:
    fused = second(prepared, fused_only(realign=False))
    keep = 60 - prepared.boundary.rows
    rows, weight_N = best_rows(prepared.reference, prepared.boundary, prepared.old, keep)
    assert rows != best_rows(prepared.previous, prepared.boundary, prepared.old, keep)[0]
    assert fused.rows == 60
    for part in ("emb_NFD", "logit_NT", "stage_N", "group_N"):
        new, old = getattr(prepared.boundary, part), getattr(prepared.old, part)
        assert torch.equal(getattr(fused, part), torch.cat([new, old[rows]]))
    torch.testing.assert_close(fused.influence_N[40:], weight_N[rows], rtol=1e-3, atol=1e-6)
    assert fused.influence_N[:40].isnan().all()


def slow_realigned(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Old rows moved by a ridge regression per field, and their logits by the teacher's change."""
    every = torch.tensor(joined(list(prepared.log.chunks(prepared.log.block(1)))).id_NF).long()
    before, after = (r.tables(every).detach().numpy() for r in (prepared.previous, prepared.reference))
    moved = []
    for field in range(before.shape[1]):
        x, move = before[:, field].astype(np.float64), (after - before)[:, field].astype(np.float64)
        dim, ridge = x.shape[1], 1e-3 * np.square(x).sum(0).mean()
        inputs = np.vstack([np.c_[x, np.ones(len(x))], np.sqrt(ridge) * np.eye(dim, dim + 1)])
        change = np.linalg.lstsq(inputs, np.vstack([move, np.zeros((dim, dim))]), rcond=None)[0]
        old = prepared.old.emb_NFD[:, field].numpy().astype(np.float64)
        moved.append(old + np.c_[old, np.ones(len(old))] @ change)
    emb_NFD = np.stack(moved, 1)
    shift = predict(prepared.reference.dense, torch.tensor(emb_NFD).float())
    shift -= predict(prepared.previous.dense, prepared.old.emb_NFD)
    return emb_NFD, (prepared.old.logit_NT + shift).numpy()


def test_old_rows_are_realigned_into_the_space_of_the_stage(prepared: Prepared) -> None:
    emb_NFD, logit_NT = slow_realigned(prepared)
    assert np.abs(emb_NFD - prepared.old.emb_NFD.numpy()).max() > 1e-3
    everything = prepared.boundary.rows + prepared.old.rows
    kept = second(prepared, fused_only(), everything)
    np.testing.assert_allclose(kept.emb_NFD[40:], emb_NFD, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(kept.logit_NT[40:], logit_NT, rtol=1e-3, atol=1e-4)
    assert torch.equal(kept.emb_NFD[:40], prepared.boundary.emb_NFD)
    as_before = second(prepared, fused_only(realign=False), everything)
    assert torch.equal(as_before.emb_NFD[40:], prepared.old.emb_NFD)
    assert torch.equal(as_before.logit_NT[40:], prepared.old.logit_NT)


def test_realigned_rows_are_weighed_where_they_lie_now(prepared: Prepared) -> None:
    emb_NFD, logit_NT = slow_realigned(prepared)
    moved = prepared.old._replace(emb_NFD=torch.tensor(emb_NFD).float(), logit_NT=torch.tensor(logit_NT))
    rows, weight_N = best_rows(prepared.reference, prepared.boundary, moved, 20)
    fused = second(prepared, fused_only())
    np.testing.assert_allclose(fused.emb_NFD[40:], moved.emb_NFD[rows], rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(fused.influence_N[40:], weight_N[rows], rtol=0.02, atol=1e-4)


def test_a_large_block_is_realigned_by_a_sample_of_its_rows(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module, "REALIGNED_BY_ROWS", 50)
    seen: list[torch.Tensor] = []
    fit = update_module.affine_maps

    def noted(*pair: torch.Tensor) -> torch.Tensor:
        seen.extend(pair)
        return fit(*pair)

    monkeypatch.setattr(update_module, "affine_maps", noted)
    second(prepared, fused_only())
    draw = numpy_generator(SMALL.seed, "carry", 2)
    row_N = np.sort(draw.choice(prepared.log.block(1).rows, 50, replace=False))
    id_NF = torch.tensor(joined(list(prepared.log.chunks(prepared.log.block(1)))).id_NF[row_N]).long()
    for recommender, emb_NFD in zip((prepared.previous, prepared.reference), seen, strict=True):
        assert torch.equal(recommender.tables(id_NF), emb_NFD)


def test_without_fusion_or_without_a_memory_the_boundary_rows_alone_are_left(prepared: Prepared) -> None:
    without_memory: dict[str, Any] = {"old": None}
    for config, given in ((fused_only(fusion=False), {}), (fused_only(), without_memory)):
        stored = second(prepared, config, **given)
        assert torch.equal(stored.emb_NFD, prepared.boundary.emb_NFD)
        assert torch.equal(stored.logit_NT, prepared.boundary.logit_NT)


def optimised(prepared: Prepared, proxies: Iterator[Proxy], start: Memory, stage: int) -> Memory:
    draw = torch_generator(SMALL.seed, "distil", stage)
    config = changed("outer", address_every=1).method
    return optimise_memory(proxies, start, prepared.pool.targets("teacher"), config, draw)


def test_after_the_first_stage_the_members_of_the_checkpoint_before_are_the_proxies(
    prepared: Prepared,
) -> None:
    """One after another, from the start again after the last."""
    members = prepared.previous.dense.members()
    assert len(members) == 2
    proxies = cycle([Proxy(loss_of(member), dense_params(member)) for member in members])
    expected = optimised(prepared, proxies, second(prepared, fused_only()), 2)
    stored = second(prepared, changed("outer", address_every=1))
    assert torch.equal(stored.emb_NFD, expected.emb_NFD)
    assert torch.equal(stored.logit_NT, expected.logit_NT)


def test_in_the_first_stage_every_proxy_has_fresh_weights(prepared: Prepared) -> None:
    def fresh(number: int) -> list[Proxy]:
        models = [
            build_model(
                member, fields=3, dim=4, tasks=2, seed=derived_seed(SMALL.seed, "model", "proxy", number, n)
            )
            for n, member in enumerate(SMALL.reference.members())
        ]
        return [Proxy(loss_of(model), dense_params(model)) for model in models]

    expected = optimised(prepared, chain.from_iterable(map(fresh, count())), prepared.boundary, 1)
    config = changed("outer", address_every=1)
    stored = memory_of(1, prepared, config, 40, old=None, reference=prepared.reference, previous=None)
    assert torch.equal(stored.emb_NFD, expected.emb_NFD)
    assert torch.equal(stored.logit_NT, expected.logit_NT)


def test_the_reference_starts_from_the_seed_of_the_run(prepared: Prepared) -> None:
    dense = prepared.state.new_reference().dense
    for number, (own, member) in enumerate(zip(dense.members(), SMALL.reference.members(), strict=True)):
        seed = derived_seed(SMALL.seed, "model", "reference", number)
        expected = build_model(member, fields=3, dim=4, tasks=2, seed=seed)
        for ours, theirs in zip(own.parameters(), expected.parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("ratio", "rows", "expected"), [(0.2, 300, 60), (0.015, 101, 2), (0.015, 99, 1)])
def test_the_budget_is_the_ratio_of_history(ratio: float, rows: int, expected: int) -> None:
    assert memory_rows(changed(ratio=ratio), rows) == expected


class RecordedWorkers:
    """StageWorkers that keep what they are given; directions are those of the run."""

    def __init__(self, prepared: Prepared, scorer: LocalScorer) -> None:
        self._prepared, self._scorer, self.calls = prepared, scorer, list[Any]()

    def scorer(self, stage: int, block: Block) -> LocalScorer:
        self.calls.append(("score", stage, block.name))
        return self._scorer

    def directions(self, stage: int, rows: int, boundary: Columns) -> Any:
        self.calls.append(("directions", stage, rows))
        self.directed_by = boundary
        made = StageMemory(self._prepared.state).directions(stage, rows, boundary)
        return block_influence(self._prepared.log, SMALL, made, torch.device("cpu"))

    def distill(self, stage: int, rows: int, boundary: Columns, pool: Pool) -> DistilledMemory:
        self.calls.append(("distill", stage, rows))
        self.boundary, self.pool = EmbeddedRows.joined(boundary), pool
        metrics = MemoryMetrics(rows=rows, rows_by_stage={stage: rows}, rows_by_label_group={0: rows})
        return DistilledMemory(FileStamp("memory", 1, "m"), metrics)

    def probe(self, stage: int) -> ProbeScores | None:
        self.calls.append(("probe", stage))
        return ProbeScores(MeanScores(auc=0.6, logloss=0.5), MeanScores(auc=0.58, logloss=0.51))


def test_a_stage_selects_from_its_block_and_reports_what_it_saw(prepared: Prepared) -> None:
    block = prepared.log.block(2)
    scorer = LocalScorer(PartScorer(prepared.reference, prepared.log, block))
    workers = RecordedWorkers(prepared, scorer)
    progressive = MeanScores(auc=0.7, logloss=0.4)
    trained = TrainedBlock(block, (FileStamp("reference", 2, "r"),), 0.25, 1.5, progressive)
    finished = run_stage(2, trained, Budget(rows=60, new_rows=33), workers, SMALL, ("like",))
    assert workers.calls == [
        ("score", 2, "0002"),
        ("probe", 2),
        ("directions", 2, 60),
        ("distill", 2, 60),
    ]
    rows = selected(scorer, 33, SMALL)
    assert len(rows.emb_NFD) == 33
    for ours, directed, theirs in zip(workers.boundary, workers.directed_by[0], rows, strict=True):
        assert np.array_equal(ours, theirs) and np.array_equal(directed, theirs)
    pool = draw_pool(scorer, 2, SMALL, lambda: workers.directions(2, 60, [rows]))
    assert pool.weights == workers.pool.weights and len(pool.weights) == 2
    for ours, theirs in zip(*map(EmbeddedRows.joined, (workers.pool.parts, pool.parts)), strict=True):
        assert len(ours) == 100 and np.array_equal(ours, theirs)
    every = EmbeddedRows.joined(scorer.embed(random_rows(scorer, 140, 0)))
    el2n_N = np.linalg.norm(1 / (1 + np.exp(-every.logit_NT)) - every.label_NT, axis=1)
    metrics = finished.metrics
    assert finished.files == (*trained.files, FileStamp("memory", 1, "m"))
    assert metrics.el2n.mean == pytest.approx(el2n_N.mean(), rel=1e-5)
    assert metrics.el2n.deviation == pytest.approx(el2n_N.std(), rel=1e-4)
    assert (metrics.block_rows, metrics.label_groups) == (140, block.label_groups)
    assert metrics.missing_label_groups == ("like",)
    assert (metrics.training_loss, metrics.progressive) == (0.25, progressive)
    assert metrics.probe == MeanScores(auc=0.6, logloss=0.5)
    assert metrics.probe_newest == MeanScores(auc=0.58, logloss=0.51)
    assert metrics.memory.rows == 60 and metrics.stream is None
    seconds = metrics.seconds
    assert seconds.train == 1.5 and seconds.probe is not None
    assert min(seconds.score, seconds.distill, seconds.probe) >= 0


def test_a_stage_without_a_probe_reports_none(prepared: Prepared) -> None:
    block = prepared.log.block(2)
    scorer = LocalScorer(PartScorer(prepared.reference, prepared.log, block))
    workers = RecordedWorkers(prepared, scorer)
    workers.probe = lambda stage: None  # type: ignore[method-assign]
    trained = TrainedBlock(block, (FileStamp("reference", 2, "r"),), 0.25, 1.5)
    metrics = run_stage(2, trained, Budget(60, 33), workers, SMALL).metrics
    assert metrics.probe is None and metrics.probe_newest is None and metrics.seconds.probe is None
    assert metrics.progressive is None and metrics.missing_label_groups == ()


def test_targets_have_the_labels_of_the_teacher_or_of_the_log(prepared: Prepared) -> None:
    teacher, real = prepared.pool.targets("teacher"), prepared.pool.targets("real")
    np.testing.assert_allclose(teacher.label_NT, 1 / (1 + np.exp(-prepared.pool.logit_NT)), rtol=1e-6)
    assert np.array_equal(real.label_NT, prepared.pool.label_NT)
    for targets in (teacher, real):
        assert np.array_equal(targets.emb_NFD, prepared.pool.emb_NFD)


@pytest.mark.parametrize("labels", ["teacher", "real"])
def test_a_stage_distills_the_rows_before_it_under_its_checkpoints(
    prepared: Prepared, tmp_path: Path, labels: Any
) -> None:
    config, seen = changed("outer", target_labels=labels), list[Progress]()
    run = Folder.at(str(tmp_path))
    for path in ("reference/0001", "reference/0002"):
        for name in prepared.state.folder.fs.ls(prepared.state.folder / path, detail=False):
            name = f"{path}/{name.rsplit('/', 1)[-1]}"
            run.write(name, prepared.state.folder.read(name))
    run.write("memory/0001/memory.parquet", prepared.state.folder.read("memory/0001/memory.parquet"))
    state = RunState(prepared.log, run, config)
    scorer = LocalScorer(PartScorer(prepared.reference, prepared.log, prepared.log.block(2)))
    boundary, stage_memory = selected(scorer, 40, config), StageMemory(state)
    pool = Pool([prepared.pool], (1.0,))
    made = stage_memory.distill(2, 60, [boundary], pool, report=seen.append)
    old = realigned_memory(
        prepared.old,
        2,
        prepared.log,
        config,
        previous=prepared.previous,
        reference=prepared.reference,
    )
    fused = fused_memory(prepared.boundary, old, prepared.reference, rows=60)
    real = prepared.pool.targets(labels)
    expected = optimised_memory(2, prepared.log, config, fused, real, None, prepared.previous)
    stored = state.memory(2)
    assert stored
    for ours, theirs in zip(stored, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert made.stamp.path == "memory/0002/memory.parquet" and made.stamp.verified(run)
    assert [progress.iteration for progress in seen] == [0, 1, 2, 3]
    assert made.metrics.outer_loss == tuple(progress.outer_loss for progress in seen)
    assert (made.metrics.rows, made.metrics.rows_before) == (60, prepared.old.rows)
    assert made.metrics.rows_by_stage == {1: 20, 2: 40}
    by_group = {group: int((stored.group_N == group).sum()) for group in stored.group_N.unique().tolist()}
    assert made.metrics.rows_by_label_group == by_group
    assert made.metrics.peak_bytes and made.metrics.peak_bytes > 1e6
    metadata = pq.read_schema(tmp_path / made.stamp.path).metadata[b"diet_ray"].decode()
    assert '"reference": "reference/0002/checkpoint.json"' in metadata


def test_label_groups_that_earlier_blocks_had_are_missed_by_name(prepared: Prepared) -> None:
    block = prepared.log.block(2)._replace(label_groups={0: 5, 3: 2})
    before = stage_metrics().model_copy(update={"label_groups": {0: 9, 1: 1}})
    earlier = stage_metrics().model_copy(update={"label_groups": {2: 1, 3: 1}})
    records: Any = [type("Record", (), {"metrics": metrics}) for metrics in (before, earlier)]
    assert missing_groups(records, block, ("click", "like")) == ("click", "like")
    assert missing_groups(records, block._replace(label_groups={1: 5, 2: 3}), ("click", "like")) == (
        "none",
        "click+like",
    )
    assert missing_groups([], block, ("click", "like")) == ()
