# mypy: ignore-errors
"""The small steps of `solver` and `contact` as warp kernels: the same arithmetic, colour by colour, for a GPU.

Tetrahedra, balls and touching pairs come sorted by colour; things of one colour share no vertex, so the order within a
colour does not matter and the result is the serial one up to rounding. Only a tick's first and last state cross over.
Tests hold them to `solver`: on warp's CPU device where warp is installed, else run as plain Python. No GPU was at hand.
"""

# no postponed annotations here: warp reads them as types
import itertools
from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError

try:
    import warp as wp
except ImportError as error:
    raise MissingExtraError("the warp solver", "gpu") from error

wp.config.quiet = True


@wp.kernel
def _predict(
    x: wp.array(dtype=wp.vec3), v: wp.array(dtype=wp.vec3), previous: wp.array(dtype=wp.vec3), w: wp.array(dtype=float),
    gravity: wp.vec3, h: float,
):  # fmt: skip
    i = wp.tid()
    previous[i] = x[i]
    if w[i] > 0.0:
        v[i] = v[i] + h * gravity
        x[i] = x[i] + h * v[i]


@wp.kernel
def _pull(
    vertices: wp.array(dtype=int), targets: wp.array(dtype=wp.vec3), compliance: float, w: wp.array(dtype=float),
    x: wp.array(dtype=wp.vec3), h: float,
):  # fmt: skip
    k = wp.tid()
    i = vertices[k]
    share = w[i] / (w[i] + compliance / (h * h) + 1.0e-30)
    x[i] = x[i] + share * (targets[k] - x[i])


@wp.kernel
def _relax(
    first: int, tets: wp.array2d(dtype=int), inverse: wp.array(dtype=wp.mat33), soft: wp.array(dtype=wp.vec3),
    w: wp.array(dtype=float), x: wp.array(dtype=wp.vec3), over: float,
):  # fmt: skip
    t = first + wp.tid()
    i0 = tets[t, 0]
    i1 = tets[t, 1]
    i2 = tets[t, 2]
    i3 = tets[t, 3]
    w0 = w[i0]
    w1 = w[i1]
    w2 = w[i2]
    w3 = w[i3]
    if w0 + w1 + w2 + w3 == 0.0:
        return
    q = inverse[t]
    a = x[i1] - x[i0]
    b = x[i2] - x[i0]
    c = x[i3] - x[i0]
    f = wp.outer(a, q[0]) + wp.outer(b, q[1]) + wp.outer(c, q[2])
    f0 = f[0]
    f1 = f[1]
    f2 = f[2]
    c0 = wp.cross(f1, f2)
    c1 = wp.cross(f2, f0)
    c2 = wp.cross(f0, f1)
    det = wp.dot(f0, c0)
    norm = wp.sqrt(wp.dot(f0, f0) + wp.dot(f1, f1) + wp.dot(f2, f2))
    if norm < 1.0e-3:  # crushed to a point: any direction out will do
        f0 = wp.vec3(1.0e-3, f0[1], f0[2])
        f1 = wp.vec3(f1[0], 1.0e-3, f1[2])
        f2 = wp.vec3(f2[0], f2[1], 1.0e-3)
        norm = 1.7320508e-3
    s = 1.0 / norm
    d1 = s * wp.vec3(wp.dot(f0, q[0]), wp.dot(f1, q[0]), wp.dot(f2, q[0]))
    d2 = s * wp.vec3(wp.dot(f0, q[1]), wp.dot(f1, q[1]), wp.dot(f2, q[1]))
    d3 = s * wp.vec3(wp.dot(f0, q[2]), wp.dot(f1, q[2]), wp.dot(f2, q[2]))
    d0 = -(d1 + d2 + d3)
    g1 = wp.vec3(wp.dot(c0, q[0]), wp.dot(c1, q[0]), wp.dot(c2, q[0]))
    g2 = wp.vec3(wp.dot(c0, q[1]), wp.dot(c1, q[1]), wp.dot(c2, q[1]))
    g3 = wp.vec3(wp.dot(c0, q[2]), wp.dot(c1, q[2]), wp.dot(c2, q[2]))
    g0 = -(g1 + g2 + g3)
    dd = wp.float64(w0 * wp.dot(d0, d0) + w1 * wp.dot(d1, d1) + w2 * wp.dot(d2, d2) + w3 * wp.dot(d3, d3)) + wp.float64(
        soft[t][0] * over
    )
    gg = wp.float64(w0 * wp.dot(g0, g0) + w1 * wp.dot(g1, g1) + w2 * wp.dot(g2, g2) + w3 * wp.dot(g3, g3)) + wp.float64(
        soft[t][1] * over
    )
    dg = wp.float64(w0 * wp.dot(d0, g0) + w1 * wp.dot(d1, g1) + w2 * wp.dot(d2, g2) + w3 * wp.dot(d3, g3))
    first_off = -wp.float64(norm)
    if norm < 1.0:  # the energy has a second rest at F = 0: a crushed tetrahedron is pushed out of it
        first_off = wp.float64(1.3 - norm)
    second = -(wp.float64(det) - wp.float64(1.0) - wp.float64(soft[t][2]))
    below = wp.float64(1.0) / (dd * gg - dg * dg)
    p = wp.float32((gg * first_off - dg * second) * below)
    r = wp.float32((dd * second - dg * first_off) * below)
    x[i0] = x[i0] + w0 * (p * d0 + r * g0)
    x[i1] = x[i1] + w1 * (p * d1 + r * g1)
    x[i2] = x[i2] + w2 * (p * d2 + r * g2)
    x[i3] = x[i3] + w3 * (p * d3 + r * g3)


