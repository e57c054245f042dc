"""Is a memory good? Gaps, their noise, and the sentence that is made of them."""

import numpy as np
import pandas as pd
import pytest

from diet_ray.evaluation.verdicts.evidence import of_cells, of_stream
from diet_ray.evaluation.verdicts.gaps import Gap, auc_gap, mean_gap
from diet_ray.evaluation.verdicts.ratio_choice import choose_ratio
from diet_ray.evaluation.verdicts.verdict import Contrast, Evidence, Other, verdict
from diet_ray.runs.metrics import MeanScores
from diet_ray.runs.records import StageRecord
from diet_ray.training.metrics import auc_components, roc_auc
from tests.tiny_run import stage_metrics


def evidence(**gaps: tuple[float, float | None]) -> Evidence:
    """A memory of AUC 0.75, and gaps with their standard errors."""
    contrasts = [
        Contrast(other=other, auc=0.75 - gap, gap=gap, error=error)  # type: ignore[arg-type]
        for other, (gap, error) in gaps.items()
    ]
    return Evidence(
        stage=3, auc=0.75, contrasts=tuple(contrasts), seeds=2, where="block x", basis="a probe, 2 seeds"
    )


def test_a_good_memory_in_words_and_numbers() -> None:
    said = verdict(evidence(random=(0.0012, 0.0005), full=(-0.0004, 0.0011)))
    assert said.quality == "good"
    assert said.text == (
        "The memory is as good as full training within noise (gap -0.0004 ± 0.0011); better than random rows "
        "by 0.0012 ± 0.0005. AUC on block x: memory 0.7500, full training 0.7504, random rows 0.7488 "
        "(a probe, 2 seeds)."
    )


@pytest.mark.parametrize(
    ("gaps", "quality", "clause"),
    [
        ({"reference": (-0.01, 0.001), "random": (0.01, 0.001)}, "short", "behind the reference by 0.0100"),
        (
            {"full": (0.01, 0.001), "random": (0.001, 0.001)},
            "no better than random",
            "no better than random rows within noise (gap +0.0010 ± 0.0010)",
        ),
        (
            {"random": (0.01, 0.001), "newest": (-0.01, 0.001)},
            "no better than random",
            "worse than random rows of the newest block by 0.0100 ± 0.0010",
        ),
        (
            {"full": (-0.01, 0.01), "random": (0.01, 0.001)},
            "unclear",
            "not told apart from full training (gap -0.0100 ± 0.0100, 95 % interval ± 0.0196)",
        ),
        ({"full": (0.01, None)}, "unclear", "+0.0100 from full training (noise unknown)"),
        ({}, "unclear", "compared with nothing"),
    ],
)
def test_other_verdicts(gaps: dict[str, tuple[float, float | None]], quality: str, clause: str) -> None:
    said = verdict(evidence(**gaps))
    assert said.quality == quality and clause in said.sentence
    assert said.advice


def test_a_gap_of_few_pairs_needs_to_be_larger() -> None:
    """The 95 % quantile of Student's t: 12.7 with one degree of freedom, 1.96 with many."""
    few = Contrast(other="random", auc=0.7, gap=0.01, error=0.001, degrees=1)
    many = few.model_copy(update={"degrees": None})
    assert few.margin == pytest.approx(0.012706, rel=1e-4) and few.sign == "level"
    assert many.margin == pytest.approx(0.00196, rel=1e-3) and many.sign == "better"


def test_the_mean_gap_by_hand() -> None:
    gap = mean_gap(np.array([0.01, 0.03, 0.02]))
    assert gap == pytest.approx(Gap(0.02, 0.01 / 3**0.5, 2))
    assert mean_gap(np.array([0.5])) == Gap(0.5, None)


def test_components_of_an_auc_by_hand() -> None:
    """Positives win 1 and 1/2 of the two negatives, which lose 1/4 and 0 of their pairs; the AUC is 7/8."""
    score, label = np.array([3.0, 2.0, 2.0, 1.0]), np.array([1, 1, 0, 0])
    assert roc_auc(score, label) == 0.875
    expected = [(1 - 0.875) / 2, (0.75 - 0.875) / 2, (0.75 - 0.875) / 2, (1 - 0.875) / 2]
    np.testing.assert_allclose(auc_components(score, label), expected)
    assert np.isnan(auc_components(score, np.ones(4))).all()


def test_the_noise_of_a_gap_is_that_of_a_bootstrap_over_rows() -> None:
    draw = np.random.default_rng(0)
    label_NT = (draw.uniform(size=(1500, 2)) < (0.3, 0.1)).astype(int)
    own = label_NT + draw.normal(size=label_NT.shape)
    other = own + draw.normal(scale=0.7, size=own.shape)
    gap = auc_gap([own], [other], label_NT)

    def difference(row_N: np.ndarray) -> float:
        scores = [
            np.mean([roc_auc(logit[row_N, t], label_NT[row_N, t]) for t in range(2)])
            for logit in (own, other)
        ]
        return float(scores[0] - scores[1])

    assert gap.mean == pytest.approx(difference(np.arange(1500)), abs=1e-12)
    resampled = [difference(draw.integers(1500, size=1500)) for _ in range(400)]
    assert gap.error == pytest.approx(np.std(resampled), rel=0.15)


