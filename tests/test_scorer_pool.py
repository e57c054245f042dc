"""A block over actors, its parts read by Ray Data: the same to the bit as in one process.

Shape suffixes: N rows, P proxies.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch

from actors.block_source import as_table, from_table, part_tables
from actors.restart import restartable
from actors.scorer import AT_ONCE, Scorer, ScorerPool
from diet_ray import layout
from diet_ray.config import BoundaryConfig
from diet_ray.distillation.addressing import ProxyDirection, proxy_directions
from diet_ray.distillation.baselines import el2n_rows, random_rows
from diet_ray.distillation.boundary import boundary_rows, el2n_histogram
from diet_ray.distillation.influence import CHUNK, alignment
from diet_ray.distillation.memory import fusion_direction
from diet_ray.distillation.memory_update import block_influence
from diet_ray.distillation.pool import HARD, draw_pool, hard_cells, one_cell
from diet_ray.distillation.row_choice import Rows, whole_block
from diet_ray.distillation.scored_rows import BlockScorer, EmbeddedRows, LocalScorer, PartScorer
from diet_ray.errors import DataError
from diet_ray.log.batches import joined
from diet_ray.log.dataset import Part, PreparedLog
from diet_ray.models.examples import Examples, dense_params, loss_of, predict
from diet_ray.runs.run import Run
from diet_ray.runs.state import RunState
from diet_ray.storage import Folder
from tests.own_scorers import DoubleScorer, NotedScorer
from tests.test_influence import per_example_gradients
from tests.tiny_run import TINY

STAGE, PART_ROWS = 2, 300
Actors = list[Any]


@pytest.fixture(scope="module")
def state(ray_here: None, run_dir: str, drift_log: str) -> RunState:
    return RunState(PreparedLog.open(drift_log), Run.read(run_dir).folder, TINY)


def started(worker: type[Scorer], count: int, log: str, run: str, *more: Any) -> Actors:
    config = TINY.model_dump(mode="json")
    options = {"num_cpus": 0}
    return [restartable(worker).options(**options).remote(log, run, config, 1, *more) for _ in range(count)]


@pytest.fixture(scope="module")
def scorers(ray_here: None, run_dir: str, drift_log: str) -> Iterator[Actors]:
    actors = started(Scorer, 3, drift_log, run_dir)
    yield actors
    for actor in actors:
        ray.kill(actor)


def over_actors(actors: Actors, state: RunState, part_rows: int | None = PART_ROWS) -> ScorerPool:
    return ScorerPool(actors, state.log, state.log.block(STAGE), STAGE, part_rows=part_rows)


def in_process(state: RunState, part_rows: int | None = PART_ROWS) -> LocalScorer:
    parts = PartScorer(state.checkpoint(STAGE), state.log, state.log.block(STAGE))
    return LocalScorer(parts, part_rows=part_rows)


def fetched(columns: Any) -> list[Any]:
    return [ray.get(part) if isinstance(part, ray.ObjectRef) else part for part in columns]


def same(ours: Any, theirs: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def directions(state: RunState) -> list[ProxyDirection]:
    memory = state.memory(1)
    assert memory
    return proxy_directions(state.checkpoint(1).dense.members(), memory.examples())


def chosen(scorer: BlockScorer) -> list[Rows]:
    """Every choice that a stage or a baseline makes."""
    histogram = el2n_histogram(scorer)
    choices = (
        boundary_rows(scorer, histogram, 90, BoundaryConfig(), 7),
        boundary_rows(scorer, histogram, 50, BoundaryConfig(span=0, quota="sqrt"), 8),
        el2n_rows(scorer, 70, 0.9),
        random_rows(scorer, 40, 9),
    )
    return [Rows.joined(fetched(choice)) for choice in choices]


@pytest.mark.parametrize(("count", "part_rows"), [(1, PART_ROWS), (3, PART_ROWS), (3, 777), (2, None)])
def test_choices_and_rows_are_those_of_one_process(
    scorers: Actors, state: RunState, count: int, part_rows: int | None
) -> None:
    """With any number of scorers, cut into any parts, and alone in one part."""
    pool, local = over_actors(scorers[:count], state, part_rows), in_process(state, part_rows)
    assert len(pool.spans) == (-(-pool.block.rows // part_rows) if part_rows else 1)
    for ours, theirs in zip(fetched(pool.scores()), local.scores(), strict=True):
        assert same(ours[1:], theirs[1:]) and ours.first == theirs.first
    for ours, theirs in zip(chosen(pool), chosen(local), strict=True):
        assert same(ours, theirs)
    draw = whole_block(pool.block.rows, 60, 3)
    embedded = [
        EmbeddedRows.joined(fetched(scorer.embed(scorer.choose(draw, scorer.spans, one_cell))))
        for scorer in (pool, local)
    ]
    assert same(*embedded) and len(embedded[0].cell_N) == 60


def test_the_cut_into_files_changes_nothing(
    scorers: Actors, state: RunState, run_dir: str, drift_log: str, tmp_path: Path
) -> None:
    """The same rows in other files, of 1 to 900 rows."""
    block, log = state.log.block(STAGE), state.log
    rows = joined(list(log.chunks(block)))
    folder, parts, first = Folder.at(str(tmp_path / "log")), list[Part](), 0
    table = pq.read_table([f"{drift_log}/{part.stamp.path}" for part in block.parts])
    assert table.num_rows == rows.rows == block.rows
    for number, count in enumerate([1, 600, 350, block.rows - 951]):
        stamp = folder.write_parquet(layout.block_part("x", number), table.slice(first, count))
        parts.append(Part(stamp, count, first))
        first += count
    other = PreparedLog.open(drift_log)
    other.folder = folder
    pool = ScorerPool(scorers, other, block._replace(parts=tuple(parts)), STAGE, part_rows=PART_ROWS)
    for ours, theirs in zip(chosen(pool), chosen(in_process(state)), strict=True):
        assert same(ours, theirs)


def test_hard_rows_and_the_pool_are_those_of_one_process(scorers: Actors, state: RunState) -> None:
    made = directions(state)
    pool, local = over_actors(scorers, state), in_process(state)
    influence = block_influence(state.log, TINY, made, torch.device("cpu"))
    for ours, theirs in zip(fetched(pool.align(ray.put(made))), local.align(influence), strict=True):
        assert ours.first == theirs.first and np.array_equal(ours.alignment_NP, theirs.alignment_NP)
    drawn = draw_pool(pool, STAGE, TINY, lambda: ray.put(made))
    expected = draw_pool(local, STAGE, TINY, lambda: influence)
    assert drawn.weights == expected.weights
    ours, theirs = (EmbeddedRows.joined(fetched(each.parts)) for each in (drawn, expected))
    assert same(ours, theirs)
    rest, hard = np.bincount(ours.cell_N).tolist()
    assert rest + hard == TINY.pool_rows and 0.1 * pool.block.rows <= hard <= TINY.pool_rows // 2


def test_influence_through_actors_is_that_of_per_sample_gradients(
    state: RunState, run_dir: str, drift_log: str
) -> None:
    """In float64, to 1e-10, and the lowest tenth of the block by it."""
    memory = state.memory(1)
    assert memory
    proxies = [member.double().eval() for member in state.checkpoint(1).dense.members()]
    examples = Examples(memory.emb_NFD.double(), memory.logit_NT.double().sigmoid())
    made = proxy_directions(proxies, examples)
    actors = started(DoubleScorer, 2, drift_log, run_dir)
    pool = over_actors(actors, state)
    aligned = pool.align(ray.put(made))
    alignment_NP = np.concatenate([part.alignment_NP for part in fetched(aligned)])
    reference = state.checkpoint(STAGE)
    rows = joined(list(state.log.chunks(pool.block)))
    emb_NFD = reference.tables(torch.tensor(rows.id_NF).long()).double()
    targets = Examples(emb_NFD, predict(reference.dense.double(), emb_NFD).sigmoid())
    for proxy, alignment_N in zip(proxies, alignment_NP.T, strict=True):
        summed = per_example_gradients(proxy, examples).sum(0)
        slow_N = torch.cat(
            [per_example_gradients(proxy, piece) @ summed for piece in targets.chunks(500)]
        ).numpy()
        np.testing.assert_allclose(alignment_N, slow_N, rtol=1e-10, atol=1e-10 * np.abs(slow_N).max())
    cells = hard_cells(pool, aligned, proxies=len(proxies), ratio=0.1, seed=0)
    found = np.concatenate(list(pool.gather(aligned, cells))) == HARD
    lowest = np.sort(alignment_NP.astype(np.float32), axis=0)[round(0.1 * len(found)) - 1]
    assert np.array_equal(found, (alignment_NP.astype(np.float32) <= lowest).any(1))
    for actor in actors:
        ray.kill(actor)


def test_old_rows_are_weighed_in_pieces_as_in_one(scorers: Actors, state: RunState) -> None:
    """Eq. 10 by scorers, in pieces of whole chunks."""
    new, old = state.memory(STAGE), state.memory(1)
    assert new and old
    examples = old.take(torch.arange(2 * CHUNK + 50) % old.rows).examples()
    judge = state.checkpoint(STAGE).dense
    along = fusion_direction(loss_of(judge), dense_params(judge), new)
    pieces = [ray.put(piece) for piece in examples.chunks(CHUNK)]
    weights = torch.cat(fetched(over_actors(scorers, state).weigh(ray.put(along), pieces)))
    assert torch.equal(weights, alignment(loss_of(judge), dense_params(judge), examples, along))


def test_a_lost_scorer_costs_its_own_parts_alone(
    state: RunState, run_dir: str, drift_log: str, tmp_path: Path
) -> None:
    actors = started(NotedScorer, 2, drift_log, run_dir, str(tmp_path))
    pool = over_actors(actors, state, 100)

    def kill_one() -> None:
        while len(list(tmp_path.iterdir())) < 4:
            time.sleep(0.01)
        ray.kill(actors[0], no_restart=False)

    killer = threading.Thread(target=kill_one)
    killer.start()
    scores = fetched(pool.scores())
    killer.join()
    for ours, theirs in zip(scores, in_process(state, 100).scores(), strict=True):
        assert same(ours[1:], theirs[1:])
    noted = [int(path.name.split("-")[0]) for path in tmp_path.iterdir()]
    assert sorted(set(noted)) == [span.first for span in pool.spans]
    assert len(noted) <= len(pool.spans) + AT_ONCE
    for actor in actors:
        ray.kill(actor)


def test_a_damaged_file_is_named(scorers: Actors, state: RunState, tmp_path: Path, drift_log: str) -> None:
    block = state.log.block(STAGE)
    log = PreparedLog.open(drift_log)
    log.folder = Folder.at(str(tmp_path))
    with pytest.raises(DataError, match=block.parts[0].stamp.path):
        ScorerPool(scorers, log, block, STAGE, part_rows=PART_ROWS).scores()


def test_ray_data_hands_over_the_parts_in_order_with_their_row_numbers(state: RunState) -> None:
    pool = over_actors([], state)
    rows = joined(list(state.log.chunks(pool.block)))
    tables = [ray.get(ref) for ref in part_tables(state.log, pool.block, pool.spans)]
    for span, table in zip(pool.spans, tables, strict=True):
        encoded, numbers = from_table(table)
        assert numbers.row_N.tolist() == list(range(span.first, span.stop))
        assert same(encoded, rows.take(slice(span.first, span.stop)))
    again = from_table(as_table(rows, Rows(np.arange(rows.rows), np.zeros(rows.rows, int))))
    assert same(again[0], rows)
