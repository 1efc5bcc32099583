"""What a person may do to a stage: small messages, checked and bounded, so that sessions record and replay.

A message is a JSON object with `do` and the fields of that action. The page, scripts and logs use the same ones.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError, NotFoundError
from isometry.scenes.physics.materials import Material, material
from isometry.scenes.stage import Stage

ACTIONS = {
    "grab": {"hand", "position", "quaternion", "radius", "object"},
    "move": {"hand", "position", "quaternion"},
    "release": {"hand"},
    "material": {"object", "name", "young", "poisson", "density", "damping", "friction"},
    "gravity": {"value"},
    "transform": {"object", "move", "turn", "scale"},
    "reset": set(),
    "undo": set(),
    "pause": {"on"},
    "substeps": {"value"},
}
_FAR = 1e3
_TICKS = 1_000_000


def apply_input(stage: Stage, message: Any) -> int | None:
    """Do what a message says; gives the grabbed object's number for `grab` (None where nothing is in reach).

    Raises:
        InputError: an unknown action or field, a number out of bounds.
    """
    if not isinstance(message, dict) or message.get("do") not in ACTIONS:
        raise InputError(f"an input needs 'do', one of {', '.join(ACTIONS)}; got {str(message)[:80]}")
    do = message["do"]
    unknown = set(message) - ACTIONS[do] - {"do"}
    if unknown:
        raise InputError(f"'{do}' does not know {', '.join(sorted(map(str, unknown)))}")
    world = stage.world
    if do == "grab":
        return world.grab(
            _whole(message, "hand", 0, 7),
            _vector(message, "position", 3),
            quaternion=_turn(message, "quaternion"),
            radius=_number(message, "radius", 0.001, 10.0, 0.05),
            body=_object(stage, message) if "object" in message else None,
        )
    if do == "move":
        world.move(_whole(message, "hand", 0, 7), _vector(message, "position", 3), _turn(message, "quaternion"))
    elif do == "release":
        world.release(_whole(message, "hand", 0, 7))
    elif do == "material":
        number = _object(stage, message)
        made_of = material(message["name"]) if "name" in message else world.bodies[number].material
        values = {key: _number(message, key, 0.0, 1e10) for key in ACTIONS[do] - {"object", "name"} if key in message}
        world.set_material(number, Material(**{**vars(made_of), **values}))
    elif do == "gravity":
        world.gravity = np.clip(_vector(message, "value", 3), -100, 100).astype(np.float32)
    elif do == "transform":
        world.transform(
            _object(stage, message),
            move=_vector(message, "move", 3) if "move" in message else None,
            turn=_turn(message, "turn"),
            scale=_number(message, "scale", 0.05, 20.0, 1.0),
        )
    elif do == "reset":
        world.reset()
    elif do == "undo":
        world.undo()
    elif do == "pause":
        if not isinstance(message.get("on"), bool):
            raise InputError("'pause' needs 'on', true or false")
        world.paused = message["on"]
    else:
        world.set_substeps(_whole(message, "value", 1, 200))
    return None


def _number(message: dict, key: str, low: float, high: float, otherwise: float | None = None) -> float:
    value = message.get(key, otherwise)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"'{key}' must be a number within {low:g} and {high:g} and is {str(value)[:40]}")
    return float(value)


def _whole(message: dict, key: str, low: int, high: int) -> int:
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"'{key}' must be a whole number within {low} and {high} and is {str(value)[:40]}")
    return value


def _vector(message: dict, key: str, length: int) -> np.ndarray:
    value = message.get(key)
    good = isinstance(value, list) and len(value) == length
    if not good or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and abs(v) <= _FAR
        for v in value  # type: ignore[union-attr]
    ):
        raise InputError(f"'{key}' must be {length} finite numbers up to {_FAR:g} and is {str(value)[:60]}")
    return np.asarray(value, np.float64)


def _turn(message: dict, key: str) -> np.ndarray | None:
    if message.get(key) is None:
        return None
    q = _vector(message, key, 4)
    length = float(np.linalg.norm(q))
    if length < 1e-3:
        raise InputError(f"'{key}' must be a rotation (w, x, y, z) and is {q.tolist()}")
    return q / length


def _object(stage: Stage, message: dict) -> int:
    value = message.get("object")
    if isinstance(value, str):
        return stage.scene.number(value)
    return _whole(message, "object", 0, len(stage.scene.objects) - 1)


@dataclass
class Log:
    """A session: inputs with the tick before which they came, and the state's fingerprint at the end."""

    scene: str
    rate: float
    substeps: int
    inputs: list[tuple[int, dict]] = field(default_factory=list)
    ticks: int = 0
    digest: str = ""

    @staticmethod
    def start(stage: Stage) -> Log:
        return Log(stage.scene.name, stage.world.rate, stage.world.substeps)

    def add(self, tick: int, message: dict) -> None:
        self.inputs.append((tick, message))

    def text(self) -> str:
        """JSON lines: a head, one line per input, an end."""
        head = {"scene": self.scene, "rate": self.rate, "substeps": self.substeps}
        lines = [head, *({"tick": tick, "input": message} for tick, message in self.inputs)]
        return "".join(json.dumps(line) + "\n" for line in [*lines, {"ticks": self.ticks, "digest": self.digest}])

    @staticmethod
    def parse(text: str, name: str) -> Log:
        """Read what `text` wrote.

        Raises:
            InputError: naming the line that cannot be understood.
        """
        log: Log | None = None
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                row = json.loads(line)
                if log is None:
                    log = Log(str(row["scene"]), float(row["rate"]), int(row["substeps"]))
                elif "input" in row:
                    tick = int(row["tick"])
                    if not 0 <= tick <= _TICKS or (log.inputs and tick < log.inputs[-1][0]):
                        raise ValueError(f"tick {tick} is out of order or beyond {_TICKS}")
                    log.add(tick, dict(row["input"]))
                else:
                    log.ticks, log.digest = int(row["ticks"]), str(row["digest"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{name}, line {number}: not a line of a session log: {error}") from error
        if log is None:
            raise InputError(f"{name}: the log is empty")
        if not 0 <= log.ticks <= _TICKS:
            raise InputError(f"{name}: {log.ticks} ticks are more than the {_TICKS} replayed")
        return log


@dataclass(frozen=True)
class Script:
    """What `simulate` shall do: ticks in all, and inputs by tick."""

    ticks: int
    inputs: list[tuple[int, dict]]
    digest: str = ""
    rate: float = 60.0
    substeps: int | None = None


def read_script(path: str | Path, rate: float = 60.0) -> Script:
    """A script `{"seconds": 4, "inputs": [{"at": 0.5, "do": "grab", ...}]}`, or a session log in JSON lines.

    Besides the actions of the page there is `drag`: hand, from, to, over (seconds), which becomes one `move` a tick.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"there is no script '{path}'")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text: {error}") from error
    if path.suffix == ".jsonl":
        log = Log.parse(text, str(path))
        return Script(log.ticks, log.inputs, log.digest, log.rate, log.substeps)
    try:
        document = json.loads(text)
        seconds = _number(document, "seconds", 0.0, _TICKS / rate)
        rows = document["inputs"]
        inputs: list[tuple[int, dict]] = []
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise InputError(f"input {number} is no object")
            tick = round(_number(row, "at", 0.0, _TICKS / rate) * rate)
            message = {key: value for key, value in row.items() if key != "at"}
            if message.get("do") != "drag":
                inputs.append((tick, message))
                continue
            start, end = _vector(message, "from", 3), _vector(message, "to", 3)
            steps = max(1, round(_number(message, "over", 0.0, 1000.0, 1.0) * rate))
            hand = _whole(message, "hand", 0, 7)
            for k in range(1, steps + 1):
                here = start + (end - start) * (k / steps)
                inputs.append((tick + k, {"do": "move", "hand": hand, "position": here.tolist()}))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path}: not a script: {error}") from error
    inputs.sort(key=lambda item: item[0])
    return Script(round(seconds * rate), inputs, rate=rate)
