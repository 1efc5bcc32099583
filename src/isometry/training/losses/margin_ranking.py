"""Hinge on similarity: every negative must stay a margin below the positive. Paper 48 (margin .1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.errors import InputError


class MarginRankingLoss(nn.Module):
    """mean over rows and negatives of max(0, margin + cos(q, n) - cos(q, p)); columns (query, positive, negatives…).

    sentence-transformers' TripletLoss is a margin on distances and takes one negative. The paper prints the sign of
    the two similarities ambiguously; this is the orientation that pulls the positive in.
    """

    def __init__(self, model: Any = None, margin: float = 0.1) -> None:
        super().__init__()
        self.model, self.margin = model, margin

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        return self.compute_loss_from_embeddings(embed_columns(self.model, sentence_features), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        if len(embeddings) < 3:
            raise InputError(
                f"a margin needs a query, a positive and a negative column; got {len(embeddings)} column(s)"
            )
        query, positive, *negatives = (F.normalize(column, dim=-1) for column in embeddings)
        near = (query * positive).sum(dim=-1, keepdim=True)
        far = torch.stack([(query * negative).sum(dim=-1) for negative in negatives], dim=1)
        return F.relu(self.margin + far - near).mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {"margin": self.margin}
