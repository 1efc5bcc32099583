"""What a person may do to a stage: small messages, checked and bounded, so that sessions record and replay.

A message is a JSON object with `do` and the fields of that action. The page, scripts and logs use the same ones.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import InputError, NotFoundError
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import rotation_matrices
from isometry.scenes.physics.materials import Material, material
from isometry.scenes.scene import SceneObject
from isometry.scenes.stage import Stage

if TYPE_CHECKING:
    from isometry.scenes.objects.pick import Stroke

ACTIONS = {
    "grab": {"hand", "position", "quaternion", "radius", "object"},
    "move": {"hand", "position", "quaternion"},
    "release": {"hand"},
    "pin": {"hand"},
    "unpin": {"object"},
    "material": {"object", "name", "young", "poisson", "density", "damping", "friction"},
    "gravity": {"value"},
    "transform": {"object", "move", "turn", "scale"},
    "reset": set(),
    "undo": set(),
    "pause": {"on"},
    "substeps": {"value"},
    "select": {"name", "material", "strokes"},
    "dissolve": {"object"},
}
_STROKE = {"position", "quaternion", "field_of_view", "aspect", "box", "inside", "outside"}
_FAR = 1e3
_TICKS = 1_000_000


def apply_input(stage: Stage, message: Any) -> int | None:
    """Do what a message says; gives the object's number for `grab` (None where nothing is in reach), `pin` and `select`.

    `select` and `dissolve` change which splats are objects, so the stage has other bodies afterwards.

    Raises:
        InputError: an unknown action or field, a number out of bounds, a selection that holds nothing.
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
    elif do == "pin":
        return world.pin(_whole(message, "hand", 0, 7))
    elif do == "unpin":
        world.unpin(_object(stage, message))
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
    elif do == "select":
        return _select(stage, message)
    elif do == "dissolve":
        _dissolve(stage, _object(stage, message))
    else:
        world.set_substeps(_whole(message, "value", 1, 200))
    return None


def _select(stage: Stage, message: dict) -> int:
    # OpenCV and the rasteriser's vote come only with a selection
    from isometry.scenes.objects.collection import part_name
    from isometry.scenes.objects.pick import pick

    scene = stage.scene
    given = message.get("name", "")
    if not isinstance(given, str) or len(given) > 100:
        raise InputError(f"'name' must be a text of up to 100 characters and is {str(given)[:40]}")
    made_of = material(message.get("material", "jelly"))
    rows = message.get("strokes")
    if not isinstance(rows, list) or not 1 <= len(rows) <= 8:
        raise InputError("'strokes' must be 1 to 8 views with a box or clicks")
    strokes = [_stroke(row) for row in rows]
    still = np.nonzero(scene.labels == 0)[0]
    free = scene.gaussians.select(still)
    mine = still[pick(free, strokes, up=np.asarray(scene.up), cameras=scene.cameras)]
    name = " ".join(given.split()) or part_name(scene.gaussians.select(mine))
    taken = {item.name for item in scene.objects}
    if name in taken:
        name = next(f"{name} {number}" for number in range(2, len(taken) + 3) if f"{name} {number}" not in taken)
    label = max([item.label for item in scene.objects], default=0) + 1
    labels = scene.labels.copy()
    labels[mine] = label
    stage.adopt(scene.with_objects((*scene.objects, SceneObject(name, label, made_of)), labels))
    return len(scene.objects)


def _stroke(row: Any) -> Stroke:
    from isometry.scenes.objects.pick import Stroke

    if not isinstance(row, dict) or set(row) - _STROKE:
        raise InputError(f"a stroke has {', '.join(sorted(_STROKE))}; got {str(row)[:80]}")
    position, turn = _vector(row, "position", 3), _turn(row, "quaternion")
    if turn is None:
        raise InputError("a stroke needs the 'quaternion' of its view")
    field, aspect = _number(row, "field_of_view", 1, 170), _number(row, "aspect", 0.05, 20)
    height = 480
    width = max(16, round(height * aspect))
    focal = height / 2 / math.tan(math.radians(field) / 2)
    # a page's camera looks along -z with y up, ours along z with y down
    rotation = np.diag([1.0, -1.0, -1.0]) @ rotation_matrices(turn[None])[0].T
    camera = Camera(
        width, height, focal, focal, width / 2, height / 2, rotation, -rotation @ position, name="selection"
    )
    box = tuple(_vector(row, "box", 4).tolist()) if row.get("box") is not None else None
    return Stroke(camera, box, _clicks(row, "inside"), _clicks(row, "outside"))  # type: ignore[arg-type]


def _clicks(row: dict, key: str) -> tuple[tuple[float, float], ...]:
    places = row.get(key, [])
    if not isinstance(places, list) or len(places) > 32:
        raise InputError(f"'{key}' must be up to 32 clicks")
    pairs = [_vector({key: place}, key, 2).tolist() for place in places]
    return tuple((pair[0], pair[1]) for pair in pairs)


def _dissolve(stage: Stage, number: int) -> None:
    scene = stage.scene
    gone = scene.objects[number].label
    left = tuple(item for n, item in enumerate(scene.objects) if n != number)
    stage.adopt(scene.with_objects(left, np.where(scene.labels == gone, 0, scene.labels)))


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
        if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
            raise InputError("it must be an object with 'seconds' and a list of 'inputs'")
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
