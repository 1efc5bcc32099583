"""Losses on batches of embeddings that the learnt codes share. Needs torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HIDDEN = -1e4


class _SignStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1).to(gradient.dtype)


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0 and -1 elsewhere; the gradient passes unchanged where |x| <= 1 and is 0 outside."""
    return _SignStraightThrough.apply(x)


def hard_negative_loss(anchors: Tensor, others: Tensor, labels: Tensor, temperature: float, negatives: int) -> Tensor:
    """Cross-entropy of row pairs (n, m), (n, m): the positive against the `negatives` most similar others, one way.

    Similarity is the cosine over `temperature`; rows with the anchor's label (n,) are no negatives. Paper 18.
    """
    similarity = F.normalize(anchors, dim=1) @ F.normalize(others, dim=1).T / temperature
    positive = similarity.diagonal()[:, None]
    hidden = similarity.masked_fill(labels[:, None] == labels[None, :], HIDDEN)
    hardest = hidden.topk(min(negatives, len(anchors)), dim=1).values
    logits = torch.cat([positive, hardest], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(anchors), dtype=torch.long, device=logits.device))


def known_positive_loss(queries: Tensor, documents: Tensor, relevant: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of queries (q, d) over documents (m, d), whose first q rows are the queries' own positives.

    `relevant` (q, m) bool marks every known positive; those of other rows are left out of the sum, the diagonal never
    is. Paper 19.
    """
    logits = queries @ documents.T / temperature
    own = torch.eye(len(queries), len(documents), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(relevant & ~own, HIDDEN)
    return F.cross_entropy(logits, torch.arange(len(queries), device=logits.device))
