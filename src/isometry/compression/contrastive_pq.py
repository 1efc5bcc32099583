"""Product quantisation whose codebook learns to rank: the coarse stage of paper 19."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from isometry.compression._base import CodeEstimator
from isometry.compression.product import ProductQuantizer
from isometry.errors import InputError, MissingExtraError, ShapeError
from isometry.types import Scorer


class ContrastivePQ(CodeEstimator):
    """Codebook (and a linear head) trained so that coded documents rank as their queries want.

    Paper: 19 (BiDR), stage 1. Documents are coded by hard assignment to the nearest centroid of each part, with the
    gradient of the softmax over negative squared distances; queries stay floats. The loss is the cross-entropy of the
    float pair plus that of the query and the coded document over the batch, plus `reconstruction` times the squared
    coding error. Other known positives of a query are left out.

    Departs from it: embeddings come frozen, so a linear head (the identity at the start) shared by queries and
    documents stands for the encoder, without the layer norm; vectors have length one, so the temperature is 0.05
    instead of 1; the coding error is taken in the rotated space.

    Args:
        subvectors: parts (bytes of a code); None for one for every eight coordinates.
        rotate: start from OPQ (rotation kept frozen) instead of plain PQ.
        start: "pq" from the faiss codebook, "random" from uniform numbers in ±0.1.
        head: train the linear head.
        temperature, reconstruction, epochs, batch_size, learning_rate, random_state: of the training.
    """

    def __init__(
        self,
        subvectors: int | None = None,
        *,
        rotate: bool = True,
        start: str = "pq",
        head: bool = True,
        temperature: float = 0.05,
        reconstruction: float = 0.0,
        epochs: int = 5,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.subvectors = subvectors
        self.rotate = rotate
        self.start = start
        self.head = head
        self.temperature = temperature
        self.reconstruction = reconstruction
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    @property
    def bytes_per_vector(self) -> int:
        return int(self.centroids_.shape[0])

    def fit(
        self,
        X: np.ndarray,
        y: Any = None,
        *,
        documents: np.ndarray | None = None,
        start_from: ProductQuantizer | None = None,
    ) -> ContrastivePQ:
        """Learn from documents X (n, d) and their queries y (m, d).

        Args:
            y: query vectors; None lets every document ask for itself.
            documents: (m,) row of X that answers each query; None pairs row by row. Queries of one document share it.
            start_from: a product quantiser fitted on X with the same parts, instead of fitting one here.
        Raises: ShapeError, InputError.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("ContrastivePQ", "text") from error
        if self.start not in ("pq", "random"):
            raise InputError(f"start is {self.start!r}; choose 'pq' or 'random'.")
        X = self._check(X, reset=True)
        parts = max(1, X.shape[1] // 8) if self.subvectors is None else self.subvectors
        if X.shape[1] % parts:
            raise InputError(f"{parts} subvectors do not divide {X.shape[1]} coordinates; choose a divisor.")
        queries = X if y is None else np.ascontiguousarray(y, dtype=np.float32)
        target = np.arange(len(queries)) if documents is None else np.asarray(documents)
        if queries.ndim != 2 or queries.shape[1] != X.shape[1] or target.shape != (len(queries),):
            raise ShapeError(
                f"queries have shape {queries.shape}; give (m, {X.shape[1]}) and one document row for each."
            )
        if not np.isfinite(queries).all() or target.min() < 0 or target.max() >= len(X):
            raise ShapeError("queries hold NaN or infinity, or name document rows that are not there.")
        d = X.shape[1]
        base = start_from
        if base is None and (self.start == "pq" or self.rotate):
            base = ProductQuantizer(parts, rotate=self.rotate, random_state=self.random_state).fit(X)
        rotation = np.eye(d, dtype=np.float32) if base is None or base.rotation_ is None else base.rotation_
        draw = torch.Generator().manual_seed(self.random_state)
        if self.start == "pq" and base is not None:
            codebook = torch.from_numpy(base.centroids_.copy())
        else:
            codebook = torch.rand((parts, 256, d // parts), generator=draw) * 0.2 - 0.1
            rotation = np.eye(d, dtype=np.float32)
        weight = torch.eye(d)
        self._train(codebook, weight, torch.from_numpy(rotation.copy()), X, queries, target, draw)
        self.centroids_ = codebook.detach().numpy().copy()
        self.transform_ = (weight.detach().numpy().T @ rotation).astype(np.float32)
        return self

    def _train(self, codebook, weight, rotation, X, queries, target, draw) -> None:  # type: ignore[no-untyped-def]
        import torch

        from isometry.compression._contrast import known_positive_loss

        codebook.requires_grad_(True)
        weight.requires_grad_(self.head)
        learnt = [codebook, weight] if self.head else [codebook]
        steps = self.epochs * -(-len(queries) // self.batch_size)
        optimiser = torch.optim.AdamW(learnt, lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / max(1, steps)))
        vectors, asked, answers = (torch.from_numpy(np.ascontiguousarray(a)) for a in (X, queries, target))
        for _ in range(self.epochs):
            order = torch.randperm(len(asked), generator=draw)
            for at in range(0, len(asked), self.batch_size):
                rows = order[at : at + self.batch_size]
                if len(rows) < 2:
                    continue
                relevant = answers[rows][:, None] == answers[rows][None, :]
                q = asked[rows] @ weight.T @ rotation
                v = vectors[answers[rows]] @ weight.T @ rotation
                coded = quantise_straight_through(v, codebook)
                loss = known_positive_loss(q, v, relevant, self.temperature)
                loss = loss + known_positive_loss(q, coded, relevant, self.temperature)
                if self.reconstruction:
                    loss = loss + self.reconstruction * ((v - coded) ** 2).sum(dim=1).mean()
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learnt, 1.0)
                optimiser.step()
                schedule.step()

    def turned(self, X: np.ndarray) -> np.ndarray:
        """Vectors (n, d) through head and rotation, in the space of the centroids."""
        check_is_fitted(self)
        return self._check(X, reset=False) @ self.transform_

    def as_product_quantizer(self) -> ProductQuantizer:
        """The codebook as a ProductQuantizer of `turned` vectors, for faiss' indexes and kernels."""
        plain = ProductQuantizer(self.centroids_.shape[0])
        plain.centroids_, plain.rotation_ = self.centroids_, None
        plain.n_features_in_ = self.transform_.shape[1]
        return plain

    def _encode(self, X: np.ndarray) -> np.ndarray:
        return self.as_product_quantizer().faiss_quantiser().compute_codes(np.ascontiguousarray(X @ self.transform_))

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        turned = self.as_product_quantizer().faiss_quantiser().decode(codes)
        return np.linalg.lstsq(self.transform_.T, turned.T, rcond=None)[0].T.astype(np.float32)

    def scorer(self, queries: np.ndarray) -> Scorer:
        """Inner products of queries and coded documents, both through the learnt head."""
        turned = self.turned(queries)
        quantiser = self.as_product_quantizer().faiss_quantiser()

        def score(codes: np.ndarray) -> np.ndarray:
            return turned @ quantiser.decode(self._check_codes(codes)).T

        return score


def quantise_straight_through(v, codebook):  # type: ignore[no-untyped-def]
    """Vectors (n, d) to the centroids nearest in each part, with the gradient of the softmax selection.

    codebook (parts, 256, d / parts). Forward is exactly the hard choice.
    """
    import torch

    parts, count, width = codebook.shape
    pieces = v.reshape(len(v), parts, width).transpose(0, 1)
    distances = (
        (pieces**2).sum(-1, keepdim=True) - 2 * pieces @ codebook.transpose(1, 2) + (codebook**2).sum(-1)[:, None]
    )
    soft = torch.softmax(-distances, dim=-1)
    hard = torch.nn.functional.one_hot(distances.argmin(dim=-1), count).to(soft.dtype)
    chosen = hard - soft.detach() + soft
    return (chosen @ codebook).transpose(0, 1).reshape(v.shape)
