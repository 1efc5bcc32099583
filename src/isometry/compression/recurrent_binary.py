"""Bits that code what earlier bits left over, learnt from embeddings alone."""

from __future__ import annotations

from copy import deepcopy
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
_HELD_OUT, _FEW = 1000, 200
_FITTED_ROWS = 50_000
_ROUNDS = 5


class RecurrentBinary(CodeEstimator):
    """Recurrent binary embedding: `loops + 1` bits for each of `dimension` coordinates, and a factor.

    Paper: 18 (BEBR), its ancestor arXiv:1802.06466. With rho = sign, m = dimension, u = loops: d_0 = rho(W(x)); then u
    times f = B(d_0 .. d_i)/|B(..)|, d_(i+1) = rho(R(x - f)); b = sum 2^-i d_i. A code is u + 1 bit planes (signs, first
    coordinate in the highest bit, plane after plane) and a float16 factor. The batch norms are folded into the linears
    when training ends, so that coding is plain numpy.

    Departs from the paper, each because it was measured to rank better:

    - W, B and R begin at a closed form, not at random: signs of rotated leading principal directions of what is left
      over, B as least squares. `hidden` layers (Linear-BatchNorm-ReLU, then Linear) are added to that linear map and
      begin at zero.
    - Without partners there is nothing to contrast and the float neighbours are to be kept: nothing is trained, each
      plane takes the directions that its residual needs, and `sweeps` passes flip single bits where that brings the
      reconstruction nearer (iterated conditional modes, as in additive quantisation), while coding and, in turn with
      least squares, while fitting.
    - With partners the paper's contrastive training of the symmetric distance follows; all planes begin on the same
      directions and no bit is flipped.
    - A tenth of the pairs (at most 1,000; none below 200) is held out, and the epoch that ranks them best is kept; the
      start counts as one, so that training never ends below it there.
    - B reads the planes side by side instead of their weighted sum; for u = 1 that is the same.
    - `scorer` is asymmetric: the float query against a least-squares reconstruction from the bits, times the stored
      factor |x - mean| / |reconstruction|. The paper's 1/|b| follows from the bits and needs no storing;
      `symmetric_scorer` is the paper's distance, the cosine of two b.
    - AdamW is the default. Paper values: dimension 512, hidden 2048, blocks 1, loops 1, "sgd" with learning rate 0.08
      and batches of 2048 pairs.

    Args:
        dimension: coordinates m; None for those of the vectors.
        loops: residual loops u; 0 is the plain learnt hash.
        hidden: width of hidden layers; 0 makes every block one linear layer.
        blocks: hidden layers in each of W, B and R.
        sweeps: passes over the bits of a code that flip them; 0 keeps the recurrence's own bits. Without partners only.
        temperature, negatives: of the loss over the positive and the hardest other rows of the batch and the queue.
        queue: codes of earlier batches that are kept as further negatives, made by a slow copy of the network; 0 for
            none (the paper's pool at full scale: 65,536).
        momentum: the share of itself that the copy keeps at each step.
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
        hidden: int = 0,
        blocks: int = 1,
        sweeps: int = 4,
        temperature: float = 0.05,
        negatives: int = 5,
        queue: int = 0,
        momentum: float = 0.999,
        epochs: int = 10,
        batch_size: int = 1024,
        optimiser: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.dimension = dimension
        self.loops = loops
        self.hidden = hidden
        self.blocks = blocks
        self.sweeps = sweeps
        self.temperature = temperature
        self.negatives = negatives
        self.queue = queue
        self.momentum = momentum
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
        """Learn to keep the neighbours of X (n, d), or to find partners: pairs of rows (X[i], y[i]) that belong together.

        Args:
            y: partners (n, d), e.g. the clicked document of a query; None trains nothing beyond the closed form.
            labels: (n,) integers; rows with equal labels are never each other's negatives.
        Raises: ShapeError, InputError, ValueError for NaN.
        """
        X = self._check(X, reset=True)
        return self._fit(X, None if y is None else self._partners(X, y), labels, None)

    def fit_compatible(
        self, X: np.ndarray, y: Any, old: RecurrentBinary, old_X: np.ndarray, old_y: np.ndarray,
        *, labels: np.ndarray | None = None,
    ) -> RecurrentBinary:  # fmt: skip
        """As `fit`, with codes that can be searched beside those of `old` in one index (backward-compatible training).

        Args:
            old: the fitted code of the older embeddings.
            old_X, old_y: older embeddings of the same items as X and y.
        A wider new code is compared with the old one by its first coordinates.
        """
        X = self._check(X, reset=True)
        if self._width < old._width or self.loops != old.loops:
            wanted = f"at least {old._width} coordinates and {old.loops} loops"
            raise InputError(f"the new code has {self._width} coordinates and {self.loops} loops; it needs {wanted}.")
        before = (old.bits(old_X), old.bits(old_y))
        if len(before[0]) != len(X) or len(before[1]) != len(X):
            raise ShapeError(f"the older embeddings have {len(before[0])} and {len(before[1])} rows for {len(X)} new.")
        return self._fit(X, self._partners(X, y), labels, before)

    def bits(self, X: np.ndarray) -> np.ndarray:
        """The signs d_0 .. d_u (n, u + 1, m) float32 of vectors (n, d)."""
        check_is_fitted(self)
        X = self._check(X, reset=False)
        return np.concatenate([self._signs(X[at : at + _ROWS]) for at in range(0, len(X), _ROWS)])

    def values(self, X: np.ndarray) -> np.ndarray:
        """The recurrent binary vectors b (n, m) float32 of vectors (n, d)."""
        return _weighted(self.bits(X))

    def symmetric_scorer(self, queries: np.ndarray) -> Scorer:
        """Queries (q, d) to a function from codes (m, b) to the cosines of query codes and codes (q, m) float32."""
        values = self.values(queries)
        values /= np.linalg.norm(values, axis=1, keepdims=True)

        def score(codes: np.ndarray) -> np.ndarray:
            b = _weighted(self._unpacked(self._check_codes(codes)))
            return values @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T

        return score

    def query_values(self, queries: np.ndarray) -> np.ndarray:
        """Queries (q, d) as weights (q, u + 1, m) of a code's signs: the weighted sum times the factor is the score of
        `scorer` less a constant."""
        check_is_fitted(self)
        weights = self._check(queries, reset=False) @ self.decoder_.T
        return weights.reshape(len(weights), self.loops + 1, self._width)

    def scorer(self, queries: np.ndarray) -> Scorer:
        weights = self.query_values(queries).reshape(len(queries), -1)
        constant = (np.asarray(queries, np.float32) @ self.mean_)[:, None]

        def score(codes: np.ndarray) -> np.ndarray:
            codes = self._check_codes(codes)
            return weights @ self._unpacked(codes).reshape(len(codes), -1).T * self.planes(codes)[1] + constant

        return score

    def planes(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes (n, b) as bit planes (n, u + 1, bytes) uint8 and factors (n,) float32."""
        codes = self._check_codes(codes)
        factor = np.ascontiguousarray(codes[:, -2:]).view(np.float16).astype(np.float32)[:, 0]
        return codes[:, :-2].reshape(len(codes), self.loops + 1, (self._width + 7) // 8), factor

    def _encode(self, X: np.ndarray) -> np.ndarray:
        return np.concatenate([self._packed(X[at : at + _ROWS]) for at in range(0, len(X), _ROWS)])

    def _packed(self, X: np.ndarray) -> np.ndarray:
        signs = self._signs(X)
        length = np.linalg.norm(signs.reshape(len(X), -1) @ self.decoder_, axis=1)
        factor = np.linalg.norm(X - self.mean_, axis=1) / np.maximum(length, 1e-12)
        stored = np.minimum(factor, 60_000).astype(np.float16)[:, None].view(np.uint8)
        return np.concatenate([np.packbits(signs > 0, axis=2).reshape(len(X), -1), stored], axis=1)

    def _unpacked(self, codes: np.ndarray) -> np.ndarray:
        planes = np.ascontiguousarray(self.planes(codes)[0])
        return np.unpackbits(planes, axis=2, count=self._width).astype(np.float32) * 2 - 1

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        turned = self._unpacked(codes).reshape(len(codes), -1) @ self.decoder_
        return (turned * self.planes(codes)[1][:, None] + self.mean_).astype(np.float32)

    def _partners(self, X: np.ndarray, y: Any) -> np.ndarray:
        y = np.ascontiguousarray(y, dtype=np.float32)
        if y.shape != X.shape or not np.isfinite(y).all():
            raise ShapeError(f"partners have shape {y.shape} for vectors {X.shape}; give finite rows, pair by pair.")
        return y

    def _signs(self, X: np.ndarray) -> np.ndarray:
        """d_0 .. d_u (n, u + 1, m) of X (n, d), with bits flipped where the code was fitted so."""
        signs = self._recurrence(X)
        if self.sweeps_:
            self._flip(signs.reshape(len(X), -1), X - self.mean_)
        return signs

    def _flip(self, signs: np.ndarray, centred: np.ndarray) -> None:
        try:
            from isometry.compression._flips import flip_bits
        except ImportError as error:
            raise MissingExtraError("RecurrentBinary with sweeps", "search") from error
        flip_bits(signs, centred, self.decoder_, self.decoder_ @ self.decoder_.T, int(self.sweeps_))

    def _recurrence(self, X: np.ndarray) -> np.ndarray:
        signs = np.empty((len(X), self.loops + 1, self._width), np.float32)
        rest = X
        for plane in range(self.loops + 1):
            if plane:
                f = self._block(f"b{plane - 1}", signs[:, :plane].reshape(len(X), -1))
                rest = X - f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
            signs[:, plane] = np.where(self._block("w" if plane == 0 else f"r{plane - 1}", rest) >= 0, 1, -1)
        return signs

    def _block(self, name: str, X: np.ndarray) -> np.ndarray:
        straight = X @ self.weights_[f"{name}.straight.weight"].T + self.weights_[f"{name}.straight.bias"]
        if f"{name}.0.weight" not in self.weights_:
            return straight
        for layer in range(self.blocks + 1):
            X = X @ self.weights_[f"{name}.{layer}.weight"].T + self.weights_[f"{name}.{layer}.bias"]
            if layer < self.blocks:
                X = np.maximum(X, 0)
        return straight + X

    def _fit(
        self, X: np.ndarray, y: np.ndarray | None, labels: np.ndarray | None,
        before: tuple[np.ndarray, np.ndarray] | None,
    ) -> RecurrentBinary:  # fmt: skip
        if self.loops < 0 or self.hidden < 0 or self.blocks < 1 or self._width < 1 or min(self.epochs, self.sweeps) < 0:
            raise InputError("dimension and blocks must be at least 1; loops, hidden, epochs and sweeps at least 0.")
        if self.queue < 0 or not 0 <= self.momentum < 1:
            raise InputError(f"queue is {self.queue} and momentum {self.momentum}; give at least 0, and 0 to below 1.")
        if self.optimiser not in ("adamw", "sgd"):
            raise InputError(f"optimiser is {self.optimiser!r}; choose 'adamw' or 'sgd'.")
        names = np.arange(len(X)) if labels is None else np.asarray(labels)
        if names.shape != (len(X),):
            raise ShapeError(f"labels have shape {names.shape} for {len(X)} rows; give one integer a row.")
        rows = np.random.default_rng(self.random_state).permutation(len(X))[:_FITTED_ROWS]
        self.mean_, self.sweeps_ = X.mean(axis=0), self.sweeps if y is None else 0
        targets = None if before is None else before[0][rows]
        self.weights_ = _closed_form(X[rows], self._width, self.loops, y is not None, targets, self.random_state)
        if y is not None and self.epochs:
            if len(X) < 4:
                raise InputError(f"{len(X)} pairs are too few to learn a code from; give at least 4.")
            try:
                import torch
            except ImportError as error:
                raise MissingExtraError("RecurrentBinary, trained on pairs,", "text") from error
            _, numbered = np.unique(names, return_inverse=True)
            network = _Network(self, X.shape[1], self._width)
            _train(self, network, torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(numbered), before)
            self.weights_ = network.exported()
            if not all(np.isfinite(array).all() for array in self.weights_.values()):
                raise InputError(f"training diverged; use a learning_rate below {self.learning_rate:g}.")
        centred = X[rows] - self.mean_
        signs = self._recurrence(X[rows]).reshape(len(rows), -1)
        self.decoder_ = _least_squares(signs, centred)
        for _ in range(_ROUNDS if self.sweeps_ else 0):
            self._flip(signs, centred)
            self.decoder_ = _least_squares(signs, centred)
        return self


def _weighted(signs: np.ndarray) -> np.ndarray:
    """Signs (n, u + 1, m) to b = sum 2^-i d_i (n, m)."""
    return np.einsum("npm,p->nm", signs, np.float32(2.0) ** -np.arange(signs.shape[1], dtype=np.float32))


def _least_squares(signs: np.ndarray, X: np.ndarray) -> np.ndarray:
    """The map (bits, d) that takes signs (n, bits) nearest to X (n, d), with a little ridge."""
    bits = signs.shape[1]
    square = (signs.T @ signs).astype(np.float64) + np.eye(bits) * (1e-3 * len(signs))
    return np.linalg.solve(square, (signs.T @ X).astype(np.float64)).astype(np.float32)


def _leading(X: np.ndarray, width: int, draw: np.random.RandomState) -> np.ndarray:
    """Directions (d, width): leading principal directions of centred X, turned among themselves at random.

    Beyond d directions, rotations of the whole space follow, so that the frame stays nearly tight.
    """
    d = X.shape[1]
    _, principal = np.linalg.eigh((X.T @ X).astype(np.float64))
    parts = [random_rotation(d, draw) for _ in range(width // d)]
    if width % d:
        kept = np.ascontiguousarray(principal[:, ::-1][:, : width % d], dtype=np.float32)
        parts.append(kept @ random_rotation(width % d, draw))
    return np.concatenate(parts, axis=1)


def _closed_form(
    X: np.ndarray, width: int, loops: int, shared: bool, targets: np.ndarray | None, seed: int
) -> dict[str, np.ndarray]:
    """Linear W, B and R: signs of what is left over after the best reconstruction from the signs so far.

    `shared`: all planes along W's directions, so that b stands for x itself; else along those the residual needs.
    `targets` (n, u + 1, older width) are the signs of an older code of the same items; their coordinates are regressed.
    """
    draw = np.random.RandomState(seed)
    weights: dict[str, np.ndarray] = {}
    signs = np.empty((len(X), loops + 1, width), np.float32)
    rest = X
    for plane in range(loops + 1):
        if plane:
            known = signs[:, :plane].reshape(len(X), -1)
            mean = X.mean(axis=0)
            back = _least_squares(known, X - mean)
            weights[f"b{plane - 1}.straight.weight"], weights[f"b{plane - 1}.straight.bias"] = back.T.copy(), mean
            f = known @ back + mean
            rest = X - f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
        middle = rest.mean(axis=0)
        centred = rest - middle
        if plane == 0 or not shared:
            turn = _leading(centred, width, draw)
        if targets is not None:
            share = (centred.T @ centred).astype(np.float64)
            share += np.eye(len(share)) * (1e-4 * np.trace(share) / len(share) + 1e-12)
            turn[:, : targets.shape[2]] = np.linalg.solve(share, centred.T @ targets[:, plane])
        values = centred @ turn
        spread = values.std(axis=0)
        scale = np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 1).astype(np.float32)
        name = "w" if plane == 0 else f"r{plane - 1}"
        weights[f"{name}.straight.weight"] = np.ascontiguousarray((turn * scale).T, dtype=np.float32)
        weights[f"{name}.straight.bias"] = (-(middle @ turn) * scale).astype(np.float32)
        signs[:, plane] = np.where(
            rest @ weights[f"{name}.straight.weight"].T + weights[f"{name}.straight.bias"] >= 0, 1, -1
        )
    return weights


class _Network:
    """The blocks W, B_i, R_i in torch while they are trained: a linear map from the closed form, and layers beside it."""

    def __init__(self, head: RecurrentBinary, inputs: int, width: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(head.random_state)
        self.loops = head.loops
        self.straight, self.blocks = torch.nn.ModuleDict(), torch.nn.ModuleDict()
        shapes = {"w": (inputs, width)}
        for loop in range(head.loops):
            shapes |= {f"b{loop}": ((loop + 1) * width, inputs), f"r{loop}": (inputs, width)}
        for name, (before, after) in shapes.items():
            linear = torch.nn.Linear(before, after)
            linear.weight.data = torch.from_numpy(head.weights_[f"{name}.straight.weight"].copy())
            linear.bias.data = torch.from_numpy(head.weights_[f"{name}.straight.bias"].copy())
            self.straight[name] = linear
            if not head.hidden:
                continue
            layers: list[torch.nn.Module] = []
            for a, b in pairwise([before, *[head.hidden] * head.blocks]):
                hidden = torch.nn.Linear(a, b)
                torch.nn.init.xavier_normal_(hidden.weight, generator=generator)
                torch.nn.init.zeros_(hidden.bias)
                layers += [hidden, torch.nn.BatchNorm1d(b), torch.nn.ReLU()]
            last = torch.nn.Linear(head.hidden, after)
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
            self.blocks[name] = torch.nn.Sequential(*layers, last)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A copy of what was learnt so far, for `restore`."""
        return deepcopy(self.straight.state_dict()), deepcopy(self.blocks.state_dict())

    def restore(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        self.straight.load_state_dict(state[0])
        self.blocks.load_state_dict(state[1])

    def tensors(self) -> list[Tensor]:
        """All weights and running statistics."""
        return [*self.straight.state_dict().values(), *self.blocks.state_dict().values()]

    def parameters(self) -> list[Tensor]:
        return [*self.straight.parameters(), *self.blocks.parameters()]

    def _block(self, name: str, x: Tensor) -> Tensor:
        out = self.straight[name](x)
        return out + self.blocks[name](x) if name in self.blocks else out

    def __call__(self, x: Tensor) -> Tensor:
        """b (n, m) of x (n, d)."""
        import torch
        import torch.nn.functional as F

        from isometry.compression._contrast import sign

        planes = [sign(self._block("w", x))]
        for loop in range(self.loops):
            f = F.normalize(self._block(f"b{loop}", torch.cat(planes, dim=1)), dim=1)
            planes.append(sign(self._block(f"r{loop}", x - f)))
        return sum(plane * 2.0**-i for i, plane in enumerate(planes))  # type: ignore[return-value]

    def exported(self) -> dict[str, np.ndarray]:
        """Weights and biases of the linear layers with the batch norms folded in."""
        import torch

        arrays: dict[str, np.ndarray] = {}
        for name, linear in self.straight.items():
            arrays[f"{name}.straight.weight"] = linear.weight.detach().numpy().copy()  # type: ignore[union-attr, operator]
            arrays[f"{name}.straight.bias"] = linear.bias.detach().numpy().copy()  # type: ignore[union-attr, operator]
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

    from isometry.compression._contrast import CodeQueue, follow, hard_negative_loss

    parameters = network.parameters()
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
    old = None if before is None else [F.normalize(torch.from_numpy(_weighted(signs)), dim=1) for signs in before]
    order = torch.randperm(len(X), generator=generator)
    held = order[: min(_HELD_OUT, len(X) // 10) if len(X) >= _FEW else 0]
    learnt = order[len(held) :]

    def standing() -> float:
        """Mean reciprocal rank of the partners held out, and of their older codes."""
        network.blocks.eval()
        with torch.no_grad():
            sides = [F.normalize(network(side[held]), dim=1) for side in (X, y)]
            found = _reciprocal_rank(sides[0], sides[1]) + _reciprocal_rank(sides[1], sides[0])
            if old is not None:
                for side, other in ((0, 1), (1, 0)):
                    cut = sides[side][:, : old[other].shape[1]]
                    found += _reciprocal_rank(F.normalize(cut, dim=1), old[other][held])
        network.blocks.train()
        return found

    best, kept = (standing(), network.state()) if len(held) else (-1.0, None)
    network.blocks.train()
    queues = [CodeQueue(head.queue, head._width) if head.queue else None for _ in range(2)]
    slow = deepcopy(network)
    for _ in range(head.epochs):
        order = learnt[torch.randperm(len(learnt), generator=generator)]
        for at in range(0, len(order), head.batch_size):
            rows = order[at : at + head.batch_size]
            if len(rows) < 4:
                continue
            both = network(torch.cat([X[rows], y[rows]]))
            sides = (both[: len(rows)], both[len(rows) :])
            loss = torch.zeros(())
            for a, b, queue in ((*sides, queues[1]), (*sides[::-1], queues[0])):
                loss = loss + hard_negative_loss(a, b, labels[rows], head.temperature, head.negatives, queue)
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
            if head.queue:
                follow(slow.tensors(), network.tensors(), head.momentum)
                with torch.no_grad():
                    codes = slow(torch.cat([X[rows], y[rows]]))
                for queue, side in zip(queues, (codes[: len(rows)], codes[len(rows) :]), strict=True):
                    if queue is not None:
                        queue.push(side, labels[rows])
        schedule.step()
        if len(held) and (now := standing()) > best:
            best, kept = now, network.state()
    network.blocks.eval()
    if kept is not None:
        network.restore(kept)


def _reciprocal_rank(asked: Tensor, held: Tensor) -> float:
    """Mean reciprocal rank of row i of `held` for row i of `asked`, ties counted against it."""
    scores = asked @ held.T
    return float((1 / (scores >= scores.diagonal()[:, None] - 1e-6).sum(dim=1)).mean())