def test_the_spread_of_seeds_adds_to_the_noise_of_rows() -> None:
    draw = np.random.default_rng(1)
    label_NT = (draw.uniform(size=(400, 1)) < 0.4).astype(int)
    good = label_NT + draw.normal(scale=0.8, size=label_NT.shape)
    own = [good, good + draw.normal(scale=1.5, size=good.shape)]
    gap = auc_gap(own, [good], label_NT)
    aucs = [roc_auc(logit[:, 0], label_NT[:, 0]) for logit in own]
    row_N = np.mean([auc_components(logit[:, 0], label_NT[:, 0]) for logit in own], axis=0)
    row_N -= auc_components(good[:, 0], label_NT[:, 0])
    of_seeds = np.var([0, aucs[1] - aucs[0]], ddof=1) / 2
    assert gap.error == pytest.approx((np.square(row_N).sum() + of_seeds) ** 0.5)
    assert gap.degrees == pytest.approx(gap.error**4 / of_seeds**2)  # type: ignore[operator]
    assert np.isnan(auc_gap(own, [good], np.ones_like(label_NT)).mean)


def test_a_ratio_is_the_smallest_within_an_error_of_the_best() -> None:
    ratios = np.array([0.05, 0.01, 0.02])
    # Behind the best (0.05) by 0.01 each, and by 0.001 ± 0.001.
    aucs = np.array([[0.75, 0.74, 0.749], [0.76, 0.75, 0.757], [0.74, 0.73, 0.741]])
    choice = choose_ratio(ratios, aucs, np.random.default_rng(0))
    assert (choice.ratio, choice.best) == (0.02, 0.05)
    assert choice.gap.mean == pytest.approx(-0.001) and choice.gap.error == pytest.approx(0.002 / 3**0.5)
    assert choice.low >= 0.02 and 0.5 < choice.share < 1
    assert choice.text.startswith("Recommended ratio: 2.0% (AUC -0.0010 ± 0.0012 against 5.0%, the best;")
    clear = choose_ratio(ratios, aucs - [[0, 0, 0.1]], np.random.default_rng(0))
    assert (clear.ratio, clear.share, clear.low, clear.high) == (0.05, 1, 0.05, 0.05)
    assert "one seed tell no noise" in choose_ratio(ratios, aucs[:1], np.random.default_rng(0)).text
    with pytest.raises(ValueError, match="every ratio"):
        choose_ratio(ratios, np.array([[0.5, np.nan, 0.5]]), np.random.default_rng(0))


def cells(**aucs: list[float | None]) -> pd.DataFrame:
    rows = [
        {"method": method, "candidate": f"c{n % 2}", "seed": n // 2, "auc": auc}
        for method, values in aucs.items()
        for n, auc in enumerate(values)
        if auc is not None
    ]
    return pd.DataFrame(rows)


def contrast(found: Evidence, other: Other) -> Contrast:
    measured = found.contrast(other)
    assert measured
    return measured


def test_cells_are_compared_in_pairs_of_candidate_and_seed() -> None:
    found = of_cells(cells(diet=[0.7, 0.8, 0.72, 0.82], full=[0.69, 0.78], random=[0.7, 0.79, 0.71, 0.8]), 3)
    assert found and (found.auc, found.seeds, found.stage) == (pytest.approx(0.76), 2, 3)
    full = contrast(found, "full")
    assert (full.auc, full.gap) == (pytest.approx(0.735), pytest.approx(0.015))
    assert full.error == pytest.approx(0.01 / 2**0.5 / 2**0.5) and full.degrees == 1
    assert contrast(found, "random").gap == pytest.approx(0.01) and not found.contrast("newest")
    assert of_cells(cells(diet=[0.7]), 3) is None and of_cells(cells(full=[0.7], random=[0.6]), 3) is None


def record(stage: int, progressive: float | None, probe: float | None, newest: float | None) -> StageRecord:
    def scores(auc: float | None) -> MeanScores | None:
        return None if auc is None else MeanScores(auc=auc, logloss=0.5)

    measured = {"progressive": scores(progressive), "probe": scores(probe), "probe_newest": scores(newest)}
    metrics = stage_metrics().model_copy(update=measured)
    return StageRecord(stage=stage, block=f"{stage:04d}", previous="", config="", files=(), metrics=metrics)


def test_a_stream_is_judged_by_the_blocks_on_which_its_memory_was_probed() -> None:
    first = [record(1, None, None, None), record(2, 0.9, None, None)]
    found = of_stream([*first, record(3, 0.7, 0.68, 0.66), record(4, 0.72, 0.71, None)])
    assert found and found.stage == 4 and found.auc == pytest.approx(0.695)
    reference, newest = contrast(found, "reference"), contrast(found, "newest")
    assert (reference.auc, reference.gap) == (pytest.approx(0.71), pytest.approx(-0.015))
    assert reference.error == pytest.approx(0.005)
    assert newest.gap == pytest.approx(0.02) and newest.error is None
    assert of_stream([record(1, 0.7, None, None)]) is None
