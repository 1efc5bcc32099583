"""A student's layers taught by a teacher's layers.

For distillation from scores use sentence-transformers' `DistillKLDivLoss` (KL) and `MarginMSELoss` (margins), or the
soft labels of `InfoNCE`; from final vectors its `EmbedDistillLoss`. It has nothing for the layers between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.encoders.text import exit_vectors, layer_count
from isometry.errors import InputError


class LayerDistillationLoss(nn.Module):
    """mean over layer pairs of 1 - cos(W_k s_i, t_j), s_i, t_j the pooled vectors of their layers.

    Args:
        model: the student.
        teacher: a frozen SentenceTransformer over the same tokenizer.
        pairs: (student layer, teacher layer) pairs. Default: the student's layers spread evenly over the teacher's,
            last on last.

    W_k is the identity where both have the same width, else a linear map trained along with the student.
    """

    def __init__(self, model: Any, teacher: Any, pairs: tuple[tuple[int, int], ...] | None = None) -> None:
        super().__init__()
        if model.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise InputError("layer distillation reads the same tokens through both models; their tokenizers differ")
        mine, theirs = layer_count(model), layer_count(teacher)
        self.pairs = tuple(pairs or ((i, round(i * theirs / mine)) for i in range(1, mine + 1)))
        for i, j in self.pairs:
            if not (1 <= i <= mine and 1 <= j <= theirs):
                raise InputError(
                    f"layer pair ({i}, {j}) is outside the student's {mine} and the teacher's {theirs} layers"
                )
        self.model = model
        self._teacher = [teacher.eval()]
        width, target = model.get_embedding_dimension(), teacher.get_embedding_dimension()
        same = width == target
        self.maps = nn.ModuleList(nn.Identity() if same else nn.Linear(width, target, bias=False) for _ in self.pairs)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        terms = []
        teacher = self._teacher[0]
        for column in sentence_features:
            student = exit_vectors(self.model, column, {i for i, _ in self.pairs})
            with torch.no_grad():
                inputs = {k: v.to(teacher.device) if isinstance(v, Tensor) else v for k, v in column.items()}
                target = exit_vectors(teacher, inputs, {j for _, j in self.pairs})
            for (i, j), project in zip(self.pairs, self.maps, strict=True):
                terms.append(1 - F.cosine_similarity(project(student[i]), target[j].to(student[i].device)).mean())
        return torch.stack(terms).mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {"pairs": [list(pair) for pair in self.pairs]}
