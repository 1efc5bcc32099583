"""Text encoders that cost little: cuts, poolings and codes of one transformer pass, and plain baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from isometry.evaluation.baselines import HashedWords, Lsa, RandomVectors

FULL = "6 layers, mean"


class Held:
    """An encoder whose vectors were computed before: `rows` says where each text's lie, `shape` makes the vector."""

    def __init__(self, rows: dict[str, int], vectors: np.ndarray, shape: Callable[[np.ndarray], np.ndarray]) -> None:
        self.rows, self.vectors, self.shape = rows, vectors, shape

    def encode(self, inputs: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        return self.shape(self.vectors[[self.rows[text] for text in inputs]].astype(np.float32))


def transformer_zoo(texts: Iterable[str], tick: Callable[[], None] | None = None) -> dict[str, Held]:
    """The bundled encoder at every depth, three widths, three poolings and two codes, from one pass over the texts."""
    rows = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    states = _states(list(rows), tick)
    zoo: dict[str, Held] = {}
    for layer in range(1, 7):
        name = f"{layer} layers, mean"
        zoo[name] = Held(rows, states[f"mean {layer}"], _unit)
    for layer, width in ((2, 48), (4, 48), (6, 48), (6, 192)):
        zoo[f"{layer} layers, mean, {width} dimensions"] = Held(rows, states[f"mean {layer}"], _first(width))
    for pooling in ("first token", "largest"):
        zoo[f"6 layers, {pooling}"] = Held(rows, states[pooling], _unit)
    zoo[f"{FULL}, signs"] = Held(rows, states["mean 6"], np.sign)
    scale = np.abs(_unit(states["mean 6"].astype(np.float32))).max()
    zoo[f"{FULL}, 4 bits"] = Held(rows, states["mean 6"], lambda x: np.round(_unit(x) * (7 / scale)))
    project = np.random.default_rng(0).standard_normal((384, 48)).astype(np.float32)
    zoo[f"{FULL}, projected to 48"] = Held(rows, states["mean 6"], lambda x: _unit(x) @ project)
    return zoo


def plain_zoo(sizes: Sequence[int] = (64, 384), latent: Sequence[int] = (96,)) -> dict[str, Any]:
    """Encoders that never saw a sentence: static token embeddings, hashed words and characters, LSA, chance."""
    from isometry.encoders.static import StaticEncoder

    zoo: dict[str, Any] = {"static": StaticEncoder(), "random": RandomVectors(64)}
    for size in sizes:
        zoo[f"words {size}"] = HashedWords(size)
        zoo[f"characters {size}"] = HashedWords(size, of="characters")
    return zoo | {f"LSA {size}": Lsa(size) for size in latent}


def bm25(queries: Sequence[str], documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """Scores `(q, n)` of BM25 with Lucene's idf, words as they stand."""
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import CountVectorizer

    count = CountVectorizer(token_pattern=r"(?u)\b\w+\b")
    table = csr_array(count.fit_transform(documents), dtype=np.float64)
    lengths = table.sum(axis=1)
    idf = np.log1p((len(documents) - (table > 0).sum(axis=0) + 0.5) / ((table > 0).sum(axis=0) + 0.5))
    row = np.repeat(np.arange(len(documents)), np.diff(table.indptr))
    norm = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))
    table.data = table.data * (k1 + 1) / (table.data + norm[row]) * idf[table.indices]
    return np.asarray((csr_array(count.transform(queries), dtype=np.float64) @ table.T).todense())


def _states(texts: list[str], tick: Callable[[], None] | None) -> dict[str, np.ndarray]:
    """Pooled states `(n, 384)` float16: the mean at every layer, first token and largest value at the last."""
    import torch

    from isometry.encoders.text.exits import layer_states
    from isometry.recipes._frozen import brain_floats
    from isometry.recipes._text import full_model

    model = full_model().eval()
    order = np.argsort([-len(text) for text in texts], kind="stable")
    names = [*(f"mean {layer}" for layer in range(1, 7)), "first token", "largest"]
    found = {name: np.empty((len(texts), 384), np.float16) for name in names}
    kept, model.max_seq_length = model.max_seq_length, 96
    try:
        with torch.inference_mode(), brain_floats():
            for start in range(0, len(order), 64):
                rows = order[start : start + 64]
                features = model.preprocess([texts[row] for row in rows])
                states = [state.float() for state in layer_states(model, features)]
                mask = features["attention_mask"][..., None].float()
                for layer in range(1, 7):
                    pooled = (states[layer] * mask).sum(dim=1) / mask.sum(dim=1)
                    found[f"mean {layer}"][rows] = pooled.numpy()
                found["first token"][rows] = states[6][:, 0].numpy()
                found["largest"][rows] = (states[6] - 1e4 * (1 - mask)).amax(dim=1).numpy()
                if tick is not None:
                    tick()
    finally:
        model.max_seq_length = kept
    return found


def _first(width: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: _unit(x[:, :width])


def _unit(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x.astype(np.float32), axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)
