"""Bits that code what earlier bits left over, learnt from embeddings alone."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from isometry.compression._base import CodeEstimator
from isometry.compression.sign import random_rotation
from isometry.errors import InputError, MissingExtraError, ShapeError
from isometry.types import Scorer

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 8192


class RecurrentBinary(CodeEstimator):
    """Recurrent binary embedding: `loops + 1` bits for each of `dimension` coordinates, and the code's length.

    Paper: 18 (BEBR), its ancestor arXiv:1802.06466. With rho = sign, m = dimension, u = loops:
    b = rho(W(x)); then u times f = B(b)/|B(b)|, b += 2^-(i+1) rho(R(x - f)). W, B, R are `blocks` times
    Linear-BatchNorm-ReLU and a Linear; the batch norms are folded into the linears when training ends, so that coding
    is plain numpy.

    A code is u + 1 bit planes (signs, first coordinate in the highest bit, plane after plane) and 1/|b| as float16.
    `symmetric_scorer` is the cosine of two codes (the paper's distance). `scorer` is asymmetric: the float query
    against a linear reconstruction fitted by least squares after training, an addition of ours, as is AdamW as default
    optimiser. Paper values: dimension 512, hidden 2048, blocks 1, loops 1, "sgd" with learning rate 0.08 and batches of
    2048 pairs.

    Args:
        dimension: coordinates m; None for those of the vectors.
        loops: residual loops u; 0 is the plain learnt hash.
        hidden: width of hidden layers; 0 makes every block one linear layer.
        blocks: hidden layers in each of W, B and R.
        temperature, negatives: of the loss over the positive and the hardest other rows of the batch.
        epochs, batch_size: passes over the pairs, pairs in a batch.
        optimiser: "adamw" or "sgd" (Nesterov 0.9); the rate falls tenfold after 60 % of the epochs.
        learning_rate, weight_decay: of the optimiser; biases and norms do not decay.
        random_state: seed of start values and batches.
    """

    def __init__(
        self,
        dimension: int | None = None,
        *,
        loops: int = 1,
        hidden: int = 1024,
        blocks: int = 1,
        temperature: float = 0.05,
        negatives: int = 5,
        epochs: int = 10,
        batch_size: int = 1024,
        optimiser: str = "adamw",
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.dimension = dimension
        self.loops = loops
        self.hidden = hidden
        self.blocks = blocks
        self.temperature = temperature
        self.negatives = negatives
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimiser = optimiser
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    @property
    def bytes_per_vector(self) -> int:
        return (self.loops + 1) * ((self._width + 7) // 8) + 2

    @property
    def _width(self) -> int:
        return self.n_features_in_ if self.dimension is None else self.dimension

    def fit(self, X: np.ndarray, y: Any = None, *, labels: np.ndarray | None = None) -> RecurrentBinary:
        """Learn from pairs of rows (X[i], y[i]) that belong together.

        Args:
            y: partners (n, d), e.g. the clicked document of a query; None pairs every row with its nearest other row.
            labels: (n,) integers; rows with equal labels are never each other's negatives.
        Raises: ShapeError, InputError, ValueError for NaN.
        """
        X = self._check(X, reset=True)
        return self._fit(X, self._partners(X, y), labels, None)

    def fit_compatible(
        self, X: np.ndarray, y: Any, old: RecurrentBinary, old_X: np.ndarray, old_y: np.ndarray,
        *, labels: np.ndarray | None = None,
    ) -> RecurrentBinary:  # fmt: skip
        """As `fit`, with codes that can be searched beside those of `old` in one index (backward-compatible training).

        Args:
            old: the fitted code of the older embeddings. old_X, old_y: older embeddings of the same items as X and y.
        A wider new code is compared with the old one by its first coordinates.
        """
        X = self._check(X, reset=True)
        if self._width < old._width or self.loops != old.loops:
            wanted = f"at least {old._width} coordinates and {old.loops} loops"
            raise InputError(f"the new code has {self._width} coordinates and {self.loops} loops; it needs {wanted}.")
        before = (old.values(old_X), old.values(old_y))
        if len(before[0]) != len(X) or len(before[1]) != len(X):
            raise ShapeError(f"the older embeddings have {len(before[0])} and {len(before[1])} rows for {len(X)} new.")
        return self._fit(X, self._partners(X, y), labels, before)

    def values(self, X: np.ndarray) -> np.ndarray:
        """The recurrent binary vectors b (n, m) float32 of vectors (n, d)."""
        check_is_fitted(self)
        X = self._check(X, reset=False)
        return np.concatenate([self._bits(X[at : at + _ROWS]) for at in range(0, len(X), _ROWS)])

    def symmetric_scorer(self, queries: np.ndarray) -> Scorer:
        """Queries (q, d) to a function from codes (m, b) to the cosines of query codes and codes (q, m) float32."""
        values = self.values(queries)
        values /= np.linalg.norm(values, axis=1, keepdims=True)

        def score(codes: np.ndarray) -> np.ndarray:
            return values @ self._unit(self._check_codes(codes)).T

        return score

    def query_values(self, queries: np.ndarray) -> np.ndarray:
        """Queries (q, d) as vectors (q, m) whose product with b/|b| is the asymmetric score less a constant."""
        check_is_fitted(self)
        return self._check(queries, reset=False) @ self.decoder_.T

    def scorer(self, queries: np.ndarray) -> Scorer:
        values = self.query_values(queries)
        constant = (np.asarray(queries, np.float32) @ self.offset_)[:, None]

        def score(codes: np.ndarray) -> np.ndarray:
            return values @ self._unit(self._check_codes(codes)).T + constant

        return score

    def planes(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes (n, b) as bit planes (n, u + 1, bytes) uint8 and inverse lengths 1/|b| (n,) float32."""
        codes = self._check_codes(codes)
        inverse = np.ascontiguousarray(codes[:, -2:]).view(np.float16).astype(np.float32)[:, 0]
        return codes[:, :-2].reshape(len(codes), self.loops + 1, -1), inverse

    def _encode(self, X: np.ndarray) -> np.ndarray:
        b = self.values(X)
        length = np.linalg.norm(b, axis=1)
        planes = []
        rest = b.copy()
        for plane in range(self.loops + 1):
            positive = rest >= 0
            rest -= np.where(positive, 1, -1) * np.float32(2.0**-plane)
            planes.append(np.packbits(positive, axis=1))
        planes.append((1 / length).astype(np.float16)[:, None].view(np.uint8))
        return np.concatenate(planes, axis=1)

    def _unit(self, codes: np.ndarray) -> np.ndarray:
        planes, inverse = self.planes(codes)
        b = np.zeros((len(codes), self._width), np.float32)
        for plane in range(self.loops + 1):
            signs = np.unpackbits(np.ascontiguousarray(planes[:, plane]), axis=1, count=self._width)
            b += (signs.astype(np.float32) * 2 - 1) * np.float32(2.0**-plane)
        return b * inverse[:, None]

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        return self._unit(codes) @ self.decoder_ + self.offset_

    def _partners(self, X: np.ndarray, y: Any) -> np.ndarray:
        if y is None:
            return X[_nearest_other(X)]
        y = np.ascontiguousarray(y, dtype=np.float32)
        if y.shape != X.shape or not np.isfinite(y).all():
            raise ShapeError(f"partners have shape {y.shape} for vectors {X.shape}; give finite rows, pair by pair.")
        return y

    def _bits(self, X: np.ndarray) -> np.ndarray:
        b = np.where(self._block("w", X) >= 0, np.float32(1), np.float32(-1))
        for loop in range(self.loops):
            f = self._block(f"b{loop}", b)
            f /= np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
            b += np.where(self._block(f"r{loop}", X - f) >= 0, np.float32(1), np.float32(-1)) * np.float32(
                2.0 ** -(loop + 1)
            )
        return b

    def _block(self, name: str, X: np.ndarray) -> np.ndarray:
        depth = self.blocks if self.hidden else 0
        for layer in range(depth + 1):
            X = X @ self.weights_[f"{name}.{layer}.weight"].T + self.weights_[f"{name}.{layer}.bias"]
            if layer < depth:
                X = np.maximum(X, 0)
        return X

    def _fit(
        self, X: np.ndarray, y: np.ndarray, labels: np.ndarray | None, before: tuple[np.ndarray, np.ndarray] | None
    ) -> RecurrentBinary:
        if self.loops < 0 or self.hidden < 0 or self.blocks < 1 or self._width < 1 or self.epochs < 1:
            raise InputError("dimension, blocks and epochs must be at least 1, loops and hidden at least 0.")
        if self.optimiser not in ("adamw", "sgd"):
            raise InputError(f"optimiser is {self.optimiser!r}; choose 'adamw' or 'sgd'.")
        if len(X) < 4:
            raise InputError(f"{len(X)} pairs are too few to learn a code from; give at least 4.")
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("RecurrentBinary", "text") from error
        names = np.arange(len(X)) if labels is None else np.asarray(labels)
        if names.shape != (len(X),):
            raise ShapeError(f"labels have shape {names.shape} for {len(X)} rows; give one integer a row.")
        _, numbered = np.unique(names, return_inverse=True)
        network = _Network(self, X.shape[1], self._width)
        if not self.hidden:
            network.start_from(X[: 4 * self.batch_size], self.random_state)
        _train(self, network, torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(numbered), before)
        self.weights_ = network.exported()
        rows = X[np.random.default_rng(self.random_state).permutation(len(X))[:50_000]]
        b = self._bits(rows)
        unit = (b / np.linalg.norm(b, axis=1, keepdims=True)).astype(np.float64)
        middle = unit.mean(axis=0)
        ridge = (unit - middle).T @ (unit - middle) + np.eye(self._width) * (1e-3 * len(rows) / self._width)
        decoder = np.linalg.solve(ridge, (unit - middle).T @ rows)
        self.decoder_ = decoder.astype(np.float32)
        self.offset_ = (rows.mean(axis=0) - middle @ decoder).astype(np.float32)
        return self


class _Network:
    """The blocks W, B_i, R_i in torch while they are trained."""

    def __init__(self, head: RecurrentBinary, inputs: int, width: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(head.random_state)
        depth = head.blocks if head.hidden else 0

        def block(before: int, after: int) -> torch.nn.Sequential:
            sizes = [before, *[head.hidden] * depth, after]
            layers: list[torch.nn.Module] = []
            for i, (a, b) in enumerate(pairwise(sizes)):
                linear = torch.nn.Linear(a, b)
                torch.nn.init.xavier_normal_(linear.weight, generator=generator)
                torch.nn.init.zeros_(linear.bias)
                layers.append(linear)
                if i < depth:
                    layers += [torch.nn.BatchNorm1d(b), torch.nn.ReLU()]
            return torch.nn.Sequential(*layers)

        self.loops = head.loops
        self.blocks = torch.nn.ModuleDict({"w": block(inputs, width)})
        for loop in range(head.loops):
            self.blocks[f"b{loop}"] = block(width, inputs)
            self.blocks[f"r{loop}"] = block(inputs, width)

    def start_from(self, X: np.ndarray, seed: int) -> None:
        """Begin as untrained residual signs of a random rotation, each B the least-squares way back to X (n, d)."""
        import torch

        inputs, width = X.shape[1], self.blocks["w"][0].out_features
        draw = np.random.RandomState(seed)
        turns = np.concatenate([random_rotation(inputs, draw) for _ in range(-(-width // inputs))], axis=1)[:, :width]
        rest = X
        b = np.zeros((len(X), width), np.float32)
        for loop in range(self.loops + 1):
            block = self.blocks["w" if loop == 0 else f"r{loop - 1}"][0]
            spread = 1 / max(float((rest @ turns).std()), 1e-9)
            block.weight.data = torch.from_numpy(np.ascontiguousarray(turns.T) * np.float32(spread))
            block.bias.data = torch.from_numpy((-(rest.mean(axis=0) @ turns) * spread).astype(np.float32))
            b += np.where((rest - rest.mean(axis=0)) @ turns >= 0, 1, -1).astype(np.float32) * np.float32(2.0**-loop)
            if loop < self.loops:
                known = np.concatenate([b, np.ones((len(b), 1), np.float32)], axis=1).astype(np.float64)
                back = np.linalg.solve(known.T @ known + len(b) * 1e-3 * np.eye(width + 1), known.T @ X).astype(
                    np.float32
                )
                self.blocks[f"b{loop}"][0].weight.data = torch.from_numpy(np.ascontiguousarray(back[:-1].T))
                self.blocks[f"b{loop}"][0].bias.data = torch.from_numpy(back[-1].copy())
                f = known.astype(np.float32) @ back
                rest = X - f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)

    def __call__(self, x: Tensor) -> Tensor:
        import torch.nn.functional as F

        from isometry.compression._contrast import sign

        b = sign(self.blocks["w"](x))
        for loop in range(self.loops):
            f = F.normalize(self.blocks[f"b{loop}"](b), dim=1)
            b = b + sign(self.blocks[f"r{loop}"](x - f)) * 2.0 ** -(loop + 1)
        return b

    def exported(self) -> dict[str, np.ndarray]:
        """Weights and biases of the linear layers with the batch norms folded in."""
        import torch

        arrays: dict[str, np.ndarray] = {}
        for name, block in self.blocks.items():
            layers = list(block)  # type: ignore[call-overload]
            linears = [i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Linear)]
            for number, i in enumerate(linears):
                weight, bias = layers[i].weight.detach().double(), layers[i].bias.detach().double()
                if i + 1 < len(layers):
                    norm = layers[i + 1]
                    gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
                    weight = weight * gain[:, None]
                    bias = (bias - norm.running_mean.double()) * gain + norm.bias.detach().double()
                arrays[f"{name}.{number}.weight"] = weight.float().numpy().copy()
                arrays[f"{name}.{number}.bias"] = bias.float().numpy().copy()
        return arrays


def _train(
    head: RecurrentBinary, network: _Network, X: Tensor, y: Tensor, labels: Tensor,
    before: tuple[np.ndarray, np.ndarray] | None,
) -> None:  # fmt: skip
    import torch
    import torch.nn.functional as F

    from isometry.compression._contrast import hard_negative_loss

    parameters = list(network.blocks.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": head.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser: torch.optim.Optimizer
    if head.optimiser == "sgd":
        optimiser = torch.optim.SGD(groups, lr=head.learning_rate, momentum=0.9, nesterov=True)
    else:
        optimiser = torch.optim.AdamW(groups, lr=head.learning_rate)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [max(1, round(0.6 * head.epochs))])
    generator = torch.Generator().manual_seed(head.random_state)
    old = None if before is None else [F.normalize(torch.from_numpy(values), dim=1) for values in before]
    network.blocks.train()
    for _ in range(head.epochs):
        order = torch.randperm(len(X), generator=generator)
        for at in range(0, len(X), head.batch_size):
            rows = order[at : at + head.batch_size]
            if len(rows) < 4:
                continue
            both = network(torch.cat([X[rows], y[rows]]))
            sides = (both[: len(rows)], both[len(rows) :])
            loss = torch.zeros(())
            for a, b in (sides, sides[::-1]):
                loss = loss + hard_negative_loss(a, b, labels[rows], head.temperature, head.negatives)
            if old is not None:
                for side, other in ((0, 1), (1, 0)):
                    cut = F.normalize(sides[side], dim=1)[:, : old[other].shape[1]]
                    loss = loss + hard_negative_loss(
                        cut, old[other][rows], labels[rows], head.temperature, head.negatives
                    )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
        schedule.step()
    network.blocks.eval()


def _nearest_other(X: np.ndarray) -> np.ndarray:
    """Row of the nearest other row by inner product, (n,)."""
    nearest = np.empty(len(X), np.int64)
    for at in range(0, len(X), 2048):
        scores = X[at : at + 2048] @ X.T
        scores[np.arange(len(scores)), np.arange(at, at + len(scores))] = -np.inf
        nearest[at : at + 2048] = scores.argmax(axis=1)
    return nearest
