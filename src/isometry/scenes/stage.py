"""A scene made ready to move: cages, embeddings and the world of soft bodies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.scenes.cage import Cage
from isometry.scenes.embedding import Embedding, bind, deform
from isometry.scenes.files.cameras import Camera, look_at
from isometry.scenes.meshed import object_cage
from isometry.scenes.physics import Body, World, contact_points, still_grid
from isometry.scenes.physics.still import StillGrid
from isometry.scenes.raster import Rendering, harmonics, splat
from isometry.scenes.resting import drops, sentences
from isometry.scenes.scene import Scene
from isometry.scenes.shadows import lit_shares

GRAVITY = 9.81


@dataclass(frozen=True)
class Pose:
    """All Gaussians now: means `(n, 3)`, covariances `(n, 6)`, turns of the harmonics `(n, 3, 3)`, all float32."""

    means: np.ndarray
    covariances: np.ndarray
    turns: np.ndarray


class Stage:
    """Scene + physics. Objects keep their order; everything else stands still.

    Args:
        scene: with at least one object, unless `empty`.
        rate: ticks a second.
        substeps: per tick.
        coloured: solve on all threads.
        levels: of the embedding, 2 as in the paper.
        empty: take a scene without objects too: some may be selected later.
        solver, device: of `World`.

    Raises:
        InputError: a scene without objects.
    """

    def __init__(
        self, scene: Scene, *, rate: float = 60.0, substeps: int = 12, coloured: bool = False, levels: int = 2,
        empty: bool = False, solver: str = "numba", device: str | None = None,
    ) -> None:  # fmt: skip
        if not scene.objects and not empty:
            raise InputError(
                f"scene '{scene.name}' has no objects, so nothing in it can move; select some on the page of 'isometry "
                "scene view', or make them from masks with 'isometry scene lift'"
            )
        began = time.perf_counter()
        self.scene = scene
        self._levels = levels
        self.rows: list[np.ndarray] = []
        self.cages: list[Cage] = []
        self.embeddings: list[Embedding] = []
        bodies = []
        for item in scene.objects:
            rows = np.nonzero(scene.labels == item.label)[0]
            part = scene.gaussians.select(rows)
            cage = object_cage(part, item.mesher, vertices=item.vertices)
            self.rows.append(rows)
            self.cages.append(cage)
            self.embeddings.append(bind(part, cage, levels=levels))
            spacing = 0.8 * cage.cell
            bodies.append(Body(item.name, cage, item.material, contact_points(part, spacing), 0.55 * spacing))
        still = scene.gaussians.select(scene.labels == 0)
        up = np.asarray(scene.up, np.float64) / np.linalg.norm(scene.up)
        grid = still_grid(still, cell=scene.collision_cell) if len(still) else StillGrid.none()
        self.falls = drops(bodies, grid, scene.plane, up)
        self.world = World(
            bodies,
            gravity=tuple(-GRAVITY * up),
            plane=scene.plane,
            still=grid,
            rate=rate,
            substeps=substeps,
            coloured=coloured,
            solver=solver,
            device=device,
        )
        self._covariances = scene.gaussians.covariances()
        self.exposure = self._exposure()
        self.seconds = time.perf_counter() - began

    def _exposure(self) -> np.ndarray:
        # what the table hides from the light is in its captured shade already: no second shadow there
        still = self.scene.labels == 0
        share = np.ones(len(still), np.float32)
        if still.any():
            g = self.scene.gaussians
            lit = lit_shares(
                g.means, self._covariances, g.opacities, np.asarray(self.scene.light), casts=still, bias=0.03
            )
            share[still] = lit[still]
        return share

    def adopt(self, scene: Scene) -> None:
        """Go on with another division of the same Gaussians into objects; those that stay keep where and how they move.

        Undo reaches back to here only, and hands let go.
        """
        world = self.world
        new = Stage(
            scene, rate=world.rate, substeps=world.substeps, coloured=world.coloured, levels=self._levels, empty=True,
            solver=world.solver, device=world.device,
        )  # fmt: skip
        for number, rows in enumerate(new.rows):
            for old, before in enumerate(self.rows):
                if len(rows) == len(before) and np.array_equal(rows, before):
                    new.world.take_over(number, world, old)
        new.world.tick, new.world.gravity, new.world.paused = world.tick, world.gravity, world.paused
        self.__dict__ = new.__dict__

    @property
    def warnings(self) -> list[str]:
        """A sentence per object that stands on nothing, and one where what stands still is felt more coarsely than asked."""
        said = sentences([item.name for item in self.scene.objects], self.falls)
        cell, wanted = self.world.still.cell, self.scene.collision_cell
        if self.world.still.distances.size > 1 and cell > 1.01 * wanted:
            said.append(
                f"this scene is so large that objects feel it to {cell:.2g} m instead of {wanted:.2g} m: cut away what is far"
            )
        return said

    def report(self) -> list[dict[str, Any]]:
        """Per object: splats, vertices, tetrahedra, filled cells, pieces, bind seconds, bytes, share of fallbacks."""
        rows = []
        for number, item in enumerate(self.scene.objects):
            cage, embedding = self.cages[number], self.embeddings[number]
            rows.append(
                {
                    "object": item.name,
                    "splats": len(self.rows[number]),
                    "vertices": len(cage.vertices),
                    "tets": len(cage.tets),
                    "cell": cage.cell,
                    "filled_cells": cage.filled,
                    "pieces": cage.pieces,
                    "bind_seconds": embedding.seconds,
                    "bind_bytes": embedding.bytes,
                    "fallback_share": embedding.fallback_share,
                    "stiffness_used": float(self.world.softened[number]),
                }
            )
        return rows

    def pose(self) -> Pose:
        """Where every Gaussian is now."""
        means = self.scene.gaussians.means.copy()
        covariances = self._covariances.copy()
        turns = np.tile(np.eye(3, dtype=np.float32), (len(means), 1, 1))
        for number, rows in enumerate(self.rows):
            x = self.world.x[self.world.span(number)]
            m, c, _, r = deform(self.embeddings[number], self.cages[number], x, self._covariances[rows], turns=True)
            means[rows], covariances[rows], turns[rows] = m, c, r
        return Pose(means, covariances, turns)

    def camera(self, width: int, height: int) -> Camera:
        """The scene's own view at this size."""
        position, target, field = self.scene.view
        return look_at(
            np.asarray(position), np.asarray(target), up=np.asarray(self.scene.up), width=width, height=height,
            field_of_view=field, name="view",
        )  # fmt: skip

    def picture(
        self,
        camera: Camera,
        *,
        background: tuple[float, float, float] = (0.93, 0.94, 0.96),
        shadows: bool = True,
        threads: int | None = None,
    ) -> Rendering:
        """What a camera sees now."""
        gaussians, pose = self.scene.gaussians, self.pose()
        colours = np.empty((len(gaussians), 3), np.float32)
        eye = camera.position.astype(np.float32)
        degree = min(gaussians.degree, 3)
        harmonics.colours(pose.means, gaussians.harmonics, pose.turns, eye, degree, colours)
        if shadows:
            casts = self.scene.labels > 0
            light = np.asarray(self.scene.light)
            lit = lit_shares(
                pose.means, pose.covariances, gaussians.opacities, light, casts=casts, exposure=self.exposure
            )
            colours *= (0.5 + 0.5 * lit)[:, None]
        return splat(
            pose.means, pose.covariances, gaussians.opacities, colours, camera, background=background, threads=threads
        )
