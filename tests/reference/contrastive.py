"""Slow, plain contrastive losses written from the equations of papers 05, 06, 42 and 55: one row at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(columns: list[Tensor], temperature: float, in_batch=True, hard="shared", gamma=0.0) -> Tensor:
    """Query to documents, with or without in-batch and shared hard negatives, focal weights as constants."""
    q, p, *ns = [F.normalize(c, dim=-1) for c in columns]
    losses = []
    for i in range(len(q)):
        positive = torch.exp(q[i] @ p[i] / temperature)
        total = positive
        for j in range(len(q)):
            if j != i and in_batch:
                total = total + torch.exp(q[i] @ p[j] / temperature)
            if j == i or hard == "shared":
                for n in ns:
                    total = total + torch.exp(q[i] @ n[j] / temperature)
        probability = positive / total
        losses.append(-torch.log(probability) * (1 - probability.detach()) ** gamma)
    return torch.stack(losses).mean()


def guided(columns: list[Tensor], guides: list[Tensor], temperature: float, margin=0.0) -> Tensor:
    """Paper 55's joint loss over QP, QN, QQ, PP; own items never meet themselves."""
    q, p, *ns = [F.normalize(c, dim=-1) for c in columns]
    gq, gp, *gns = [F.normalize(c, dim=-1) for c in guides]
    losses = []
    for i in range(len(q)):
        threshold = gq[i] @ gp[i] - margin
        positive = torch.exp(q[i] @ p[i] / temperature)
        total = positive
        for j in range(len(q)):
            for n, gn in zip(ns, gns, strict=True):
                if gq[i] @ gn[j] <= threshold:
                    total = total + torch.exp(q[i] @ n[j] / temperature)
            if j == i:
                continue
            if gq[i] @ gp[j] <= threshold:
                total = total + torch.exp(q[i] @ p[j] / temperature)
            if gq[i] @ gq[j] <= threshold:
                total = total + torch.exp(q[i] @ q[j] / temperature)
            if gp[i] @ gp[j] <= threshold:
                total = total + torch.exp(p[i] @ p[j] / temperature)
        losses.append(-torch.log(positive / total))
    return torch.stack(losses).mean()
