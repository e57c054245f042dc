"""Several processes that learn a reference together, for its tests.

    python -m tests.parallel_reference FOLDER

They are forked from one that has imported torch and started no thread, which saves most of their time.
"""

import multiprocessing
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from diet_ray.config import ReferenceConfig, RunConfig
from diet_ray.distillation.unroll import Adam, MetaGradient, averaged, meta_gradient
from diet_ray.log.dataset import PreparedLog
from diet_ray.models.examples import Examples, dense_params, loss_of
from diet_ray.models.registry import ModelConfig, build_model
from diet_ray.runs.reference import ReferenceTrainer
from diet_ray.runs.state import RunState
from diet_ray.storage import Folder
from diet_ray.training.parallel.peers import ALONE, Peers
from tests.distinct_blocks import HEAD, SMALL

# FinalNet has batch norms, whose statistics are those of the whole batch.
NORMED = ReferenceConfig(name="finalnet", options={"hidden": [6, 6]}, head=HEAD, ensemble=("dcn",))
# 140 rows are four batches of 33 and one of 8, which 3 and 4 processes do not share evenly.
CONFIG = RunConfig.model_validate(
    {
        **SMALL.model_dump(),
        "reference": NORMED.model_dump(),
        "training": {"batch_size": 33, "learning_rate": 0.02, "clip_norm": 0.3},
    }
)
SIZES = (4, 2)


def trainer(log: Path, run: Path, peers: Peers = ALONE) -> ReferenceTrainer:
    run.mkdir(exist_ok=True)
    return ReferenceTrainer(RunState(PreparedLog.open(str(log)), Folder.at(str(run)), CONFIG), peers=peers)


def own_meta_gradient(peers: Peers) -> tuple[MetaGradient, float]:
    """Of a replica with its part of 37 targets, and the replica's weight."""
    config = ModelConfig(name="dcn", options={"hidden": [6]}, head=HEAD)
    model = build_model(config, fields=3, dim=4, tasks=2, seed=0)
    draw = torch.Generator().manual_seed(0)
    emb_NFD, logit_NT = torch.randn(50, 3, 4, generator=draw), torch.randn(50, 2, generator=draw)
    targets = Examples(torch.randn(37, 3, 4, generator=draw), torch.rand(37, 2, generator=draw))
    part, weight = peers.share(targets.rows)
    gradient = meta_gradient(
        loss_of(model),
        dense_params(model),
        emb_NFD=emb_NFD,
        logit_NT=logit_NT,
        order_SB=torch.randint(50, (4, 6), generator=draw),
        window=2,
        optimiser=Adam(0.01),
        targets=targets.take(part),
    )
    return gradient, weight


def resume_after_four(folder: Path, peers: Peers) -> None:
    """Go on with the first checkpoint that four processes wrote."""
    run = folder / "of-2-after-4"
    if peers.rank == 0:
        shutil.copytree(folder / "of-4/reference/0001", run / "reference/0001")
    peers.gather(None)
    trainer(folder / "log", run, peers).train(2)


def work(folder: Path, rank: int) -> None:
    """For each number of processes: learn two blocks; resume after the first with a checkpoint of others."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    for size in SIZES:
        if rank >= size:
            break
        file = f"file://{folder}/group-{size}"
        dist.init_process_group("gloo", file, timedelta(seconds=120), size, rank)
        peers = Peers.of_group()
        own = trainer(folder / "log", folder / f"of-{size}", peers)
        losses = [own.train(1)[1], own.progressive(2).auc, own.train(2)[1]]
        again = trainer(folder / "log", folder / f"of-{size}", peers)
        stamps = again.train(2)[0]
        resumed = trainer(folder / "log", folder / f"of-{size}-after-1", peers)
        resumed.train(2)
        if size == 2:
            resume_after_four(folder, peers)
        meta = averaged(*own_meta_gradient(peers), peers)
        torch.save(meta._asdict(), folder / f"meta-{size}-{rank}")
        if rank == 0:
            (folder / f"losses-{size}").write_text(repr(losses))
            (folder / f"stamps-{size}").write_text(repr([tuple(stamp) for stamp in stamps]))
        dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=work, args=(Path(sys.argv[1]), rank)) for rank in range(max(SIZES))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(any(worker.exitcode for worker in workers))
