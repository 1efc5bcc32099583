"""What was measured so far, a line each, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from isometry.errors import StorageError


class Notebook:
    """Lines of JSON under names in `folder/<key>/`, appended and synced one by one; a torn last line is dropped.

    Another key (other data, queries or seed) starts an empty one; folders of other keys are removed.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / key
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for other in folder.iterdir():
                if other.is_dir() and other != self.folder and (other / "measured.jsonl").is_file():
                    shutil.rmtree(other)
            self._path = self.folder / "measured.jsonl"
            self._held = self._read()
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror}; name another folder") from error

    def _read(self) -> dict[str, dict[str, Any]]:
        held: dict[str, dict[str, Any]] = {}
        whole = 0
        text = self._path.read_bytes() if self._path.is_file() else b""
        for line in text.splitlines(keepends=True):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or "found" not in entry:
                break
            held[entry["name"]] = entry["found"]
            whole += len(line)
        with self._path.open("ab") as file:
            file.truncate(whole)
        return held

    def get(self, name: str) -> dict[str, Any] | None:
        return self._held.get(name)

    def put(self, name: str, found: dict[str, Any]) -> None:
        """Durable when it returns. Raises: StorageError."""
        line = json.dumps({"name": name, "found": found}, sort_keys=True) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from error
        self._held[name] = found
