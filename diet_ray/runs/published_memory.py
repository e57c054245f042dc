"""The memory of a run as its consumers read it: at any time, without locks."""

import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray import layout
from diet_ray.errors import DataError, RunError
from diet_ray.runs.run import Run
from diet_ray.storage import FileStamp, Folder, arrow_file

READ_ATTEMPTS = 3


def load_memory(run: str, stage: int | None = None) -> pa.Table:
    """Read the newest memory of a run, or that of a stage, checked against its checksum.

    Needs no lock: it may be called at any time, while a stream writes the run, from any machine that reaches
    the storage.

    Args:
        run: directory or fsspec URL of the run.
        stage: from 1; the newest where it is None.

    Returns:
        Columns embedding (F x D float32 per row), logits (T float32), stage, label_group and influence; see
        diet_ray.distillation.memory.to_arrow.

    Raises:
        RunError: where the run has no such memory yet.
        DataError: where the file is damaged.

    Example:
        >>> import diet_ray
        >>> memory = diet_ray.load_memory("runs/demo")
        >>> memory.column_names
        ['embedding', 'logits', 'stage', 'label_group', 'influence']
        >>> max(memory["stage"].to_pylist())  # the newest stage from whose block rows were selected
        3
        >>> diet_ray.load_memory("runs/demo", stage=1).num_rows < memory.num_rows
        True
    """
    for attempt in range(READ_ATTEMPTS):
        folder, stamp = _memory_file(run, stage)
        try:
            content = stamp.verified(folder)
        except DataError:
            # A newer stage may have removed it between the two reads.
            if attempt == READ_ATTEMPTS - 1:
                raise
        else:
            break
    try:
        return pq.read_table(arrow_file(content))
    except (pa.ArrowException, OSError) as broken:
        raise DataError(f"{folder / stamp.path} is not a memory: {broken}") from broken


def _memory_file(url: str, stage: int | None) -> tuple[Folder, FileStamp]:
    if stage is not None:
        run = Run.read(url)
        if not 1 <= stage <= run.stage:
            raise RunError(f"{url} has no memory of stage {stage}; it has {run.stage} stages")
        return run.folder, run.records[stage - 1].memory_stamp()
    folder, path = Folder.at(url), layout.LATEST_MEMORY
    if not folder.exists(path):
        raise RunError(f"{url} has no memory yet: there is no {path}")
    try:
        latest = folder.read_json(path)
        return folder, FileStamp(latest["path"], latest["size"], latest["sha256"])
    except (KeyError, TypeError) as broken:
        raise RunError(f"{folder / path} is malformed: {broken}") from broken
