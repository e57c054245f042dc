"""The options of `diet-ray report`."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html: one page, readable offline, of all results of the run.

    $ diet-ray report runs/globo

    $ diet-ray report runs/globo --out globo.html
    """

    run: tyro.conf.Positional[str]
    """Directory of a run."""
    out: str | None = None
    """File to write, or a folder to write report.html into; default: RUN/report.html."""

    def __call__(self) -> None:
        from pipelines.report import execute

        execute(self)
