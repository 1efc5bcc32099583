"""What every `Encoder` of texts must do."""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.types import DescribedEncoder, Encoder, EncoderDescription

TEXTS = (
    "graph embeddings keep distances",
    "",
    "a",
    "naïve café 漢字 テスト 😀 \u200b",
    "one two three four five six seven eight nine ten " * 5,
    "graph embeddings keep distances",
)


def check_encoder(encoder: Encoder, *, tolerance: float = 1e-3) -> None:
    """Shape, type, order, repeatability, batches, and the description where there is one.

    Args:
        tolerance: how far a coordinate may move with the company that a text is encoded in, as a share of the vector's
            length. The default holds in bfloat16 too, where sums of another order round otherwise: three of its
            steps, `3 * 2^-8`, are allowed there when the encoder says `precision = 'bfloat16'`.
    """
    if getattr(encoder, "precision", "float32") == "bfloat16":
        tolerance = max(tolerance, 3 * 2**-8)
    texts = list(TEXTS)
    vectors = encoder.encode(texts)
    assert isinstance(vectors, np.ndarray), f"encode gave {type(vectors).__name__}, not a numpy array"
    assert vectors.dtype == np.float32, f"vectors are {vectors.dtype}, not float32"
    assert vectors.ndim == 2 and len(vectors) == len(texts), f"{len(texts)} texts gave shape {vectors.shape}"
    assert vectors.flags.c_contiguous, "vectors are not C-contiguous"
    assert np.isfinite(vectors).all(), "a vector holds NaN or infinity"
    dimension = vectors.shape[1]

    def same(given: np.ndarray, expected: np.ndarray, what: str) -> None:
        assert given.shape == expected.shape, f"{what}: shape {given.shape} instead of {expected.shape}"
        scale = max(1e-12, float(np.linalg.norm(expected, axis=-1).max(initial=0)))
        gap = float(np.abs(given - expected).max(initial=0)) / scale
        assert gap <= tolerance, f"{what}: coordinates differ by {gap:.2g} of the length"

    empty = encoder.encode([])
    assert empty.shape == (0, dimension) and empty.dtype == np.float32, f"no texts gave {empty.dtype} {empty.shape}"
    assert np.array_equal(encoder.encode(texts), vectors), "the same texts gave other vectors the second time"
    same(vectors[5], vectors[0], "equal texts in one batch")
    for row, text in enumerate(texts):
        same(encoder.encode([text])[0], vectors[row], f"text {row + 1} alone and among others")
    same(encoder.encode(texts[::-1])[::-1], vectors, "the texts in reverse order")
    same(encoder.encode(texts, batch_size=1), vectors, "batch_size=1")
    assert np.abs(vectors[0] - vectors[4]).max() > 1e-6, "different texts gave the same vector"
    if isinstance(encoder, DescribedEncoder):
        _check_description(encoder, vectors)


def _check_description(encoder: Any, vectors: np.ndarray) -> None:
    description = encoder.describe()
    assert isinstance(description, EncoderDescription), f"describe gave {type(description).__name__}"
    assert description == encoder.describe(), "describe says something else the second time"
    assert EncoderDescription.from_dict(description.to_dict()) == description, (
        "the description does not survive to_dict"
    )
    assert description.digest and description.name, "the description has no digest or no name"
    assert description.dimension == vectors.shape[1], (
        f"says {description.dimension} dimensions, gives {vectors.shape[1]}"
    )
    if description.normalized:
        gap = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
        assert gap < 1e-4, f"says that vectors have length one and one is off by {gap:.2g}"
