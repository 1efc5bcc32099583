"""A linear head for the fine stage, trained on batches that somebody else composed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from sklearn.utils.validation import check_is_fitted

from isometry.compression._base import SavedEstimator
from isometry.compression.locality import PairBatch
from isometry.errors import MissingExtraError, ShapeError


class FineHead(SavedEstimator):
    """v = (x + A x) / |x + A x| for queries and documents alike, A zero at the start: the dense vectors that re-rank.

    Paper: 19 (BiDR), stages 0 and 2; with random batches it is the global dense encoder, with locality-centric batches
    the local one. Departs from it: a head on frozen embeddings of length one instead of a transformer, hence a
    temperature.

    Args:
        temperature, learning_rate, epochs, random_state: of the training (AdamW, linear decay).
    """

    def __init__(
        self, *, temperature: float = 0.05, learning_rate: float = 1e-3, epochs: int = 5, random_state: int = 0
    ) -> None:
        self.temperature = temperature
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X: np.ndarray, queries: np.ndarray, batches: Callable[[int], Iterable[PairBatch]]) -> FineHead:
        """Learn from documents X (n, d) and queries (m, d); `batches(epoch)` gives the row numbers of each batch."""
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("FineHead", "text") from error
        from isometry.compression._contrast import known_positive_loss

        X, queries = (np.ascontiguousarray(a, dtype=np.float32) for a in (X, queries))
        if X.ndim != 2 or queries.ndim != 2 or X.shape[1] != queries.shape[1]:
            raise ShapeError(f"documents {X.shape} and queries {queries.shape} must have the same dimension.")
        if not (np.isfinite(X).all() and np.isfinite(queries).all()):
            raise ShapeError("documents or queries hold NaN or infinity; encode them again.")
        self.n_features_in_ = X.shape[1]
        weight = torch.zeros((X.shape[1], X.shape[1]), requires_grad=True)
        optimiser = torch.optim.AdamW([weight], lr=self.learning_rate, weight_decay=0.01)
        documents, asked = torch.from_numpy(X), torch.from_numpy(queries)

        def through(rows: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(rows + rows @ weight.T, dim=1)

        for epoch in range(self.epochs):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * (1 - epoch / self.epochs)
            for batch in batches(epoch):
                rows = torch.from_numpy(np.concatenate([batch.positives, batch.negatives]))
                relevant = rows[: len(batch.queries), None] == rows[None, :]
                q, v = through(asked[torch.from_numpy(batch.queries)]), through(documents[rows])
                loss = known_positive_loss(q, v, relevant, self.temperature)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        self.weight_ = weight.detach().numpy().copy()
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Vectors (n, d) to vectors (n, d) of length one."""
        check_is_fitted(self)
        X = np.ascontiguousarray(X, dtype=np.float32)
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise ShapeError(f"vectors have shape {X.shape}; this head takes (n, {self.n_features_in_}).")
        out = X + X @ self.weight_.T
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
