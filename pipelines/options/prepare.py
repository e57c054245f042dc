"""The options of `diet-ray prepare`."""

from dataclasses import dataclass

from diet_ray.log.drift_config import DriftConfig


@dataclass(frozen=True)
class Prepare:
    """Encode a raw log into the blocks of its schema.

    $ diet-ray prepare --dataset globo --source GLOBO_DIR --out data/globo

    $ diet-ray prepare --dataset myshop.yaml --source clicks.parquet --out data/myshop

    $ diet-ray prepare --dataset myshop.yaml --source clicks.parquet --out data/myshop --check

    $ diet-ray prepare --dataset drift --out data/drift --drift.rows 1000000 --drift.kind abrupt

    Built in: globo, kuairand, tmall, taobao, as their publishers distribute them; drift is generated. The
    command ends with a table per block of what was understood.
    """

    dataset: str
    """globo, kuairand, tmall, taobao, drift, or a YAML file that describes your log."""
    out: str | None = None
    """Directory of the prepared log; new, or the result of the same preparation. --check needs none."""
    source: str | None = None
    """The raw log: a file or a directory, local or any fsspec URL. drift needs none."""
    check: bool = False
    """Read the first rows of each file and print what they become, without writing anything."""
    drift: DriftConfig = DriftConfig()
    """Settings of the generated log."""

    def __call__(self) -> None:
        from pipelines.prepare import execute

        execute(self)
