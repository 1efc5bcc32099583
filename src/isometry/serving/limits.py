"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Answered with 413 (body), 408 (a body that comes too slowly), 429 (requests at once) and 422 (the rest) before work
    is spent.

    Attributes:
        body_bytes: size of a request's body.
        k: hits per search.
        batch: texts or records per request.
        text_characters: length of one text.
        concurrent: requests at once.
        seconds: time of one request.
        pixels: size of a picture.
        arrival_seconds: time in which a request's head, and then its body, must come.
    """

    body_bytes: int = 8_000_000
    k: int = 1000
    batch: int = 2048
    text_characters: int = 100_000
    concurrent: int = 256
    seconds: float = 60.0
    pixels: int = 50_000_000
    arrival_seconds: float = 20.0
