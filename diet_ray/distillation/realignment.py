"""Maps older memory rows into the embedding space of the newest checkpoint.

The tables move with every block, and a memory row has no ids by which to look it up again: it grows stale,
and a candidate, which inherits the newest tables, would learn from rows unlike its own. What shows the move
are rows of the block before, whose ids both checkpoints have. An affine map per field, fitted on those rows,
moves the memory; the change of the teacher's logits along the way is added to a row's logits.

Shape suffixes: N rows, F fields, D embedding dim, X = D + 1 (the last input is 1).
"""

import torch
from torch import Tensor

from diet_ray.distillation.memory import Memory
from diet_ray.models.base import DenseModel
from diet_ray.models.examples import predict

RIDGE = 1e-3  # relative to an input's mean square: where rows say little the map stays at the identity


def affine_maps(before_NFD: Tensor, after_NFD: Tensor) -> Tensor:
    """Return maps [F, X, D], float64, from `before` to `after` with the least squared error per field."""
    input_FNX = _with_one(before_NFD.double().cpu()).transpose(0, 1)
    move_FND = (after_NFD - before_NFD).double().cpu().transpose(0, 1)
    gram_FXX = input_FNX.mT @ input_FNX
    dim = move_FND.shape[2]
    ridge_F = RIDGE * gram_FXX.diagonal(dim1=1, dim2=2)[:, :dim].mean(1)
    penalty_X = torch.ones(dim + 1, dtype=torch.float64)
    penalty_X[-1] = 0  # a shift is free
    gram_FXX += torch.diag_embed(ridge_F[:, None] * penalty_X)
    change_FXD = torch.linalg.lstsq(gram_FXX, input_FNX.mT @ move_FND, driver="gelsd").solution
    return change_FXD + torch.eye(dim + 1, dim, dtype=torch.float64)


def realign(memory: Memory, maps_FXD: Tensor, previous: DenseModel, reference: DenseModel) -> Memory:
    """Move a memory from the embedding space of `previous` into that of `reference`.

    maps_FXD: from `affine_maps`.
    """
    input_NFX, maps_FXD = _with_one(memory.emb_NFD.double()), maps_FXD.to(memory.emb_NFD.device)
    emb_NFD = torch.einsum("nfx,fxd->nfd", input_NFX, maps_FXD).float()
    change_NT = predict(reference, emb_NFD) - predict(previous, memory.emb_NFD)
    return memory._replace(emb_NFD=emb_NFD, logit_NT=memory.logit_NT + change_NT)


def _with_one(value: Tensor) -> Tensor:
    return torch.cat([value, value.new_ones(*value.shape[:-1], 1)], -1)
