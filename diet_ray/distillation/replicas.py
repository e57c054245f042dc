"""One meta-gradient from several replicas of the distiller (eq. 19 over more targets, or more inner loops).

Shape suffixes: N rows, U distinct rows of all replicas.
"""

import torch

from diet_ray.distillation.unroll import MetaGradient
from diet_ray.training.parallel.peers import Peers


def averaged(own: MetaGradient, weight: float, peers: Peers) -> MetaGradient:
    """The weighted mean of the replicas' meta-gradients, the same in each of them, bit for bit.

    Where replicas share an inner loop and each has a part of the targets, weighted by its share
    (`Peers.share`), it is the meta-gradient over all targets. Where each has an inner loop of its own, it is
    the gradient of their mean outer loss. A row that a replica did not draw has the gradient 0 there.

    Args:
        own: of this replica.
        weight: of this replica in the mean; all weights sum to 1.
        peers: all replicas call this together. Traffic grows with the drawn rows, not with the memory.
    """
    device = own.rows_N.device
    sent = (own.rows_N.cpu(), own.emb_NFD.cpu(), own.logit_NT.cpu(), own.outer_loss, weight)
    everyone = peers.gather(sent)
    rows_U = torch.cat([rows_N for rows_N, *_ in everyone]).unique()
    emb = own.emb_NFD.new_zeros(len(rows_U), *own.emb_NFD.shape[1:], device="cpu")
    logit = own.logit_NT.new_zeros(len(rows_U), *own.logit_NT.shape[1:], device="cpu")
    for rows_N, emb_NFD, logit_NT, _, share in everyone:
        place_N = torch.searchsorted(rows_U, rows_N)
        emb[place_N] += share * emb_NFD
        logit[place_N] += share * logit_NT
    outer = sum(share * outer_loss for *_, outer_loss, share in everyone)
    return MetaGradient(rows_U.to(device), emb.to(device), logit.to(device), outer)
