"""Training one encoder for all sizes of a ladder: the fixed ladder of paper 03, the sampled one of paper 23, and ESE.

A base loss is any loss with `compute_loss_from_embeddings(embeddings, labels)`, ours or sentence-transformers'. All
sizes come from one forward pass (`exit_vectors`). sentence-transformers has `Matryoshka2dLoss` (a sampled layer at all
widths, teacher detached, embedding output among the layers); use it for that recipe. These are the ones it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.encoders.text import Ladder, Size, exit_vectors, geometric_widths, layer_count
from isometry.errors import InputError
from isometry.training.losses.functional import coordinate_kl, cosine_matrix, kl_between_scores
from isometry.training.losses.masks import duplicate_keys


class LadderLoss(nn.Module):
    """The sum of a base loss over all sizes of a fixed ladder, each pulled towards the full size (paper 03, SRL).

        l(full) + sum over the other sizes of weight * [ l(size) + kl_weight * KL(full || size) ]

    Args:
        model: the SentenceTransformer.
        loss: the base loss.
        ladder: its last rung is the model's full size.
        kl_weight: .3 is the published STS code's (its retrieval code uses 1); 0 leaves the term out.
        kl_on: "coordinates" = softmax over the pooled vector's coordinates (the paper's STS code); "scores" = softmax
            over the cosines of queries with the batch's documents, which does not depend on the axes.
        kl_temperature: 1 in the paper for coordinates; for scores give the base loss's temperature.
        detach_teacher: the full size is a constant in the KL. The published STS code lets it move; later versions of
            the same idea elsewhere detach, and so does this by default.
    """

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        ladder: Ladder,
        kl_weight: float = 0.3,
        kl_on: Literal["coordinates", "scores"] = "coordinates",
        kl_temperature: float = 1.0,
        detach_teacher: bool = True,
    ) -> None:
        super().__init__()
        if kl_on not in ("coordinates", "scores"):
            raise InputError(f"kl_on is 'coordinates' or 'scores', not '{kl_on}'")
        _check_base(loss)
        ladder.check(layer_count(model), model.get_embedding_dimension())
        self.model, self.loss, self.ladder = model, loss, ladder
        self.kl_weight, self.kl_on, self.kl_temperature = kl_weight, kl_on, kl_temperature
        self.detach_teacher = detach_teacher

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        features = list(sentence_features)
        exits = [exit_vectors(self.model, column, self.ladder.layers) for column in features]
        full = [column[self.ladder.full.layers] for column in exits]
        keys = duplicate_keys(features)
        total = self.ladder.full.weight * _base(self.loss, full, labels, keys)
        for size in self.ladder.parts:
            small = [column[size.layers][:, : size.dimensions] for column in exits]
            part = _base(self.loss, small, labels, keys)
            if self.kl_weight:
                part = part + self.kl_weight * self._divergence(full, small, size)
            total = total + size.weight * part
        return total

    def _divergence(self, full: list[Tensor], small: list[Tensor], size: Size) -> Tensor:
        if self.kl_on == "coordinates":
            teacher = torch.cat(full)[:, : size.dimensions]
            return coordinate_kl(torch.cat(small), teacher, self.kl_temperature, self.detach_teacher)
        scores = cosine_matrix(full[0], torch.cat(full[1:]))
        guess = cosine_matrix(small[0], torch.cat(small[1:]))
        return kl_between_scores(guess, scores, self.kl_temperature, self.kl_temperature).mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "loss": type(self.loss).__name__,
            "sizes": [[size.layers, size.dimensions, size.weight] for size in self.ladder],
            "kl_weight": self.kl_weight,
            "kl_on": self.kl_on,
            "kl_temperature": self.kl_temperature,
            "detach_teacher": self.detach_teacher,
        }

    @property
    def citation(self) -> str:
        return """