@wp.func
def _carried(
    p: int, ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4), tets: wp.array2d(dtype=int),
    x: wp.array(dtype=wp.vec3),
):  # fmt: skip
    t = ball_tet[p]
    b = ball_weight[p]
    return b[0] * x[tets[t, 0]] + b[1] * x[tets[t, 1]] + b[2] * x[tets[t, 2]] + b[3] * x[tets[t, 3]]


@wp.func
def _mobility(
    p: int, ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4), tets: wp.array2d(dtype=int),
    w: wp.array(dtype=float),
):  # fmt: skip
    t = ball_tet[p]
    b = ball_weight[p]
    return (
        w[tets[t, 0]] * b[0] * b[0]
        + w[tets[t, 1]] * b[1] * b[1]
        + w[tets[t, 2]] * b[2] * b[2]
        + w[tets[t, 3]] * b[3] * b[3]
    )


@wp.func
def _push(
    p: int, ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4), tets: wp.array2d(dtype=int),
    w: wp.array(dtype=float), x: wp.array(dtype=wp.vec3), push: wp.vec3,
):  # fmt: skip
    t = ball_tet[p]
    b = ball_weight[p]
    for k in range(4):
        i = tets[t, k]
        x[i] = x[i] + w[i] * b[k] * push


@wp.func
def _resolve(
    p: int, ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4), tets: wp.array2d(dtype=int),
    w: wp.array(dtype=float), x: wp.array(dtype=wp.vec3), here: wp.vec3, before: wp.vec3, normal: wp.vec3, depth: float,
    friction: float,
):  # fmt: skip
    mobility = _mobility(p, ball_tet, ball_weight, tets, w)
    if mobility > 0.0:
        slip = here - before
        slip = slip - wp.dot(slip, normal) * normal
        hold = wp.min(1.0, friction * depth / wp.max(wp.length(slip), 1.0e-12))
        _push(p, ball_tet, ball_weight, tets, w, x, (depth * normal - hold * slip) / mobility)


@wp.kernel
def _against_still(
    first: int, ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4), radius: wp.array(dtype=float),
    friction: wp.array(dtype=float), tets: wp.array2d(dtype=int), w: wp.array(dtype=float), x: wp.array(dtype=wp.vec3),
    previous: wp.array(dtype=wp.vec3), normal: wp.vec3, offset: float, grid: wp.array3d(dtype=float), origin: wp.vec3,
    cell: float,
):  # fmt: skip
    p = first + wp.tid()
    here = _carried(p, ball_tet, ball_weight, tets, x)
    if wp.dot(normal, normal) > 0.0:
        depth = radius[p] - (wp.dot(normal, here) - offset)
        if depth > 0.0:
            before = _carried(p, ball_tet, ball_weight, tets, previous)
            _resolve(p, ball_tet, ball_weight, tets, w, x, here, before, normal, depth, friction[p])
            here = _carried(p, ball_tet, ball_weight, tets, x)
    if grid.shape[0] > 1:
        at = (here - origin) / cell
        if at[0] < 0.0 or at[1] < 0.0 or at[2] < 0.0:
            return
        i = int(at[0])
        j = int(at[1])
        k = int(at[2])
        if i >= grid.shape[0] - 1 or j >= grid.shape[1] - 1 or k >= grid.shape[2] - 1:
            return
        u = at[0] - float(i)
        v = at[1] - float(j)
        s = at[2] - float(k)
        g000 = grid[i, j, k]
        g001 = grid[i, j, k + 1]
        g010 = grid[i, j + 1, k]
        g011 = grid[i, j + 1, k + 1]
        g100 = grid[i + 1, j, k]
        g101 = grid[i + 1, j, k + 1]
        g110 = grid[i + 1, j + 1, k]
        g111 = grid[i + 1, j + 1, k + 1]
        l00 = g000 + u * (g100 - g000)
        l01 = g001 + u * (g101 - g001)
        l10 = g010 + u * (g110 - g010)
        l11 = g011 + u * (g111 - g011)
        m0 = l00 + v * (l10 - l00)
        m1 = l01 + v * (l11 - l01)
        deep = radius[p] - (m0 + s * (m1 - m0))
        if deep <= 0.0:
            return
        out = wp.vec3(
            (1.0 - v) * ((1.0 - s) * (g100 - g000) + s * (g101 - g001))
            + v * ((1.0 - s) * (g110 - g010) + s * (g111 - g011)),
            (1.0 - s) * (l10 - l00) + s * (l11 - l01),
            m1 - m0,
        )
        size = wp.length(out)
        if size < 1.0e-9:
            return
        was = _carried(p, ball_tet, ball_weight, tets, previous)
        _resolve(p, ball_tet, ball_weight, tets, w, x, here, was, out / size, deep, friction[p])


