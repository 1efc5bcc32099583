"""A model of a disk: replays recorded file calls and says what is left after a crash at any of them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Call:
    """One recorded call that changed a file or a folder."""

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


def read_log(path: Path) -> list[Call]:
    data, at, calls = path.read_bytes(), 0, []
    while at < len(data):
        kind = chr(data[at])
        at += 1
        texts = []
        for _ in range(2):
            (size,) = struct.unpack_from("<I", data, at)
            texts.append(data[at + 4 : at + 4 + size].decode())
            at += 4 + size
        offset, size = struct.unpack_from("<qQ", data, at)
        at += 16
        calls.append(Call(kind, texts[0], texts[1], offset, data[at : at + size]))
        at += size
    return calls


@dataclass
class _File:
    now: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    unsynced: list[Call] = field(default_factory=list)


@dataclass
class _Folder:
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    safe: dict[str, _File | _Folder] = field(default_factory=dict)


class Disk:
    """Files as the system shows them now, and as they would be read back after the power is gone."""

    def __init__(self, root: str) -> None:
        self._root, self._top = root, _Folder()

    def _parts(self, path: str) -> list[str]:
        return [part for part in path[len(self._root) :].split("/") if part]

    def _parent(self, path: str) -> tuple[_Folder, str]:
        *folders, name = self._parts(path)
        node = self._top
        for folder in folders:
            node = node.now[folder]  # type: ignore[assignment]
        return node, name

    def _node(self, path: str) -> _File | _Folder:
        if not self._parts(path):
            return self._top
        folder, name = self._parent(path)
        return folder.now[name]

    def apply(self, call: Call) -> None:
        if call.kind == "c":
            folder, name = self._parent(call.path)
            folder.now[name] = _File()
        elif call.kind == "d":
            folder, name = self._parent(call.path)
            folder.now[name] = _Folder()
        elif call.kind in "wt":
            file = self._node(call.path)
            assert isinstance(file, _File)
            _change(file.now, call, len(call.data))
            file.unsynced.append(call)
        elif call.kind == "s":
            node = self._node(call.path)
            if isinstance(node, _File):
                node.safe, node.unsynced = bytes(node.now), []
            else:
                node.safe = dict(node.now)
        elif call.kind == "r":
            folder, name = self._parent(call.path)
            node = folder.now.pop(name)
            target, new = self._parent(call.other)
            target.now[new] = node
        elif call.kind == "l":
            node = self._node(call.path)
            target, new = self._parent(call.other)
            target.now[new] = node
        elif call.kind == "u":
            folder, name = self._parent(call.path)
            del folder.now[name]

    def leave(self, target: Path, how: str, chance: random.Random) -> None:
        """Write what is left into `target`: 'kill' keeps all, 'drop' only what was synced, 'torn' something between."""
        self._leave(self._top, target, how, chance)

    def _leave(self, folder: _Folder, target: Path, how: str, chance: random.Random) -> None:
        target.mkdir(exist_ok=True)
        entries = folder.now if how == "kill" or (how == "torn" and chance.random() < 0.5) else folder.safe
        for name, node in entries.items():
            if isinstance(node, _Folder):
                self._leave(node, target / name, how, chance)
            else:
                (target / name).write_bytes(_content(node, how, chance))


def _content(file: _File, how: str, chance: random.Random) -> bytes:
    if how == "kill":
        return bytes(file.now)
    if how == "drop":
        return file.safe
    data = bytearray(file.safe)
    for number, call in enumerate(file.unsynced):
        last = number == len(file.unsynced) - 1
        if chance.random() < 0.7:
            whole = len(call.data)
            _change(data, call, chance.randrange(0, whole + 1, 512) if last and whole >= 512 else whole)
    return bytes(data)


def _change(data: bytearray, call: Call, taken: int) -> None:
    if call.kind == "t":
        size = call.offset
        del data[size:]
        data.extend(bytes(size - len(data)))
        return
    if taken == 0:
        return
    data.extend(bytes(max(0, call.offset - len(data))))
    data[call.offset : call.offset + taken] = call.data[:taken]
