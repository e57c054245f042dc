"""A reference that 2 or 4 processes learn together is that of one process with the same batches.

Sums are taken in another order, so states agree to rounding: to TOLERANCE in float64, where steps are 0.02.
On the same number of processes they agree bit for bit.
"""

import os
import shutil
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from diet_ray.distillation.unroll import MetaGradient, averaged
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.storage import FileStamp
from diet_ray.training.checkpoints.restoring import restore
from diet_ray.training.parallel.batch_norm import SharedBatchNorm
from diet_ray.training.parallel.peers import ALONE, Peers
from diet_ray.training.recommender import Recommender
from tests.distinct_blocks import write_distinct_blocks
from tests.parallel_reference import SIZES, own_meta_gradient, trainer
from tests.stored_checkpoint import state_of

TOLERANCE = 1e-10


@pytest.fixture(scope="module", autouse=True)
def exact() -> Iterator[None]:
    """All in float64: Adam turns the rounding of a gradient near zero into whole steps."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and groups of SIZES made of two blocks."""
    folder = tmp_path_factory.mktemp("parallel")
    write_distinct_blocks(folder / "log")
    alone = trainer(folder / "log", folder / "of-1")
    losses = [alone.train(1)[1], alone.progressive(2).auc, alone.train(2)[1]]
    (folder / "losses-1").write_text(repr(losses))
    for size in SIZES:
        shutil.copytree(folder / "of-1/reference/0001", folder / f"of-{size}-after-1/reference/0001")
    words = [sys.executable, "-m", "tests.parallel_reference", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(words, cwd=Path(__file__).parents[1], env=environment, timeout=900, check=True)
    return folder


def restored(folder: Path, run: str, stage: int) -> Recommender:
    own = trainer(folder / "log", folder / run)
    learner = own.state.new_reference()
    restore(learner, own.state.stored_checkpoint(stage))
    return learner


def assert_close(ours: Recommender, theirs: Recommender) -> None:
    one, other = state_of(ours), state_of(theirs)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=TOLERANCE, msg=name)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_processes_together_learn_what_one_learns(folder: Path, size: int, stage: int) -> None:
    ours, theirs = restored(folder, "of-1", stage), restored(folder, f"of-{size}", stage)
    assert_close(ours, theirs)
    before = restored(folder, "of-1", 1)
    if stage == 2:
        moved = (ours.tables.weights()[0][:20] - before.tables.weights()[0]).abs().max()
        assert moved > 100 * TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_their_losses_and_scores_are_those_of_the_whole_batches(folder: Path, size: int) -> None:
    one, several = (literal_eval((folder / f"losses-{n}").read_text()) for n in (1, size))
    assert several == pytest.approx(one, abs=TOLERANCE)


@pytest.mark.parametrize("size", SIZES)
def test_processes_that_restore_repeat_a_block_bit_for_bit(folder: Path, size: int) -> None:
    """The stamps are those of the second attempt; the state that the first one had is in no other files."""
    stamps = [FileStamp(*fields) for fields in literal_eval((folder / f"stamps-{size}").read_text())]
    own = trainer(folder / "log", folder / f"of-{size}")
    for stamp in stamps:
        stamp.verified(own.state.folder)
    writers = {stamp.path.split("/")[-1].split("-")[1] for stamp in stamps if "rows-" in stamp.path}
    assert writers == {str(rank) for rank in range(size)}


@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_processes_continues_from_the_checkpoint_of_any_other(folder: Path, size: int) -> None:
    """One process after four and after two, both of them after one, and two after four."""
    expected = restored(folder, "of-1", 2)
    assert_close(expected, restored(folder, f"of-{size}-after-1", 2))
    assert_close(expected, restored(folder, "of-2-after-4", 2))
    shutil.copytree(folder / f"of-{size}", folder / f"alone-after-{size}")
    alone: ReferenceTrainer = trainer(folder / "log", folder / f"alone-after-{size}")
    alone.train(2)
    assert_close(expected, alone.reference)


@pytest.mark.parametrize("size", SIZES)
def test_replicas_of_the_distiller_average_to_the_meta_gradient_over_all_targets(
    folder: Path, size: int
) -> None:
    whole, weight = own_meta_gradient(ALONE)
    assert weight == 1 and whole.emb_NFD.abs().max() > 1e-5
    found = [torch.load(folder / f"meta-{size}-{rank}") for rank in range(size)]
    for name, value in whole._asdict().items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-9, atol=1e-15)
        assert all(
            torch.equal(torch.as_tensor(each[name]), torch.as_tensor(found[0][name])) for each in found
        )


def test_replicas_with_inner_loops_of_their_own_count_rows_that_one_of_them_drew() -> None:
    class Both(NamedTuple):
        sent: list[Any]

        def gather(self, item: Any) -> list[Any]:
            return [*self.sent, item]

    rows = [torch.tensor([1, 4]), torch.tensor([4, 9])]
    first, second = (
        MetaGradient(r, torch.ones(2, 3, 4) * n, torch.ones(2, 2), n) for n, r in ((2, rows[0]), (6, rows[1]))
    )
    others: Any = Both([(first.rows_N, first.emb_NFD, first.logit_NT, first.outer_loss, 0.25)])
    mean = averaged(second, 0.75, others)
    assert mean.rows_N.tolist() == [1, 4, 9] and mean.outer_loss == 5
    assert mean.emb_NFD[:, 0, 0].tolist() == [0.5, 5, 4.5] and mean.logit_NT[:, 1].tolist() == [0.25, 1, 0.75]


def test_shares_cover_a_batch_and_their_weights_its_mean() -> None:
    for rows in (1, 2, 3, 4, 5, 31, 32, 33):
        shares = [Peers(rank, 4).share(rows) for rank in range(4)]
        covered = [row for part, _ in shares for row in range(rows)[part]]
        assert covered == list(range(rows)) * (4 if rows < 4 else 1)
        assert sum(weight for _, weight in shares) == pytest.approx(1)
        for part, weight in shares:
            assert weight == pytest.approx(len(range(rows)[part]) / len(covered))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 2)])
def test_a_shared_batch_norm_alone_is_a_batch_norm(shape: tuple[int, ...], momentum: float | None) -> None:
    kind = torch.nn.BatchNorm1d
    usual = kind(3, momentum=momentum)
    torch.nn.init.normal_(usual.weight)
    copied = kind(3, momentum=momentum)
    copied.load_state_dict(usual.state_dict())
    shared = SharedBatchNorm.like(copied, ALONE)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        inputs = [torch.randn(shape, generator=draw).requires_grad_() for _ in range(1)] * 2
        ours, theirs = shared(inputs[0] * 3 + 1), usual(inputs[1] * 3 + 1)
        torch.testing.assert_close(ours, theirs)
        gradients = [torch.autograd.grad((out**3).sum(), inputs[0])[0] for out in (ours, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    assert shared.state_dict().keys() == usual.state_dict().keys()
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value)
    shared.eval(), usual.eval()
    torch.testing.assert_close(shared(inputs[0]), usual(inputs[0]))
