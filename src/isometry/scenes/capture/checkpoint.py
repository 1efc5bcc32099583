"""The state of an unfinished build: safetensors, written whole or not at all, bound to what was asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import CorruptionError, InputError, MissingExtraError
from isometry.scenes.capture.poses import FOLDER
from isometry.scenes.files.atomic import write_atomic

_NAME = "checkpoint.safetensors"


class Checkpoint:
    """A folder beside the scene to be; it goes when the scene is there.

    Args:
        out: the scene's folder to be.
        asked: everything that shapes the result, as JSON values.
    """

    def __init__(self, out: Path, asked: dict[str, Any]) -> None:
        self.folder = unfinished(out)
        self.file = self.folder / _NAME
        self._asked = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()

    def save(self, arrays: dict[str, np.ndarray], words: dict[str, str]) -> None:
        """Replace the last state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = _library().save(arrays, metadata={**words, "asked": self._asked})
        write_atomic(self.file, data)

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """The last state, or None where there is none.

        Raises:
            InputError: it belongs to another build. CorruptionError: it is damaged.
        """
        if not self.file.is_file():
            return None
        try:
            with _library(reader=True)(self.file, framework="numpy") as opened:
                words = dict(opened.metadata() or {})
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except Exception as error:
            raise CorruptionError(
                f"{self.file}: the unfinished build is damaged ({error}); remove '{self.folder}' to start anew"
            ) from error
        if words.get("asked") != self._asked:
            raise InputError(
                f"'{self.folder}' holds an unfinished build of other photographs or settings: repeat those to go on, or "
                "remove that folder to start anew"
            )
        return arrays, words

    def remove(self) -> None:
        """Forget it."""
        self.file.unlink(missing_ok=True)
        for half_written in self.folder.glob(f".{_NAME}.*"):
            half_written.unlink()
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def unfinished(out: Path) -> Path:
    """Where a scene's build keeps what it has so far."""
    return out.parent / f".{out.name}.build"


def _library(*, reader: bool = False) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("keeping unfinished builds", "scene") from error
    return safetensors.safe_open if reader else safetensors.numpy
