"""Soft bodies that fall, collide and are grabbed, in small deterministic steps."""

from __future__ import annotations

import copy
import hashlib
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from isometry.errors import InputError
from isometry.scenes.cage import Cage
from isometry.scenes.gaussians import Gaussians, rotation_matrices
from isometry.scenes.physics import contact, solver
from isometry.scenes.physics.materials import Material
from isometry.scenes.physics.solver import work_space
from isometry.scenes.physics.still import StillGrid

_HANDS = 8
_HISTORY = 5
_STIFFEST = 0.6


@dataclass
class Body:
    """One object: its cage, what it is made of, and the balls that touch others.

    Args:
        points: centres of the balls at rest `(p, 3)`.
        radius: theirs, in metres.
        pinned: cage vertices that never move `(v,)` bool, or None.
    """

    name: str
    cage: Cage
    material: Material
    points: np.ndarray
    radius: float
    pinned: np.ndarray | None = None


@dataclass
class _Hand:
    vertices: np.ndarray
    offsets: np.ndarray
    compliance: float
    position: np.ndarray
    quaternion: np.ndarray
    goal: np.ndarray
    goal_quaternion: np.ndarray
    past: deque = field(default_factory=lambda: deque(maxlen=_HISTORY))


class World:
    """Everything that moves. Lengths in metres, seconds, kilograms. The same calls give the same bits.

    Args:
        bodies: the objects, or none yet.
        gravity: `(3,)` m/s^2.
        plane: normal (3, length 1) and offset of a floor: points with n . x < offset are below it; None for none.
        still: signed distances of what stands still.
        rate: ticks a second.
        substeps: per tick.
        coloured: solve colours on all threads instead of one tetrahedron after the other; same result.
        fastest: speed limit in m/s.
        solver: 'numba' on the CPU, 'warp' for a GPU (equal up to rounding).
        device: of warp; None for a GPU where there is one.

    Attributes:
        x, v: vertices now `(n, 3)` float32.
        rest: `(n, 3)` float64.
        softened: per body, the share of the shear modulus that the cell size and the step allow (1 where all of it is
            used).
        lost: vertices put back so far.
    """

    def __init__(
        self,
        bodies: list[Body],
        *,
        gravity: tuple[float, float, float] = (0.0, -9.81, 0.0),
        plane: tuple[float, float, float, float] | None = (0.0, 1.0, 0.0, 0.0),
        still: StillGrid | None = None,
        rate: float = 60.0,
        substeps: int = 20,
        coloured: bool = False,
        fastest: float = 20.0,
        solver: str = "numba",
        device: str | None = None,
    ) -> None:
        if solver not in ("numba", "warp"):
            raise InputError(f"the solver is 'numba' or 'warp', not '{solver}'")
        if not 1 <= substeps <= 200 or not 1 <= rate <= 1000:
            raise InputError(f"a tick has 1 to 200 substeps, 1 to 1000 ticks a second, not {substeps} and {rate:g}")
        self.bodies = list(bodies)
        self.gravity = np.asarray(gravity, np.float32)
        self.plane = np.asarray(plane if plane is not None else (0, 0, 0, 0), np.float32)
        self.still = still or StillGrid.none()
        self.rate, self.substeps, self.coloured, self.fastest = float(rate), int(substeps), coloured, float(fastest)
        self.solver, self.device = solver, device
        self._steps = None
        if solver == "warp":
            from isometry.scenes.physics.on_warp import WarpSteps

            self._steps = WarpSteps(device)
        self.tick = 0
        self.lost = 0
        self.version = 0  # of everything but places and speeds
        self.paused = False
        sizes = [len(body.cage.vertices) for body in bodies]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.rest = np.concatenate([np.zeros((0, 3)), *(body.cage.vertices for body in bodies)])
        self.x = self.rest.astype(np.float32)
        self.v = np.zeros_like(self.x)
        self._before = self.x.copy()
        self._work = work_space()
        self._scale = np.ones(len(bodies))
        self.softened = np.ones(len(bodies))
        self._hands: dict[int, _Hand] = {}
        self._undo: deque = deque(maxlen=32)
        self._join_tets()
        self._join_points()
        for number, body in enumerate(bodies):
            self.set_material(number, body.material)

    def _join_tets(self) -> None:
        bodies = self.bodies
        none = np.zeros(0, np.int64)
        tets = np.concatenate(
            [none.reshape(0, 4), *(body.cage.tets + start for body, start in zip(bodies, self.starts, strict=False))]
        )
        owner = np.concatenate([none, *(np.full(len(body.cage.tets), n) for n, body in enumerate(bodies))])
        colour = np.concatenate(
            [none, *(np.repeat(np.arange(len(b.cage.colours) - 1), np.diff(b.cage.colours)) for b in bodies)]
        )
        order = np.lexsort((owner, colour))
        self._tet_place = np.empty(len(tets), np.int64)
        self._tet_place[order] = np.arange(len(tets))
        self.tets = np.ascontiguousarray(tets[order], np.int32)
        self.owner = owner[order]
        self._colours = np.searchsorted(colour[order], np.arange(colour.max(initial=-1) + 2)).astype(np.int64)
        corners = self.rest[self.tets]
        edges = (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
        self._rest_inverse = np.linalg.inv(edges)
        self._rest_volumes = np.linalg.det(edges) / 6.0
        self.inverse = self._rest_inverse.astype(np.float32)
        self.volumes = self._rest_volumes.astype(np.float32)
        m, n = len(tets), len(self.rest)
        self._soft = np.ones((m, 3), np.float32)
        self.w, self.damping = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self.masses = np.zeros(n)

    def _join_points(self) -> None:
        tet_starts = np.concatenate([[0], np.cumsum([len(body.cage.tets) for body in self.bodies])])
        tets, weights, owners, radii = [], [], [], []
        for number, body in enumerate(self.bodies):
            if not len(body.points):
                continue
            found, b = body.cage.locate(body.points)
            tets.append(self._tet_place[found + tet_starts[number]])
            weights.append(b)
            owners.append(np.full(len(found), number, np.int32))
            radii.append(np.full(len(found), body.radius, np.float32))
        self._p_tet = np.concatenate(tets) if tets else np.zeros(0, np.int64)
        self._p_weight = np.concatenate(weights).astype(np.float32) if tets else np.zeros((0, 4), np.float32)
        self._p_body = np.concatenate(owners) if tets else np.zeros(0, np.int32)
        self._p_radius = np.concatenate(radii) if tets else np.zeros(0, np.float32)
        colours = np.zeros(len(self._p_tet), np.int64)
        self._taken = np.zeros(len(self.rest), np.uint64)
        contact.colour_balls(self._p_tet, self.tets, self._taken, colours)
        order = np.argsort(colours, kind="stable")
        self._p_colours = np.searchsorted(colours[order], np.arange(colours.max(initial=-1) + 2)).astype(np.int64)
        self._p_tet, self._p_weight = self._p_tet[order], self._p_weight[order]
        self._p_body, self._p_radius = self._p_body[order], self._p_radius[order]
        # what overlaps at rest (an object cut out of a capture) must not push: such balls are smaller to still things
        self._p_slack = self._depths_at_rest()
        self._p_still_radius = self._p_radius - self._p_slack
        self._p_friction = np.zeros(len(self._p_tet), np.float32)
        self._points = np.zeros((len(self._p_tet), 3), np.float32)
        self._table = np.zeros((1 << max(8, math.ceil(math.log2(len(self._p_tet) * 2 + 1)))) + 1, np.int64)
        self._pairs = np.zeros((max(1024, 8 * len(self._p_tet)), 2), np.int64)
        self._pair_groups = np.zeros(66, np.int64)

    def _depths_at_rest(self) -> np.ndarray:
        points = np.zeros((len(self._p_tet), 3), np.float32)
        contact.place(self._p_tet, self._p_weight, self.tets, self.x, points)
        depths = np.zeros(len(points), np.float32)
        if self.still.distances.size > 1 and len(points):
            place = (points - self.still.origin) / self.still.cell
            there = ((place >= 0) & (place <= np.array(self.still.distances.shape) - 1)).all(axis=1)
            found = ndimage.map_coordinates(self.still.distances, place[there].T, order=1, mode="nearest")
            depths[there] = np.maximum(0, self._p_radius[there] - found)
        return depths

    def span(self, body: int) -> slice:
        """Rows of `x` that belong to a body."""
        return slice(int(self.starts[body]), int(self.starts[body + 1]))

    def set_material(self, body: int, material: Material) -> None:
        """Give a body another material; masses follow its density."""
        self._body(body)
        self.bodies[body].material = material
        self._set_masses(body)
        self.damping[self.span(body)] = material.damping
        self._p_friction[self._p_body == body] = material.friction
        self.version += 1

    def _set_masses(self, body: int) -> None:
        span, mine = self.span(body), self.owner == body
        weights = np.repeat(self.volumes[mine].astype(np.float64) / 4 * self.bodies[body].material.density, 4)
        masses = np.bincount(self.tets[mine].ravel() - span.start, weights, span.stop - span.start)
        self.masses[span] = masses
        self.w[span] = 1.0 / masses
        pinned = self.bodies[body].pinned
        self._set_stiffness(body)
        self.version += 1
        if pinned is not None:
            self.w[span][pinned] = 0.0

    def _set_stiffness(self, body: int) -> None:
        # Shear acts like an explicit step in this solver: beyond _STIFFEST it would swing up, so it is capped per
        # tetrahedron, and `softened` says how much of the wanted stiffness is left.
        mine = self.owner == body
        lam, mu = self.bodies[body].material.lame
        h = 1.0 / self.rate / self.substeps
        rows = self.inverse[mine].astype(np.float64)
        slopes = np.concatenate([-rows.sum(axis=1, keepdims=True), rows], axis=1)
        reach = (self.w[self.tets[mine]] * (slopes**2).sum(axis=2)).sum(axis=1)
        volumes = self.volumes[mine].astype(np.float64)
        used = np.minimum(mu, _STIFFEST / (reach * volumes * h * h))
        self.softened[body] = used.mean() / mu
        self._soft[mine, 0], self._soft[mine, 1] = 1 / (used * volumes), 1 / ((lam + used) * volumes)
        self._soft[mine, 2] = used / (lam + used)

    def set_substeps(self, substeps: int) -> None:
        """Small steps per tick from now on, 1 to 200; fewer are faster and softer."""
        if not 1 <= substeps <= 200:
            raise InputError(f"a tick has 1 to 200 small steps, not {substeps}")
        self.substeps = int(substeps)
        for body in range(len(self.bodies)):
            self._set_masses(body)

    def prepare(self) -> None:
        """Compile what a tick needs, on a copy: the first tick after an installation takes many seconds otherwise."""
        twin = copy.copy(self)
        for name in ("x", "v", "_before"):
            setattr(twin, name, getattr(self, name).copy())
        twin._hands, twin.paused = {}, False
        twin.step()

    def step(self) -> None:
        """One tick: `substeps` small steps of 1 / rate / substeps seconds."""
        self.tick += 1
        if self.paused:
            return
        h = np.float32(1.0 / self.rate / self.substeps)
        reach = 2 * float(self._p_radius.max(initial=0.0)) + 2 * self.fastest_now() / self.rate
        count = 0
        if len(self.bodies) > 1 and reach > 0:
            contact.place(self._p_tet, self._p_weight, self.tets, self.x, self._points)
            count = contact.near_pairs(self._points, self._p_body, np.float32(reach), self._table, self._pairs)
            if count > len(self._pairs):
                self._pairs = np.zeros((2 * count, 2), np.int64)
                contact.near_pairs(self._points, self._p_body, np.float32(reach), self._table, self._pairs)
        colours = np.zeros(count, np.int64)
        contact.sort_pairs(count, self._pairs, self._p_tet, self.tets, self._taken, colours, self._pair_groups)
        if self._steps is not None:
            if len(self.x):
                self.lost += self._steps.run(self, self.substeps, self._pairs[:count], self._pair_groups)
            self._arrive()
            return
        material = (self.tets, self.inverse, self._soft, self.w, self.x, h, self._work)
        state = (self._p_friction, self.tets, self.w, self.x, self._before)
        balls = (self._p_tet, self._p_weight, self._p_radius, *state)
        on_still = (self._p_tet, self._p_weight, self._p_still_radius, *state)
        touching = self.plane.any() or self.still.distances.size > 1
        for number in range(self.substeps):
            solver.predict(self.x, self.v, self._before, self.w, *self.gravity, h)
            for hand in self._hands.values():
                targets = self.targets(hand, (number + 1) / self.substeps)
                solver.pull(hand.vertices, targets, np.float32(hand.compliance), self.w, self.x, h)
            if self.coloured:
                solver.relax_coloured(self._colours, *material)
            else:
                solver.relax(self._colours, *material)
            if count:
                contact.against_each_other(count, self._pairs, *balls)
            if touching:
                contact.against_still(
                    *on_still, self.plane, self.still.distances, self.still.origin, np.float32(self.still.cell)
                )
            self.lost += solver.finish(self.x, self.v, self._before, self.w, self.damping, h, np.float32(self.fastest))
        self._arrive()

    def _arrive(self) -> None:
        for hand in self._hands.values():
            hand.position, hand.quaternion = hand.goal, hand.goal_quaternion

    def targets(self, hand: _Hand, share: float) -> np.ndarray:
        """Where a hand wants its vertices after `share` of the tick, `(k, 3)` float32."""
        position = hand.position + share * (hand.goal - hand.position)
        sign = 1.0 if hand.quaternion @ hand.goal_quaternion >= 0 else -1.0
        quaternion = (1 - share) * hand.quaternion + share * sign * hand.goal_quaternion
        turned = hand.offsets @ rotation_matrices(quaternion[None])[0].T
        return np.ascontiguousarray(position + turned, np.float32)

    def fastest_now(self) -> float:
        """Largest speed of a vertex, m/s."""
        return float(np.sqrt((self.v.astype(np.float64) ** 2).sum(axis=1).max(initial=0.0)))

    def grab(
        self,
        hand: int,
        position: np.ndarray,
        *,
        quaternion: np.ndarray | None = None,
        radius: float = 0.05,
        body: int | None = None,
        compliance: float = 1e-5,
    ) -> int | None:
        """Take the cage vertices within `radius` of a hand; gives the body, or None where nothing is in reach.

        The nearest vertex decides which body. Compliance is in metre per newton: two hands can pull against each other.
        """
        if not 0 <= hand < _HANDS:
            raise InputError(f"hands are numbered 0 to {_HANDS - 1} and this one is {hand}")
        position = np.asarray(position, np.float64)
        quaternion = np.array([1.0, 0, 0, 0]) if quaternion is None else np.asarray(quaternion, np.float64)
        distance = np.linalg.norm(self.x - position, axis=1)
        distance[self.w == 0] = np.inf
        if not len(distance):
            return None
        if body is not None:
            self._body(body)
            outside = np.ones(len(distance), bool)
            outside[self.span(body)] = False
            distance[outside] = np.inf
        nearest = int(np.argmin(distance))
        if not distance[nearest] <= radius:
            return None
        found = int(np.searchsorted(self.starts, nearest, side="right") - 1)
        span = self.span(found)
        rows = span.start + np.nonzero(distance[span] <= radius)[0]
        self.remember()
        rotation = rotation_matrices(quaternion[None])[0]
        offsets = (self.x[rows] - position) @ rotation
        self._hands[hand] = _Hand(rows, offsets, compliance, position, quaternion, position, quaternion)
        self._hands[hand].past.append((self.tick, position.copy()))
        return found

    def move(self, hand: int, position: np.ndarray, quaternion: np.ndarray | None = None) -> None:
        """Where a hand shall be at the end of the next tick; a hand that holds nothing is ignored."""
        held = self._hands.get(hand)
        if held is not None:
            held.goal = np.asarray(position, np.float64)
            if held.past[-1][0] == self.tick and len(held.past) > 1:
                held.past.pop()
            held.past.append((self.tick, held.goal.copy()))
            if quaternion is not None:
                held.goal_quaternion = np.asarray(quaternion, np.float64)

    def release(self, hand: int) -> None:
        """Let go: the held vertices leave with the hand's mean velocity over its last five poses."""
        held = self._hands.pop(hand, None)
        if held is None:
            return
        poses = [pose for pose in held.past if self.tick - pose[0] <= 0.5 * self.rate]
        if len(poses) > 1:
            # poses come as seldom as the hand's display draws; one that came long ago means that the hand has stopped
            ticks = max(poses[-1][0] - poses[0][0], self.tick - poses[0][0] - 1)
            velocity = (poses[-1][1] - poses[0][1]) * self.rate / max(1, ticks)
            speed = np.linalg.norm(velocity)
            if speed > self.fastest:
                velocity *= self.fastest / speed
            self.v[held.vertices] = velocity

    def pin(self, hand: int) -> int | None:
        """Nail what a hand holds to where it is now; gives the body, or None where the hand is empty."""
        held = self._hands.get(hand)
        if held is None:
            return None
        found = int(np.searchsorted(self.starts, held.vertices[0], side="right") - 1)
        self.remember()
        pinned = self._pinned(found).copy()
        pinned[held.vertices - self.span(found).start] = True
        self._set_pinned(found, pinned)
        return found

    def unpin(self, body: int) -> None:
        """Free all pinned vertices of a body."""
        self._body(body)
        self.remember()
        self._set_pinned(body, np.zeros(len(self.bodies[body].cage.vertices), bool))

    def _pinned(self, body: int) -> np.ndarray:
        pinned = self.bodies[body].pinned
        return np.zeros(len(self.bodies[body].cage.vertices), bool) if pinned is None else pinned

    def _set_pinned(self, body: int, pinned: np.ndarray) -> None:
        self.bodies[body].pinned = pinned if pinned.any() else None
        self.v[self.span(body)][pinned] = 0.0
        self._set_masses(body)

    def held(self) -> dict[int, np.ndarray]:
        """Vertices that each hand holds."""
        return {hand: held.vertices for hand, held in self._hands.items()}

    def grip(self, hand: int) -> np.ndarray:
        """Where the vertices that a hand holds lie in the hand's own frame `(k, 3)`; they stay there while it moves."""
        held = self._hands.get(hand)
        return np.zeros((0, 3)) if held is None else held.offsets

    def transform(
        self, body: int, *, move: np.ndarray | None = None, turn: np.ndarray | None = None, scale: float = 1.0
    ) -> None:
        """Move, turn (quaternion) and scale a body about its centre, at rest as well as now; it stops moving."""
        self._body(body)
        if not (math.isfinite(scale) and 0.05 <= scale * self._scale[body] <= 20):
            raise InputError(f"a body can be scaled to between 0.05 and 20 times its size, not {scale:g} times")
        self.remember()
        span, mine = self.span(body), self.owner == body
        centre = self.x[span].mean(axis=0, dtype=np.float64)
        rotation = np.eye(3) if turn is None else rotation_matrices(np.asarray(turn, np.float64)[None])[0]
        shift = np.zeros(3) if move is None else np.asarray(move, np.float64)
        self.x[span] = (self.x[span] - centre) @ rotation.T * scale + centre + shift
        self.v[span] = 0.0
        self._rescale(body, self._scale[body] * scale, mine)

    def _rescale(self, body: int, scale: float, mine: np.ndarray) -> None:
        self._scale[body] = scale
        self.inverse[mine] = self._rest_inverse[mine] / scale
        self.volumes[mine] = self._rest_volumes[mine] * scale**3
        balls = self._p_body == body
        self._p_radius[balls] = self.bodies[body].radius * scale
        self._p_still_radius[balls] = self._p_radius[balls] - self._p_slack[balls]
        self._set_masses(body)

    def remember(self) -> None:
        """Keep the present state for `undo`."""
        pins = [body.pinned for body in self.bodies]
        self._undo.append((self.x.copy(), self.v.copy(), self._scale.copy(), pins))

    def undo(self) -> bool:
        """Back to before the last grab, pin, transform or reset; False where nothing is left to undo."""
        if not self._undo:
            return False
        self._hands.clear()
        self.x, self.v, scales, pins = self._undo.pop()
        self._set_scales(scales)
        for number, pinned in enumerate(pins):
            if pinned is not self.bodies[number].pinned:
                self._set_pinned(number, self._pinned(number) & False if pinned is None else pinned)
        return True

    def reset(self) -> None:
        """Everything back to rest; undo brings it back."""
        self.remember()
        self._hands.clear()
        self.x, self.v = self.rest.astype(np.float32), np.zeros_like(self.v)
        self._set_scales(np.ones(len(self.bodies)))

    def _set_scales(self, scales: np.ndarray) -> None:
        for body in np.nonzero(scales != self._scale)[0]:
            self._rescale(int(body), float(scales[body]), self.owner == body)

    def take_over(self, body: int, other: World, its: int) -> None:
        """Give a body the place, motion, size, pins and material of the same body in another world."""
        self.x[self.span(body)] = other.x[other.span(its)]
        self.v[self.span(body)] = other.v[other.span(its)]
        self.bodies[body].pinned = other.bodies[its].pinned
        self.set_material(body, other.bodies[its].material)
        if other._scale[its] != 1:
            self._rescale(body, float(other._scale[its]), self.owner == body)

    def digest(self) -> str:
        """Fingerprint of positions and velocities: equal runs give equal ones."""
        state = hashlib.blake2b(self.x.tobytes(), digest_size=8)
        state.update(self.v.tobytes())
        return state.hexdigest()

    def _body(self, body: int) -> None:
        if not 0 <= body < len(self.bodies):
            raise InputError(f"there are {len(self.bodies)} bodies, numbered from 0, and none is {body}")


def contact_points(gaussians: Gaussians, spacing: float) -> np.ndarray:
    """About one point per `spacing` on the outside of an object `(p, 3)` float64: where its balls sit.

    The Gaussians are averaged per lattice cell; cells with no empty neighbour lie inside and give none.
    """
    points = gaussians.means[gaussians.opacities > 0.1].astype(np.float64)
    if not len(points):
        return np.zeros((0, 3))
    cells = np.floor(points / spacing).astype(np.int64)
    unique, inverse, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.ravel()
    means = np.stack([np.bincount(inverse, points[:, a]) for a in range(3)], axis=1) / counts[:, None]
    low = unique.min(axis=0) - 1
    grid = np.zeros(unique.max(axis=0) - low + 2, bool)
    grid[tuple((unique - low).T)] = True
    outer = np.zeros(len(unique), bool)
    for axis in range(3):
        for side in (-1, 1):
            neighbour = unique - low
            neighbour[:, axis] += side
            outer |= ~grid[tuple(neighbour.T)]
    return means[outer]
