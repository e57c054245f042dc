"""Judge a candidate by rows that it is about to learn (progressive or prequential validation).

A candidate starts from tables of its own or from tables between the reference's and fresh ones, learns a
stream of rows in the order of time with the labels of the log, and is scored on each row before it learns it.
The stream comes in pieces, so that a search can stop a candidate after any of them.
"""

import time
from itertools import islice
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from diet_ray.config import CandidateConfig, Positive, Share, TrainingConfig
from diet_ray.errors import ConfigError, DataError
from diet_ray.evaluation.before_learned import Progress, learn_and_score_batches
from diet_ray.evaluation.judges.stream import judged_blocks, stream_rows
from diet_ray.evaluation.judges.tables import mixed_tables, need_checkpoint
from diet_ray.log.batches import rechunked
from diet_ray.log.dataset import PreparedLog
from diet_ray.seeding import torch_generator
from diet_ray.strict import Strict
from diet_ray.training.candidate_setup import candidate_recommender
from diet_ray.training.checkpoints.restoring import restore_tables
from diet_ray.training.checkpoints.stored import StoredCheckpoint

Tables = Literal["own", "mixed", "inherited"]


class JudgeConfig(Strict):
    """What a judge lets a candidate learn, and from which tables.

    Example:
        >>> JudgeConfig(tables="mixed", share=0.3).needs_reference
        True
    """

    tables: Tables = "own"
    """own: empty; mixed: between the reference's and fresh ones; inherited: the reference's, with moments."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the reference in mixed tables."""
    history: Annotated[int, Field(ge=0)] = 0
    """Blocks of history learned before the newest block."""
    oldest: bool = False
    """Learn the oldest block of history and nothing else: a full training that is stopped early."""
    thin: Positive = 1
    """Learn the rows of one in so many ids of `thin_field`."""
    thin_field: str | None = None
    """Field of the ids; the log's first field if left out."""
    pieces: Positive = 8
    """Pieces of the block that is scored, after each of which there is a score; fewer where it has fewer
    batches."""
    part: Share = 1.0
    """Share of the block that is scored, its first rows, that is learned at all."""
    scored: Share = 0.5
    """Share of those rows, the last of them, that count in the score."""

    @property
    def needs_reference(self) -> bool:
        return self.tables != "own"


JUDGES: dict[str, JudgeConfig] = {
    "half": JudgeConfig(tables="own", part=0.5, pieces=4),
    "cold": JudgeConfig(tables="own"),
    "mixed": JudgeConfig(tables="mixed"),
    "warm": JudgeConfig(tables="inherited"),
    "early": JudgeConfig(tables="own", oldest=True),
    "users": JudgeConfig(tables="own", history=1000, thin=8),
}
"""Judges by the names that a command line knows."""


class JudgeSetting(NamedTuple):
    """What all candidates of a judge share."""

    log: PreparedLog
    dim: int
    training: TrainingConfig
    checkpoint: StoredCheckpoint | None = None  # the newest of the reference


class Judging:
    """A candidate before a judge; `advance` learns a piece and scores it. Needs the device of the process.

    Args:
        name: of the judge, for messages.
        config: the judge.
        setting: log and training.
        candidate: who is judged.
        seed: of initial weights and new table rows.

    Raises:
        ConfigError: the candidate cannot be built, or training shuffles rows.
        RunError: the judge needs a checkpoint and there is none.
    """

    def __init__(
        self, name: str, config: JudgeConfig, setting: JudgeSetting, candidate: CandidateConfig, seed: int
    ) -> None:
        if setting.training.shuffle_rows > 1:
            raise ConfigError("judges learn rows in the order of time: training.shuffle_rows must be 1")
        started = time.process_time()
        self.name, self.config, self.setting = name, config, setting
        log, batch = setting.log, setting.training.batch_size
        self.blocks = log.history[:1] if config.oldest else judged_blocks(log, config.history)
        self.recommender = candidate_recommender(
            candidate, seed, log, setting.dim, setting.training, joined=config.tables == "own"
        )
        self._start_tables(seed)
        field = config.thin_field or log.fields[0]
        older = stream_rows(log, self.blocks[:-1], config.thin, field)
        self.older = rechunked(older, batch)
        newest = rechunked(stream_rows(log, self.blocks[-1:], config.thin, field), batch)
        # Thinned, the newest block has about this many batches; the last piece takes what is left.
        self.batches = -(-round(config.part * self.blocks[-1].rows) // (config.thin * batch))
        self.newest = islice(newest, self.batches) if config.part < 1 else newest
        self.pieces = min(config.pieces, self.batches)
        self.done: list[Progress] = []
        self.rows = 0  # learned
        self.seconds = time.process_time() - started

    @property
    def finished(self) -> bool:
        return len(self.done) == self.pieces

    def advance(self) -> Progress:
        """Learn the next piece of the newest block; what the candidate thought of its rows before.

        Raises:
            DataError: training diverges, or the piece has no rows.
        """
        started = time.process_time()
        if not self.done:
            for batch in self.older:
                self.rows += learn_and_score_batches(self.recommender, [batch]).rows
        number = len(self.done)
        first, last = (self.batches * n // self.pieces for n in (number, number + 1))
        wanted = None if number + 1 == self.pieces else last - first
        batches = list(islice(self.newest, wanted))
        if not batches:
            raise DataError(
                f"judge {self.name}: piece {number + 1} of its block has no rows; use fewer pieces"
            )
        self.done.append(learn_and_score_batches(self.recommender, batches))
        self.rows += self.done[-1].rows
        self.seconds += time.process_time() - started
        return self.done[-1]

    def run(self) -> Progress:
        """Learn all pieces; the rows that count in the score."""
        while not self.finished:
            self.advance()
        return self.scored()

    def scored(self) -> Progress:
        """Of the rows learned so far the last ones that count: at the end `scored` of the newest block."""
        rows = Progress.joined(self.done)
        return rows.part(rows.rows - max(1, round(self.config.scored * rows.rows)), rows.rows)

    def _start_tables(self, seed: int) -> None:
        config, checkpoint = self.config, self.setting.checkpoint
        if config.tables == "mixed":
            mixed_tables(self.recommender, need_checkpoint(self.name, checkpoint), config.share, seed)
        elif config.tables == "inherited":
            restore_tables(self.recommender, need_checkpoint(self.name, checkpoint))
        self.recommender.grow(self.blocks[-1].table_rows, torch_generator(seed, "grow", "judge"))
