"""The head of a report: is the memory good, in a sentence and three numbers."""

from collections.abc import Iterator

from diet_ray.evaluation.verdicts.evidence import of_run
from diet_ray.evaluation.verdicts.verdict import NAMES, Contrast, Evidence, verdict
from diet_ray.runs.run import Run
from pipelines.reporting.page import Number, Numbers, Part, Sentence, Text

TONES = {"good": "good", "short": "short", "no better than random": "unclear", "unclear": "unclear"}
WORDS = (
    (
        "AUC",
        "how well a model ranks: the chance that a positive row scores above a negative one; 0.5 guesses",
    ),
    ("± behind a gap", "its standard error; a gap of less than about two of them is noise"),
    ("block", "an interval of the log; the historical ones are distilled one after another"),
    ("candidate", "an architecture that is compared or searched"),
    ("EL2N", "difficulty of a row: how far the predicted probabilities are from its labels"),
    ("full", "training on all history, what the memory stands in for"),
    ("LogLoss", "how far predicted probabilities are from the labels; lower is better"),
    ("memory", "the distilled data: rows of an embedding and a soft label each"),
    ("newest", "random rows of the newest block with the reference's labels, as many as the memory has"),
    ("probe", "a small candidate trained on the memory, scored on the next block"),
    ("quarantine", "rows set aside and kept: malformed, late, ahead of the clock"),
    ("random", "random rows of all history with the reference's labels, as many as the memory has"),
    ("ratio", "memory rows per row of history"),
    ("reference", "the model that learned all of the log; it labels the rows and lends its tables"),
    ("stage", "the work on one block, all or nothing"),
    ("subsequent block", "the block after history; candidates learn it before they are tested"),
    ("warmup, cold", "candidates that learn no history: with the reference's tables, without"),
)


def summary(run: Run) -> Iterator[Part]:
    """The verdict and three numbers; of a run that nobody has judged, how to get one."""
    if not run.records:
        yield Text("This run has no committed stage yet.")
        return
    evidence = of_run(run)
    if evidence is None:
        yield Sentence("Nobody has judged this memory yet: run `diet-ray evaluate`.", "unclear")
        yield Numbers((*_sizes(run), Number(f"{run.stage}", "stages")))
        return
    judged = verdict(evidence)
    yield Sentence(judged.sentence, TONES[judged.quality])
    yield Numbers((*_gaps(evidence), _sizes(run)[-1]))
    yield Text(" ".join(part for part in (judged.numbers, judged.advice) if part))


def _gaps(evidence: Evidence) -> list[Number]:
    whole, control = evidence.contrast("full", "reference"), evidence.contrast("random", "newest")
    return [_gap(contrast) for contrast in (whole, control) if contrast]


def _gap(contrast: Contrast) -> Number:
    noise = "" if contrast.error is None else f"± {contrast.error:.4f}"
    return Number(f"{contrast.gap:+.4f}", f"AUC against {NAMES[contrast.other]}", noise)


def _sizes(run: Run) -> tuple[Number, ...]:
    rows = sum(record.metrics.block_rows for record in run.records)
    memory = run.records[-1].metrics.memory.rows
    return (
        Number(f"{rows:,}", "rows of history"),
        Number(f"{memory / rows:.1%}", f"of the rows kept: {memory:,} of {rows:,}"),
    )
