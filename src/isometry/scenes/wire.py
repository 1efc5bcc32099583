"""What goes to the page: once all splats with their weights, then per tick only cage vertices.

A tick is 8 bytes (number and server milliseconds, both uint32) and three int16 per vertex, little-endian: 13.2 KB for
2,200 vertices, 9.5 Mbit/s at 90 ticks a second. Solver-agnostic: the page knows vertices and weights, no physics.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from isometry.scenes.stage import Stage

VERSION = 1
_ROOM = 2.0  # metres around the scene in which objects can be shown


class Wire:
    """Packs a stage for the page.

    Attributes:
        lower: `(3,)` and step: a coordinate is lower + (value + 32768) * step.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        g = stage.scene.gaussians
        middle = np.median(g.means, axis=0).astype(np.float64)
        half = float(np.percentile(np.abs(g.means - middle).max(axis=1), 99)) + _ROOM
        self.lower = middle - half
        self.step = 2 * half / 65535

    def frame(self, tick: int, milliseconds: int) -> bytes:
        """One tick."""
        x = (self.stage.world.x - self.lower) / self.step - 32768
        quantised = np.clip(np.rint(x), -32768, 32767).astype("<i2")
        return struct.pack("<II", tick & 0xFFFFFFFF, milliseconds & 0xFFFFFFFF) + quantised.tobytes()

    def unpack(self, data: bytes) -> tuple[int, int, np.ndarray]:
        """Tick, milliseconds and vertices `(v, 3)` of a frame, as the page reads it."""
        tick, milliseconds = struct.unpack_from("<II", data)
        values = np.frombuffer(data, "<i2", offset=8).reshape(-1, 3)
        return tick, milliseconds, self.lower + (values.astype(np.float64) + 32768) * self.step

    def binding(self) -> bytes:
        """Splats and weights: a table of contents is in `describe`, the arrays follow each other in its order."""
        return b"".join(array.tobytes() for _, array in self._arrays())

    def cages(self) -> dict[str, list[int]]:
        """For a preview: `edges`, pairs of vertices on the cages' outside, and `filled`, the lowest and the highest corner
        of every cell that was filled inside."""
        edges, filled = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2), np.int64)]
        for number, cage in enumerate(self.stage.cages):
            start = int(self.stage.world.starts[number])
            surface = cage.surface
            sides = np.sort(np.concatenate([surface[:, [0, 1]], surface[:, [1, 2]], surface[:, [2, 0]]]), axis=1)
            edges.append(start + np.unique(sides, axis=0))
            if len(cage.filled_cells):
                tree = cKDTree(cage.vertices)
                ends = [tree.query(cage.filled_cells + shift * cage.cell)[1] for shift in (0.0, 1.0)]
                filled.append(start + np.stack(ends, axis=1))
        return {
            "edges": np.concatenate(edges).ravel().tolist(),
            "filled": np.concatenate(filled).ravel().tolist(),
        }

    def describe(self) -> dict[str, Any]:
        """All that the page must know besides `binding` and the frames."""
        stage, scene = self.stage, self.stage.scene
        contents, at = [], 0
        for name, array in self._arrays():
            contents.append({"name": name, "type": array.dtype.str, "shape": list(array.shape), "offset": at})
            at += array.nbytes
        world = stage.world
        return {
            "version": VERSION,
            "scene": scene.name,
            "splats": len(scene.gaussians),
            "degree": min(scene.gaussians.degree, 3),
            "vertices": len(world.x),
            "lower": self.lower.tolist(),
            "step": self.step,
            "rate": world.rate,
            "up": list(scene.up),
            "light": list(scene.light),
            "view": {"position": scene.view[0], "target": scene.view[1], "field_of_view": scene.view[2]},
            "objects": [
                {
                    "name": item.name,
                    "first": int(world.starts[number]),
                    "count": int(world.starts[number + 1] - world.starts[number]),
                    "material": vars(world.bodies[number].material),
                    "report": row,
                }
                for number, (item, row) in enumerate(zip(scene.objects, stage.report(), strict=True))
            ],
            "warnings": stage.warnings,
            "arrays": contents,
            "bytes": at,
        }

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        stage, g = self.stage, self.stage.scene.gaussians
        n = len(g)
        moving = np.full(n, -1, np.int32)
        owner = np.full(n, 255, np.uint8)
        indices, weights = [np.zeros((0, 20))], [np.zeros((0, 32))]
        count = 0
        for number, rows in enumerate(stage.rows):
            cage, e = stage.cages[number], stage.embeddings[number]
            moving[rows] = count + np.arange(len(rows))
            owner[rows] = number
            count += len(rows)
            tets = cage.tets + int(stage.world.starts[number])
            corner = np.concatenate([tets[e.tets], tets[e.centre_tets][:, None]], axis=1)
            inverse = np.zeros((len(rows), 3, 4), np.float32)
            inverse[..., :3] = e.inverse
            indices.append(corner.reshape(len(rows), 20))
            weights.append(
                np.concatenate([e.weights, e.centre_weights[:, None], inverse], axis=1).reshape(len(rows), 32)
            )
        degree = min(g.degree, 3)
        rest = g.harmonics[:, 1 : (degree + 1) ** 2].reshape(n, -1)
        padded = np.zeros((n, -(-rest.shape[1] // 4) * 4), "<f2")
        padded[:, : rest.shape[1]] = np.clip(rest, -60000, 60000)
        return [
            ("means", g.means.astype("<f4")),
            ("covariances", g.covariances().astype("<f4")),
            ("colours", (g.harmonics[:, 0] * 0.28209479177387814 + 0.5).astype("<f4")),
            ("opacities", g.opacities.astype("<f4")),
            ("exposure", stage.exposure.astype("<f4")),
            ("moving", moving.astype("<i4")),
            ("indices", np.concatenate(indices).astype("<u4")),
            ("weights", np.concatenate(weights).astype("<f4")),
            ("harmonics", padded),
            ("owner", owner),
        ]
