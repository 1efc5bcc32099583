"""Finds objects of a scene by words: by their names, else by meaning in the collection that the scene's folder keeps."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from isometry.errors import MissingExtraError
from isometry.scenes.objects.collection import FOLDER
from isometry.scenes.scene import Scene


def find_objects(scene: Scene, text: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """What `find_names` finds; where no name fits, the one object closest in meaning: `"by": "name" | "meaning"`.

    Args:
        folder: of the scene. Without a collection of objects in it, or without the encoder that made that, only names
            count. Objects made since the collection was written are found by their names.
    """
    named = [{**row, "by": "name"} for row in find_names(scene, text)]
    if named or not text.strip() or folder is None or not (folder / FOLDER).is_dir():
        return named
    from isometry.search import Collection

    numbers = {item.name: number for number, item in enumerate(scene.objects)}
    try:
        with Collection.open(folder / FOLDER) as opened:
            hits = opened.search(text, k=len(numbers) + 10).hits
    except MissingExtraError:
        return []
    for hit in hits:
        name = str(hit.record["name"])
        if name in numbers:
            return [{"object": numbers[name], "name": name, "score": float(hit.score), "by": "meaning"}]
    return []


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
