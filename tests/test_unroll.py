"""The meta-gradient against central finite differences, in float64."""

import pytest
import torch
from torch import Tensor

from diet_ray.distillation.unroll import Adam, InnerOptimiser, Sgd, inner_loop, meta_gradient
from diet_ray.models.examples import Examples, Params, dense_params, loss_of
from tests.tiny_network import examples, network

ROWS, STEPS, BATCH = 12, 5, 3
OPTIMISERS = [Sgd(0.1), Adam(0.01)]


def order(seed: int = 3) -> Tensor:
    return torch.randint(ROWS, (STEPS, BATCH), generator=torch.Generator().manual_seed(seed))


def outer_loss(
    emb: Tensor, logit: Tensor, order_SB: Tensor, window: int, frozen: Examples, optimiser: InnerOptimiser
) -> float:
    """Loss on the targets when the last `window` steps see the perturbed rows, the others `frozen` ones."""
    model, early = network(), STEPS - window
    loss = loss_of(model)
    rows = Examples(torch.cat([frozen.emb_NFD, emb]), torch.cat([frozen.label_NT, logit.sigmoid()]))
    mixed_SB = order_SB.clone()
    mixed_SB[early:] += ROWS  # the second half of `rows` is the perturbed copy
    final: Params = inner_loop(loss, dense_params(model), rows, mixed_SB, optimiser, untracked=STEPS)
    return loss(final, examples(9, seed=5)).mean().item()


@pytest.mark.parametrize("window", [STEPS, 2])
@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda o: type(o).__name__)
def test_meta_gradient_equals_central_differences(optimiser: InnerOptimiser, window: int) -> None:
    model, rows, order_SB = network(), examples(ROWS, seed=4), order()
    logit = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = meta_gradient(
        loss_of(model),
        dense_params(model),
        emb_NFD=rows.emb_NFD,
        logit_NT=logit,
        order_SB=order_SB,
        window=window,
        optimiser=optimiser,
        targets=examples(9, seed=5),
    )
    frozen, h = Examples(rows.emb_NFD, logit.sigmoid()), 1e-5

    def slope(emb_step: Tensor, logit_step: Tensor) -> float:
        sides = [
            outer_loss(
                rows.emb_NFD + s * h * emb_step,
                logit + s * h * logit_step,
                order_SB,
                window,
                frozen,
                optimiser,
            )
            for s in (1, -1)
        ]
        return (sides[0] - sides[1]) / (2 * h)

    draw = torch.Generator().manual_seed(7)
    for _ in range(4):
        emb_step = torch.randn(rows.emb_NFD.shape, generator=draw, dtype=torch.float64)
        logit_step = torch.randn(logit.shape, generator=draw, dtype=torch.float64)
        by_emb = (found.emb_NFD * emb_step[found.rows_N]).sum().item()
        by_logit = (found.logit_NT * logit_step[found.rows_N]).sum().item()
        assert slope(emb_step, torch.zeros_like(logit_step)) == pytest.approx(by_emb, rel=1e-5, abs=1e-9)
        assert slope(torch.zeros_like(emb_step), logit_step) == pytest.approx(by_logit, rel=1e-5, abs=1e-9)


def test_only_rows_drawn_inside_the_window_have_a_gradient() -> None:
    model, rows, order_SB = network(), examples(ROWS, seed=4), order()
    found = meta_gradient(
        loss_of(model),
        dense_params(model),
        emb_NFD=rows.emb_NFD,
        logit_NT=torch.zeros(ROWS, 2, dtype=torch.float64),
        order_SB=order_SB,
        window=2,
        optimiser=Sgd(0.1),
        targets=examples(9, seed=5),
    )
    assert set(found.rows_N.tolist()) == set(order_SB[-2:].flatten().tolist())


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_inner_loop_takes_the_steps_of_torch_optim(name: str) -> None:
    model, rows, order_SB = network(), examples(ROWS, seed=4), order()
    same = {"SGD": Sgd(0.01), "Adam": Adam(0.01, epsilon=1e-14)}[name]
    ours = inner_loop(loss_of(model), dense_params(model), rows, order_SB, same)
    loss = loss_of(model)
    theirs = {key: p.requires_grad_() for key, p in dense_params(model).items()}
    settings = {"eps": 1e-14} if name == "Adam" else {}  # the two place their epsilon differently
    optimiser = getattr(torch.optim, name)(theirs.values(), lr=0.01, **settings)
    for rows_B in order_SB:
        optimiser.zero_grad()
        loss(theirs, rows.take(rows_B)).mean().backward()
        optimiser.step()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-6, atol=1e-9)


def test_a_row_that_is_often_in_a_batch_is_computed_once_and_counts_as_often() -> None:
    model, rows = network(), examples(4, seed=4)
    order_SB = torch.randint(4, (STEPS, 24), generator=torch.Generator().manual_seed(3))
    loss, computed = loss_of(model), []

    def counted(params: Params, taken: Examples) -> Tensor:
        computed.append(taken.rows)
        return loss(params, taken)

    once = inner_loop(counted, dense_params(model), rows, order_SB, Adam(0.01))
    params = {name: p.requires_grad_() for name, p in dense_params(model).items()}
    state = Adam(0.01).init(params)
    for count, rows_B in enumerate(order_SB, start=1):
        gradients = torch.autograd.grad(loss(params, rows.take(rows_B)).mean(), list(params.values()))
        params, state = Adam(0.01).step(params, dict(zip(params, gradients, strict=True)), state, count)
    assert computed == [4] * STEPS
    for name, value in once.items():
        torch.testing.assert_close(value, params[name], rtol=1e-9, atol=1e-12)


def test_adam_survives_a_gradient_of_exactly_zero() -> None:
    """With the epsilon outside the root this meta-gradient is NaN."""
    model, rows = network(), examples(ROWS, seed=4)
    with torch.no_grad():
        model[-1].weight.zero_()  # type: ignore[union-attr, operator]
    found = meta_gradient(
        loss_of(model),
        dense_params(model),
        emb_NFD=rows.emb_NFD,
        logit_NT=torch.zeros(ROWS, 2, dtype=torch.float64),
        order_SB=order(),
        window=STEPS,
        optimiser=Adam(0.01),
        targets=examples(9, seed=5),
    )
    assert found.emb_NFD.isfinite().all() and found.logit_NT.isfinite().all()
