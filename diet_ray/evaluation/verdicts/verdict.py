"""Is a memory good? One sentence, made from numbers of any origin: a probe, an evaluation or a stream."""

from typing import Literal, NamedTuple

from scipy.stats import t as student_t

from diet_ray.evaluation.verdicts.gaps import Gap
from diet_ray.strict import Strict

LEVEL = 0.95  # of the interval within which a gap is noise
WIDE = 0.005  # half of an interval from which on it cannot show that two AUCs are as good as each other
Other = Literal["full", "reference", "random", "newest"]
NAMES: dict[str, str] = {
    "full": "full training",
    "reference": "the reference",
    "random": "random rows",
    "newest": "random rows of the newest block",
}
TRAINED_ON_ALL = ("full", "reference")  # what the memory stands in for; the others are its controls
Quality = Literal["good", "short", "no better than random", "unclear"]
ADVICE: dict[str, str] = {
    "good": "",
    "short": "A larger ratio or a stronger reference may bring more.",
    "no better than random": "No advantage over random rows with the same labels is visible here.",
    "unclear": "More seeds bring certainty.",
}


class Contrast(Strict):
    """AUC of the memory minus that of something else, by the same learner on the same rows."""

    other: Other
    auc: float
    """Of the other."""
    gap: float
    """The memory's AUC minus the other's."""
    error: float | None = None
    """Standard error of the gap; None where a single measurement has none."""
    degrees: float | None = None
    """Degrees of freedom of the error; None where they are many."""

    @classmethod
    def of(cls, other: Other, auc: float, gap: Gap) -> "Contrast":
        return cls(other=other, auc=auc, gap=gap.mean, error=gap.error, degrees=gap.degrees)

    @property
    def margin(self) -> float | None:
        """Half the width of the 95 % interval (Student's t)."""
        if self.error is None:
            return None
        return float(student_t.ppf((1 + LEVEL) / 2, self.degrees or 1e9)) * self.error

    @property
    def sign(self) -> Literal["better", "worse", "level", "unknown"]:
        """Whether the gap is beyond its noise."""
        if self.margin is None:
            return "unknown"
        if abs(self.gap) <= self.margin:
            return "level"
        return "better" if self.gap > 0 else "worse"

    @property
    def decides(self) -> bool:
        """Whether the gap is beyond its noise, or its noise is small enough to call the two level."""
        return self.sign in ("better", "worse") or (self.margin is not None and self.margin <= WIDE)

    @property
    def size(self) -> str:
        """The gap with its standard error: +0.0012 ± 0.0005."""
        return f"{self.gap:+.4f}" if self.error is None else f"{self.gap:+.4f} ± {self.error:.4f}"


class Evidence(Strict):
    """What is known of a memory."""

    stage: int
    """The stage whose memory was judged."""
    auc: float
    """Of what learned from the memory."""
    contrasts: tuple[Contrast, ...]
    seeds: int
    """Of the learner."""
    where: str
    """The rows that were scored: block subsequent."""
    basis: str
    """Who learned, how often: a small DCN, 3 seeds."""

    def contrast(self, *others: Other) -> Contrast | None:
        """The first of `others` that was measured."""
        measured = {each.other: each for each in self.contrasts}
        return next((measured[other] for other in others if other in measured), None)


class Verdict(NamedTuple):
    """The judgement in a word, a sentence, the numbers behind it, and what to do about it."""

    quality: Quality
    sentence: str
    numbers: str
    advice: str  # empty where nothing is amiss

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.sentence, self.numbers, self.advice) if part)


def verdict(evidence: Evidence) -> Verdict:
    """Judge a memory.

    A gap is noise where its 95 % interval holds 0; without a standard error, or with an interval wider than
    WIDE on either side, it is unclear whether the two are level. The memory is good where it is not behind
    what has learned all history and ahead of each control.
    """
    ordered = sorted(evidence.contrasts, key=lambda each: list(NAMES).index(each.other))
    whole = [each for each in ordered if each.other in TRAINED_ON_ALL]
    controls = [each for each in ordered if each.other not in TRAINED_ON_ALL]
    clauses = [_clause(each) for each in ordered]
    sentence = f"The memory is {'; '.join(clauses)}." if clauses else "The memory was compared with nothing."
    aucs = [f"memory {evidence.auc:.4f}", *(f"{_bare(each.other)} {each.auc:.4f}" for each in ordered)]
    quality = _quality(whole, controls)
    numbers = f"AUC on {evidence.where}: {', '.join(aucs)} ({evidence.basis})."
    return Verdict(quality, sentence, numbers, ADVICE[quality])


def _quality(whole: list[Contrast], controls: list[Contrast]) -> Quality:
    signs = [each.sign for each in (*whole, *controls)]
    if not signs or "unknown" in signs:
        return "unclear"
    if any(each.sign != "better" for each in controls):
        return "no better than random"
    if any(each.sign == "worse" for each in whole):
        return "short"
    return "good" if all(each.decides for each in whole) else "unclear"


def counted(number: int, what: str) -> str:
    """1 seed, 2 seeds."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _bare(other: Other) -> str:
    return NAMES[other].removeprefix("the ")


def _clause(contrast: Contrast) -> str:
    """ "better than random rows by 0.0012 ± 0.0005"."""
    name, by = NAMES[contrast.other], contrast.size.lstrip("+-")
    whole = contrast.other in TRAINED_ON_ALL
    if contrast.sign == "unknown":
        return f"{contrast.size} from {name} (noise unknown)"
    if whole and not contrast.decides:
        return f"not told apart from {name} (gap {contrast.size}, 95 % interval ± {contrast.margin:.4f})"
    if contrast.sign == "level":
        return f"{'as good as' if whole else 'no better than'} {name} within noise (gap {contrast.size})"
    if contrast.sign == "better":
        return f"better than {name} by {by}"
    return f"{'behind' if whole else 'worse than'} {name} by {by}"