@wp.func
def _apart(
    n: int, pairs: wp.array2d(dtype=int), ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4),
    radius: wp.array(dtype=float), friction: wp.array(dtype=float), tets: wp.array2d(dtype=int), w: wp.array(dtype=float),
    x: wp.array(dtype=wp.vec3), previous: wp.array(dtype=wp.vec3),
):  # fmt: skip
    p = pairs[n, 0]
    q = pairs[n, 1]
    a = _carried(p, ball_tet, ball_weight, tets, x)
    b = _carried(q, ball_tet, ball_weight, tets, x)
    normal = a - b
    distance = wp.length(normal)
    depth = radius[p] + radius[q] - distance
    if depth > 0.0 and distance >= 1.0e-9:
        mobility = _mobility(p, ball_tet, ball_weight, tets, w) + _mobility(q, ball_tet, ball_weight, tets, w)
        if mobility > 0.0:
            normal = normal / distance
            slip = (a - _carried(p, ball_tet, ball_weight, tets, previous)) - (
                b - _carried(q, ball_tet, ball_weight, tets, previous)
            )
            slip = slip - wp.dot(slip, normal) * normal
            rough = wp.sqrt(friction[p] * friction[q])
            hold = wp.min(1.0, rough * depth / wp.max(wp.length(slip), 1.0e-12))
            push = (depth * normal - hold * slip) / mobility
            _push(p, ball_tet, ball_weight, tets, w, x, push)
            _push(q, ball_tet, ball_weight, tets, w, x, -push)


@wp.kernel
def _against_each_other(
    first: int, pairs: wp.array2d(dtype=int), ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4),
    radius: wp.array(dtype=float), friction: wp.array(dtype=float), tets: wp.array2d(dtype=int), w: wp.array(dtype=float),
    x: wp.array(dtype=wp.vec3), previous: wp.array(dtype=wp.vec3),
):  # fmt: skip
    _apart(first + wp.tid(), pairs, ball_tet, ball_weight, radius, friction, tets, w, x, previous)


@wp.kernel
def _against_each_other_in_order(
    first: int, last: int, pairs: wp.array2d(dtype=int), ball_tet: wp.array(dtype=int), ball_weight: wp.array(dtype=wp.vec4),
    radius: wp.array(dtype=float), friction: wp.array(dtype=float), tets: wp.array2d(dtype=int), w: wp.array(dtype=float),
    x: wp.array(dtype=wp.vec3), previous: wp.array(dtype=wp.vec3),
):  # fmt: skip
    for n in range(first, last):
        _apart(n, pairs, ball_tet, ball_weight, radius, friction, tets, w, x, previous)


@wp.kernel
def _finish(
    x: wp.array(dtype=wp.vec3), v: wp.array(dtype=wp.vec3), previous: wp.array(dtype=wp.vec3), w: wp.array(dtype=float),
    damping: wp.array(dtype=float), h: float, fastest: float, lost: wp.array(dtype=int),
):  # fmt: skip
    i = wp.tid()
    if w[i] == 0.0:
        v[i] = wp.vec3(0.0, 0.0, 0.0)
        return
    step = (x[i] - previous[i]) / h
    speed = wp.length(step)
    if not wp.isfinite(speed):
        x[i] = previous[i]
        v[i] = wp.vec3(0.0, 0.0, 0.0)
        wp.atomic_add(lost, 0, 1)
        return
    keep = wp.exp(-damping[i] * h)
    if speed > fastest:
        shrink = fastest / speed
        x[i] = previous[i] + step * shrink * h
        keep = keep * shrink
    v[i] = step * keep


