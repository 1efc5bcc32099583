"""Finds objects of a scene by words."""

from __future__ import annotations

import difflib
from typing import Any

from isometry.scenes.scene import Scene


def find_names(scene: Scene, text: str) -> list[dict[str, Any]]:
    """Objects whose names share words with `text`, best first: `[{"object", "name", "score"}]`, score within 0..1.

    A word counts fully when it is the same, partly when it is spelled nearly so; an empty text finds nothing.
    """
    words = text.lower().split()
    found = []
    for number, item in enumerate(scene.objects):
        own = item.name.lower().split()
        scores = [max((difflib.SequenceMatcher(None, word, o).ratio() for o in own), default=0.0) for word in words]
        good = [score for score in scores if score >= 0.75]
        if good:
            found.append({"object": number, "name": item.name, "score": sum(good) / len(words)})
    return sorted(found, key=lambda row: -row["score"])
