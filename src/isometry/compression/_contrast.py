"""Losses on batches of embeddings that the learnt codes share. Needs torch."""

from __future__ import annotations

from collections.abc import Iterable

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


def hard_negative_loss(
    anchors: Tensor, others: Tensor, labels: Tensor, temperature: float, negatives: int, queue: CodeQueue | None = None
) -> Tensor:
    """Cross-entropy of row pairs (n, m), (n, m): the positive against the `negatives` most similar others, one way.

    Similarity is the cosine over `temperature`; rows with the anchor's label (n,) are no negatives. With a `queue` the
    hardest are looked for among its rows, too. Paper 18.
    """
    asked = F.normalize(anchors, dim=1)
    similarity = asked @ F.normalize(others, dim=1).T / temperature
    positive = similarity.diagonal()[:, None]
    hidden = similarity.masked_fill(labels[:, None] == labels[None, :], HIDDEN)
    if queue is not None and len(queue.labels):
        held = asked @ queue.codes.T / temperature
        hidden = torch.cat([hidden, held.masked_fill(labels[:, None] == queue.labels[None, :], HIDDEN)], dim=1)
    hardest = hidden.topk(min(negatives, hidden.shape[1]), dim=1).values
    logits = torch.cat([positive, hardest], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(anchors), dtype=torch.long, device=logits.device))


class CodeQueue:
    """The codes of the latest batches at length one (s, m), and their labels (s,): at most `size`, the oldest go first.

    They are made by a slow copy of the network (`follow`), so that codes of several batches ago still resemble those of
    now. Paper 18 takes a larger pool of negatives from such a queue; the details follow He et al., "Momentum Contrast for
    Unsupervised Visual Representation Learning", CVPR 2020, since that part of the paper was not seen (low confidence).
    """

    def __init__(self, size: int, width: int) -> None:
        self.size = size
        self.codes, self.labels = torch.empty(0, width), torch.empty(0, dtype=torch.long)

    def push(self, codes: Tensor, labels: Tensor) -> None:
        """Put rows (n, m) with their labels behind the others."""
        self.codes = torch.cat([self.codes, F.normalize(codes.detach(), dim=1)])[-self.size :]
        self.labels = torch.cat([self.labels, labels])[-self.size :]


@torch.no_grad()
def follow(slow: Iterable[Tensor], fast: Iterable[Tensor], momentum: float) -> None:
    """Every tensor of `slow` in place to momentum times itself and the rest of `fast`; whole numbers are taken over."""
    for one, other in zip(slow, fast, strict=True):
        if one.is_floating_point():
            one.lerp_(other, 1 - momentum)
        else:
            one.copy_(other)


def known_positive_loss(queries: Tensor, documents: Tensor, relevant: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of queries (q, d) over documents (m, d), whose first q rows are the queries' own positives.

    `relevant` (q, m) bool marks every known positive; those of other rows are left out of the sum, the diagonal never
    is. Paper 19.
    """
    logits = queries @ documents.T / temperature
    own = torch.eye(len(queries), len(documents), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(relevant & ~own, HIDDEN)
    return F.cross_entropy(logits, torch.arange(len(queries), device=logits.device))
