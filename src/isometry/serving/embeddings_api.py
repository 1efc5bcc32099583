"""Texts to vectors over HTTP, in the shapes of the OpenAI interface."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from fastapi import FastAPI

from isometry.errors import InputError, NotFoundError
from isometry.serving.batching import BatchingEncoder
from isometry.serving.limits import Limits
from isometry.serving.shapes import Embedding, EmbeddingsAnswer, EmbeddingsBody, Usage, refusals


def add_embeddings(app: FastAPI, encoders: dict[str, BatchingEncoder], limits: Limits) -> None:
    """Add `/v1/embeddings` over the encoders, by name."""

    @app.post("/v1/embeddings", responses=refusals(400, 403, 404))
    def embeddings(body: EmbeddingsBody) -> EmbeddingsAnswer:
        """Texts to vectors, in the shapes of the OpenAI interface; `dimensions` cuts and normalises again."""
        encoder = _chosen(encoders, body.model)
        texts = [body.input] if isinstance(body.input, str) else body.input
        check_texts(texts, limits)
        description = encoder.describe()
        if description.multi_vector:
            raise InputError(f"{description.name} gives several vectors a text, which this interface has no shape for")
        if body.dimensions is not None and not 1 <= body.dimensions <= description.dimension:
            raise InputError(f"dimensions is {body.dimensions} and may be 1 to {description.dimension}")
        vectors = encoder.encode(texts)
        if body.dimensions is not None:
            cut = vectors[:, : body.dimensions]
            vectors = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
        tokens = encoder.tokens(texts)
        return EmbeddingsAnswer(
            data=[
                Embedding(index=number, embedding=_spelled(vector, body.encoding_format))
                for number, vector in enumerate(np.ascontiguousarray(vectors, "<f4"))
            ],
            model=description.name,
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )


def check_texts(texts: Sequence[str], limits: Limits) -> None:
    """Raise `InputError` for too many texts, an empty one or one that is too long."""
    if not 1 <= len(texts) <= limits.batch:
        raise InputError(f"{len(texts)} texts were given and 1 to {limits.batch:,} are taken at once")
    for number, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"text {number} is empty; leave it out")
        if len(text) > limits.text_characters:
            raise InputError(
                f"text {number} has {len(text):,} characters and at most {limits.text_characters:,} are taken"
            )


def _chosen(encoders: dict[str, BatchingEncoder], model: str) -> BatchingEncoder:
    """The encoder of that name. Where there is one only, any name means it, as clients have names of their own."""
    if not encoders:
        raise NotFoundError("no collection here has an encoder")
    if model in encoders or len(encoders) == 1:
        return encoders.get(model) or next(iter(encoders.values()))
    raise NotFoundError(f"no model '{model}' here; there are: {', '.join(encoders)}")


def _spelled(vector: np.ndarray, form: str) -> str | list[float]:
    return base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()
