"""Train a candidate architecture's dense part on reduced data, in embedding space.

Shape suffixes: N rows.
"""

from typing import NamedTuple

import torch

from diet_ray.config import CandidateConfig
from diet_ray.examples import Examples, example_loss, predict
from diet_ray.metrics import Scores, score_tasks
from diet_ray.models.ranking import RankingModel

CLIP_NORM = 10.0


class Fitted(NamedTuple):
    """What happened; the model holds its best epoch."""

    epochs: list[Scores]  # on the validation rows, after each epoch
    best: int  # index into `epochs`
    rows_trained: int


def fit_candidate(
    model: RankingModel,
    reduced: Examples,
    validation: Examples,
    config: CandidateConfig,
    draw: torch.Generator,
) -> Fitted:
    """Train `model` on soft-labelled rows until validation AUC stops rising; leave it at its best epoch."""
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    scores: list[Scores] = []
    best, kept = 0, model.state_dict()
    for epoch in range(config.epochs):
        _train_epoch(model, reduced, config.batch_size, optimiser, draw)
        logits = predict(model, validation.emb_NFD).cpu().numpy()
        names = [str(task) for task in range(logits.shape[1])]
        scores.append(score_tasks(logits, validation.label_NT.cpu().numpy(), names))
        if epoch == 0 or scores[-1].auc > scores[best].auc:
            best, kept = epoch, {name: part.clone() for name, part in model.state_dict().items()}
        if epoch - best >= config.patience:
            break
    model.load_state_dict(kept)
    return Fitted(scores, best, len(scores) * reduced.rows)


def _train_epoch(
    model: RankingModel,
    rows: Examples,
    batch_size: int,
    optimiser: torch.optim.Optimizer,
    draw: torch.Generator,
) -> None:
    model.train()
    order_N = torch.randperm(rows.rows, generator=draw).to(rows.emb_NFD.device)
    for rows_B in order_N.split(batch_size):
        if len(rows_B) == 1 and rows.rows > 1:
            continue  # a batch norm cannot train on one row
        batch = rows.take(rows_B)
        loss = example_loss(model(batch.emb_NFD), batch.label_NT).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimiser.step()