@misc{zhuang2024starbucks,
    title={Starbucks: Improved Training for 2D Matryoshka Embeddings},
    author={Shengyao Zhuang and Shuai Wang and Fabio Zheng and Bevan Koopman and Guido Zuccon},
    year={2024},
    eprint={2410.13230},
    archivePrefix={arXiv}
}
"""


class SampledSizeLoss(nn.Module):
    """The step of paper 23 (2DMSE): one random layer n below the last and one random width d of a geometric list.

        [ l(v_N) + l(v_N[:d]) ] + [ l(v_n) + l(v_n[:d]) ] + KL(v_N || v_n)

    Args:
        model, loss: see `LadderLoss`.
        widths: the list to draw d from (default 8, 16, 32, …, below the full width).
        kl_weight / kl_temperature: of the term over coordinates (1 and 1 in the paper).
        depth_weight: "one" for the paper's equal weights, "inverse" for its first code (shallow terms divided by n).
        seed: of the sequence of (n, d).
    """

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        widths: tuple[int, ...] | None = None,
        kl_weight: float = 1.0,
        kl_temperature: float = 1.0,
        depth_weight: Literal["one", "inverse"] = "one",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_base(loss)
        self.model, self.loss = model, loss
        self.layers, self.dimension = layer_count(model), int(model.get_embedding_dimension())
        self.widths = tuple(widths or geometric_widths(self.dimension)[:-1] or (self.dimension,))
        if self.layers < 2 or max(self.widths) > self.dimension:
            raise InputError(f"2D sampling needs two layers and widths within {self.dimension} dimensions")
        if depth_weight not in ("one", "inverse"):
            raise InputError(f"depth_weight is 'one' or 'inverse', not '{depth_weight}'")
        self.kl_weight, self.kl_temperature, self.depth_weight = kl_weight, kl_temperature, depth_weight
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Size:
        """The next (layer, width)."""
        layer = int(torch.randint(1, self.layers, (1,), generator=self.generator))
        width = self.widths[int(torch.randint(len(self.widths), (1,), generator=self.generator))]
        return Size(layer, width)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        features = list(sentence_features)
        size = self.draw()
        exits = [exit_vectors(self.model, column, (size.layers, self.layers)) for column in features]
        keys = duplicate_keys(features)
        deep = [column[self.layers] for column in exits]
        shallow = [column[size.layers] for column in exits]
        share = 1.0 if self.depth_weight == "one" else 1.0 / size.layers
        total = _base(self.loss, deep, labels, keys) + share * _base(self.loss, shallow, labels, keys)
        if size.dimensions < self.dimension:
            total = total + _base(self.loss, _cut(deep, size.dimensions), labels, keys)
            total = total + share * _base(self.loss, _cut(shallow, size.dimensions), labels, keys)
        if self.kl_weight:
            total = total + self.kl_weight * coordinate_kl(torch.cat(shallow), torch.cat(deep), self.kl_temperature)
        return total

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "loss": type(self.loss).__name__,
            "widths": list(self.widths),
            "kl_weight": self.kl_weight,
            "kl_temperature": self.kl_temperature,
            "depth_weight": self.depth_weight,
        }


class EspressoLoss(nn.Module):
    """Every layer at one fixed width, each also aligned with a compressed target (paper 23's later version, ESE).

        l(v_N) + c(v_N) + mean_i c(v_i) / (1 + ln(1 + i)),   c(v) = l(v[:k]) + align(v[:k], C_k(v))

    where align(x, y) = MSE(x, y) + KL(softmax(y) || softmax(x)) and C_k is `compressed_target`, a constant.

    Args:
        model, loss: see `LadderLoss`.
        width: k (128 in the paper).
        layers: the exits i; default all below the last (the published code counts the embedding output in and leaves
            the last but one out by an off-by-one).
        align_weight: 0 leaves the alignment out.
    """

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        width: int = 128,
        layers: tuple[int, ...] | None = None,
        align_weight: float = 1.0,
    ) -> None:
        super().__init__()
        _check_base(loss)
        self.model, self.loss, self.width, self.align_weight = model, loss, width, align_weight
        self.last = layer_count(model)
        self.layers = tuple(layers or range(1, self.last))
        if not 1 <= width <= model.get_embedding_dimension():
            raise InputError(
                f"the width {width} is not within the model's {model.get_embedding_dimension()} dimensions"
            )

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        features = list(sentence_features)
        exits = [exit_vectors(self.model, column, (*self.layers, self.last)) for column in features]
        keys = duplicate_keys(features)
        deep = [column[self.last] for column in exits]
        total = _base(self.loss, deep, labels, keys) + self._compressed(deep, labels, keys)
        for layer in self.layers:
            part = self._compressed([column[layer] for column in exits], labels, keys)
            total = total + part / (1 + math.log(1 + layer)) / len(self.layers)
        return total

    def _compressed(self, vectors: list[Tensor], labels: Tensor | None, keys: list[Tensor] | None) -> Tensor:
        small = _cut(vectors, self.width)
        loss = _base(self.loss, small, labels, keys)
        if self.align_weight:
            joined = torch.cat(vectors)
            guess, target = joined[:, : self.width], compressed_target(joined, self.width)
            loss = loss + self.align_weight * (F.mse_loss(guess, target) + coordinate_kl(guess, target))
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "loss": type(self.loss).__name__,
            "width": self.width,
            "layers": list(self.layers),
            "align_weight": self.align_weight,
        }


def compressed_target(vectors: Tensor, width: int) -> Tensor:
    """C_k(M) = M U diag(s): the batch `(n, D)` on k singular directions of softmax(M^T M / sqrt(D)), `(n, k)`.

    Paper 23 (ESE), without gradient. The paper takes a randomised decomposition; this one is exact.
    """
    with torch.no_grad():
        wide = vectors.detach().float()
        relation = torch.softmax(wide.T @ wide / math.sqrt(wide.shape[1]), dim=-1)
        directions, strengths, _ = torch.linalg.svd(relation)
        return (wide @ directions[:, :width] * strengths[:width]).to(vectors.dtype)


def _cut(vectors: list[Tensor], width: int) -> list[Tensor]:
    return [column[:, :width] for column in vectors]


def _base(loss: nn.Module, vectors: list[Tensor], labels: Tensor | None, keys: list[Tensor] | None) -> Tensor:
    if getattr(loss, "mask_duplicates", False):
        return loss.compute_loss_from_embeddings(vectors, labels, keys=keys)
    return loss.compute_loss_from_embeddings(vectors, labels)


def _check_base(loss: nn.Module) -> None:
    if not hasattr(loss, "compute_loss_from_embeddings") or getattr(loss, "uses_gradient_cache", False):
        raise InputError(
            f"{type(loss).__name__} is no base loss here: it lacks compute_loss_from_embeddings or caches gradients"
        )
    if getattr(loss, "_guide", None):
        raise InputError("a guide model inside a size loss is not supported; give guide vectors as labels instead")
