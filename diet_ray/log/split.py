"""Another division of a prepared log into history and what comes after it, without preparing it again."""

from collections.abc import Iterator

from diet_ray.errors import ConfigError
from diet_ray.log.batches import EncodedRows
from diet_ray.log.dataset import AFTER_HISTORY, Block, PreparedLog

FEWEST_ROWS = 4  # of the block that is divided


class EarlierLog(PreparedLog):
    """A prepared log as it was one block earlier.

    The last block of history is divided by rows: its first half is the subsequent block, its next quarter
    the validation block, its last quarter the test block. Tables have the rows that they have after the
    whole block.

    Raises:
        ConfigError: where no history would remain, or the block is too small to be divided.
    """

    def __init__(self, log: PreparedLog) -> None:
        *history, divided = log.history
        if not history or divided.rows < FEWEST_ROWS:
            raise ConfigError(f"log {log.name} has too little history for a split one block earlier")
        self.__dict__.update(log.__dict__)
        self.divided = divided
        half, three_quarters = divided.rows // 2, 3 * divided.rows // 4
        ends = (0, half, three_quarters, divided.rows)
        self.first = dict(zip(AFTER_HISTORY, ends[:-1], strict=True))
        after = {
            name: divided._replace(name=name, rows=stop - start, label_groups={})
            for name, start, stop in zip(AFTER_HISTORY, ends[:-1], ends[1:], strict=True)
        }
        self.blocks = {**{block.name: block for block in history}, **after}

    def chunks(self, block: Block, start: int = 0, stop: int | None = None) -> Iterator[EncodedRows]:
        """As PreparedLog.chunks, with row numbers that count from the start of the part."""
        first = self.first.get(block.name, 0)
        return super().chunks(block, first + start, first + (block.rows if stop is None else stop))