class WarpSteps:
    """The substeps of a world's tick on one of warp's devices.

    Args:
        device: 'cpu', 'cuda', 'cuda:1', or None for a GPU where there is one and else the CPU.

    Raises:
        InputError: no such device here.
    """

    def __init__(self, device: str | None = None) -> None:
        wp.init()
        known = [found.alias for found in wp.get_devices()]
        if device is None:
            device = "cuda:0" if "cuda:0" in known else "cpu"
        device = "cuda:0" if device == "cuda" else device
        if device not in known:
            raise InputError(f"warp finds no device '{device}' here; it has {', '.join(known)}")
        self.device = device
        self._version = -1
        self._arrays: dict[str, Any] = {}

    def run(self, world: Any, substeps: int, pairs: np.ndarray, pair_groups: np.ndarray) -> int:
        """Moves the world's `x` and `v` by one tick; gives how many vertices were put back.

        Args:
            pairs: `(m, 2)` balls that may touch, sorted by group.
            pair_groups: starts of the groups, the last group to be solved in order.
        """
        if self._version != world.version:
            self._upload(world)
        at, launch, device = self._arrays, wp.launch, self.device
        x = wp.array(world.x, dtype=wp.vec3, device=device)
        v = wp.array(world.v, dtype=wp.vec3, device=device)
        before = wp.zeros_like(x)
        lost = wp.zeros(1, dtype=int, device=device)
        touching = wp.array(np.ascontiguousarray(pairs, np.int32).reshape(-1, 2), dtype=int, device=device)
        h = 1.0 / world.rate / substeps
        n, over = len(world.x), 1.0 / np.float32(h) ** 2
        balls = [at["ball_tet"], at["ball_weight"], at["radius"], at["friction"], at["tets"], at["w"], x, before]
        on_still = [at["ball_tet"], at["ball_weight"], at["still_radius"], *balls[3:]]
        still = [at["normal"], at["offset"], at["grid"], at["origin"], at["cell"]]
        held = [
            (wp.array(hand.vertices.astype(np.int32), dtype=int, device=device), float(hand.compliance), hand)
            for hand in world._hands.values()
        ]
        for number in range(substeps):
            launch(_predict, n, [x, v, before, at["w"], wp.vec3(*world.gravity.tolist()), h], device=device)
            for vertices, compliance, hand in held:
                targets = wp.array(world.targets(hand, (number + 1) / substeps), dtype=wp.vec3, device=device)
                launch(_pull, len(vertices), [vertices, targets, compliance, at["w"], x, h], device=device)
            for first, last in at["colours"]:
                given = [first, at["tets"], at["inverse"], at["soft"], at["w"], x, float(over)]
                launch(_relax, last - first, given, device=device)
            for first, last in itertools.pairwise(pair_groups[:-1]):
                if last > first:
                    launch(_against_each_other, int(last - first), [int(first), touching, *balls], device=device)
            if pair_groups[-1] > pair_groups[-2]:
                ends = [int(pair_groups[-2]), int(pair_groups[-1])]
                launch(_against_each_other_in_order, 1, [*ends, touching, *balls], device=device)
            if at["touching"]:
                for first, last in at["ball_colours"]:
                    launch(_against_still, last - first, [first, *on_still, *still], device=device)
            launch(_finish, n, [x, v, before, at["w"], at["damping"], h, world.fastest, lost], device=device)
        world.x[:], world.v[:] = x.numpy(), v.numpy()
        return int(lost.numpy()[0])

    def _upload(self, world: Any) -> None:
        def put(values: np.ndarray, dtype: Any) -> Any:
            return wp.array(np.ascontiguousarray(values), dtype=dtype, device=self.device)

        self._version = world.version
        self._arrays = {
            "tets": put(world.tets, int), "inverse": put(world.inverse, wp.mat33), "soft": put(world._soft, wp.vec3),
            "w": put(world.w, float), "damping": put(world.damping, float),
            "ball_tet": put(world._p_tet.astype(np.int32), int), "ball_weight": put(world._p_weight, wp.vec4),
            "radius": put(world._p_radius, float), "still_radius": put(world._p_still_radius, float),
            "friction": put(world._p_friction, float), "normal": wp.vec3(*world.plane[:3].tolist()),
            "offset": float(world.plane[3]), "grid": put(world.still.distances, float),
            "origin": wp.vec3(*world.still.origin.tolist()), "cell": float(world.still.cell),
            "touching": len(world._p_tet) > 0 and bool(world.plane.any() or world.still.distances.size > 1),
            "colours": _ranges(world._colours), "ball_colours": _ranges(world._p_colours),
        }  # fmt: skip


def _ranges(starts: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in itertools.pairwise(starts) if b > a]
