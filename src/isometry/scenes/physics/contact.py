# mypy: allow-untyped-defs
"""Contact of small balls that ride on the cages: with a plane, with the still scene, with the balls of other objects.

A push on a ball is shared among the four cage vertices that carry it, by weight and mass, so momentum is kept.
Friction: the tangential slip since the step began is undone up to friction times the push (Coulomb).
Balls instead of the note's vertex against triangle: the lattice cage is larger than the object, its vertices float.
"""

from __future__ import annotations

import numpy as np

from isometry.scenes._numba import compiled


@compiled
def place(points_tet, points_weight, tets, x, out):
    """Where the balls are: `out (p, 3)`."""
    for p in range(len(points_tet)):
        t = points_tet[p]
        for a in range(3):
            out[p, a] = (
                points_weight[p, 0] * x[tets[t, 0], a] + points_weight[p, 1] * x[tets[t, 1], a]
                + points_weight[p, 2] * x[tets[t, 2], a] + points_weight[p, 3] * x[tets[t, 3], a]
            )  # fmt: skip


@compiled
def near_pairs(points, body, reach, table, pairs):
    """Pairs of balls of different bodies closer than `reach`, into `pairs (m, 2)`; gives how many there are.

    `table` is an int64 work array of a power of two plus one entries.
    """
    size = len(table) - 1
    cells = np.empty((len(points), 3), np.int64)
    keys = np.empty(len(points), np.int64)
    for k in range(size + 1):  # loops: assigning to slices takes numba seconds to compile
        table[k] = 0
    for p in range(len(points)):
        for a in range(3):
            cells[p, a] = np.int64(np.floor(points[p, a] / reach))
        keys[p] = _key(cells[p, 0], cells[p, 1], cells[p, 2], size)
        table[keys[p] + 1] += 1
    for k in range(size):
        table[k + 1] += table[k]
    members = np.empty(len(points), np.int64)
    cursor = np.empty(size, np.int64)
    for k in range(size):
        cursor[k] = table[k]
    for p in range(len(points)):
        members[cursor[keys[p]]] = p
        cursor[keys[p]] += 1
    found = 0
    limit = reach * reach
    for p in range(len(points)):
        for i in range(cells[p, 0] - 1, cells[p, 0] + 2):
            for j in range(cells[p, 1] - 1, cells[p, 1] + 2):
                for k in range(cells[p, 2] - 1, cells[p, 2] + 2):
                    key = _key(i, j, k, size)
                    for m in range(table[key], table[key + 1]):
                        q = members[m]
                        if q <= p or body[q] == body[p]:
                            continue
                        if cells[q, 0] != i or cells[q, 1] != j or cells[q, 2] != k:
                            continue
                        dx, dy, dz = (
                            points[p, 0] - points[q, 0],
                            points[p, 1] - points[q, 1],
                            points[p, 2] - points[q, 2],
                        )
                        if dx * dx + dy * dy + dz * dz < limit:
                            if found < len(pairs):
                                pairs[found, 0], pairs[found, 1] = p, q
                            found += 1
    return found


@compiled
def colour_balls(points_tet, tets, taken, colours):
    """Colours of balls: those of one colour hang on different vertices. `taken (v,)` uint64 zeros."""
    over = 64
    for p in range(len(points_tet)):
        t = points_tet[p]
        used = taken[tets[t, 0]] | taken[tets[t, 1]] | taken[tets[t, 2]] | taken[tets[t, 3]]
        colour = _lowest_free(used)
        if colour == 64:  # so crowded that each of these gets a colour of its own
            colours[p] = over
            over += 1
            continue
        colours[p] = colour
        for k in range(4):
            taken[tets[t, k]] |= np.uint64(1) << np.uint64(colour)


@compiled
def sort_pairs(count, pairs, points_tet, tets, taken, colours, starts):
    """Brings pairs into groups whose members share no vertex, 64 of them and one to be solved in order.

    `taken (v,)` uint64 and `colours (m,)` are work arrays; `starts (66,)` int64 receives where the groups begin.
    """
    for i in range(len(taken)):
        taken[i] = np.uint64(0)
    for group in range(len(starts)):
        starts[group] = 0
    for n in range(count):
        a, b = points_tet[pairs[n, 0]], points_tet[pairs[n, 1]]
        used = np.uint64(0)
        for k in range(4):
            used |= taken[tets[a, k]] | taken[tets[b, k]]
        colour = _lowest_free(used)
        colours[n] = colour
        starts[colour + 1] += 1
        if colour < 64:
            for k in range(4):
                taken[tets[a, k]] |= np.uint64(1) << np.uint64(colour)
                taken[tets[b, k]] |= np.uint64(1) << np.uint64(colour)
    for group in range(65):
        starts[group + 1] += starts[group]
    cursor = np.empty(65, np.int64)
    for group in range(65):
        cursor[group] = starts[group]
    sorted_pairs = np.empty((count, 2), np.int64)
    for n in range(count):
        at = cursor[colours[n]]
        sorted_pairs[at, 0], sorted_pairs[at, 1] = pairs[n, 0], pairs[n, 1]
        cursor[colours[n]] += 1
    for n in range(count):
        pairs[n, 0], pairs[n, 1] = sorted_pairs[n, 0], sorted_pairs[n, 1]


@compiled
def _lowest_free(used):
    colour = 0
    while colour < 64 and (used >> np.uint64(colour)) & np.uint64(1):
        colour += 1
    return colour


@compiled
def _key(i, j, k, size):
    return ((i * 73856093) ^ (j * 19349663) ^ (k * 83492791)) & (size - 1)


@compiled
def _carried(p, points_tet, points_weight, tets, x, out):
    t = points_tet[p]
    for a in range(3):
        out[a] = (
            points_weight[p, 0] * x[tets[t, 0], a] + points_weight[p, 1] * x[tets[t, 1], a]
            + points_weight[p, 2] * x[tets[t, 2], a] + points_weight[p, 3] * x[tets[t, 3], a]
        )  # fmt: skip


@compiled
def _mobility(p, points_tet, points_weight, tets, w):
    t = points_tet[p]
    total = np.float32(0.0)
    for k in range(4):
        total += w[tets[t, k]] * points_weight[p, k] * points_weight[p, k]
    return total


@compiled
def _push(p, points_tet, points_weight, tets, w, x, px, py, pz):
    t = points_tet[p]
    for k in range(4):
        share = w[tets[t, k]] * points_weight[p, k]
        x[tets[t, k], 0] += share * px
        x[tets[t, k], 1] += share * py
        x[tets[t, k], 2] += share * pz


@compiled
def against_still(points_tet, points_weight, radius, friction, tets, w, x, previous, plane, grid, origin, cell):
    """Balls against a plane (nx, ny, nz, offset; normal 0 for none) and a grid of signed distances (empty for none)."""
    here, before = np.empty(3, np.float32), np.empty(3, np.float32)
    has_plane = plane[0] != 0.0 or plane[1] != 0.0 or plane[2] != 0.0
    has_grid = grid.shape[0] > 1
    for p in range(len(points_tet)):
        _carried(p, points_tet, points_weight, tets, x, here)
        if has_plane:
            depth = radius[p] - (plane[0] * here[0] + plane[1] * here[1] + plane[2] * here[2] - plane[3])
            if depth > 0.0:
                _carried(p, points_tet, points_weight, tets, previous, before)
                _resolve(
                    p,
                    points_tet,
                    points_weight,
                    tets,
                    w,
                    x,
                    here,
                    before,
                    plane[0],
                    plane[1],
                    plane[2],
                    depth,
                    friction[p],
                )
                _carried(p, points_tet, points_weight, tets, x, here)
        if has_grid:
            a, b, c = (here[0] - origin[0]) / cell, (here[1] - origin[1]) / cell, (here[2] - origin[2]) / cell
            if a < 0 or b < 0 or c < 0:
                continue
            i, j, k = int(a), int(b), int(c)
            if i >= grid.shape[0] - 1 or j >= grid.shape[1] - 1 or k >= grid.shape[2] - 1:
                continue
            u, v, s = np.float32(a - i), np.float32(b - j), np.float32(c - k)
            one = np.float32(1.0)
            g000, g001, g010, g011 = grid[i, j, k], grid[i, j, k + 1], grid[i, j + 1, k], grid[i, j + 1, k + 1]
            g100, g101, g110, g111 = (
                grid[i + 1, j, k],
                grid[i + 1, j, k + 1],
                grid[i + 1, j + 1, k],
                grid[i + 1, j + 1, k + 1],
            )
            l00, l01, l10, l11 = (
                g000 + u * (g100 - g000),
                g001 + u * (g101 - g001),
                g010 + u * (g110 - g010),
                g011 + u * (g111 - g011),
            )
            m0, m1 = l00 + v * (l10 - l00), l01 + v * (l11 - l01)
            depth = radius[p] - (m0 + s * (m1 - m0))
            if depth <= 0.0:
                continue
            nx = (one - v) * ((one - s) * (g100 - g000) + s * (g101 - g001)) + v * (
                (one - s) * (g110 - g010) + s * (g111 - g011)
            )
            ny = (one - s) * (l10 - l00) + s * (l11 - l01)
            nz = m1 - m0
            length = np.sqrt(nx * nx + ny * ny + nz * nz)
            if length < 1e-9:
                continue
            _carried(p, points_tet, points_weight, tets, previous, before)
            _resolve(
                p,
                points_tet,
                points_weight,
                tets,
                w,
                x,
                here,
                before,
                nx / length,
                ny / length,
                nz / length,
                depth,
                friction[p],
            )


@compiled
def _resolve(p, points_tet, points_weight, tets, w, x, here, before, nx, ny, nz, depth, friction):
    mobility = _mobility(p, points_tet, points_weight, tets, w)
    if mobility <= 0.0:
        return
    sx, sy, sz = here[0] - before[0], here[1] - before[1], here[2] - before[2]
    along = sx * nx + sy * ny + sz * nz
    sx, sy, sz = sx - along * nx, sy - along * ny, sz - along * nz
    slip = np.sqrt(sx * sx + sy * sy + sz * sz)
    hold = min(np.float32(1.0), friction * depth / max(slip, np.float32(1e-12)))
    scale = np.float32(1.0) / mobility
    px, py, pz = scale * (depth * nx - hold * sx), scale * (depth * ny - hold * sy), scale * (depth * nz - hold * sz)
    _push(p, points_tet, points_weight, tets, w, x, px, py, pz)


@compiled
def against_each_other(count, pairs, points_tet, points_weight, radius, friction, tets, w, x, previous):
    """The first `count` pairs of balls."""
    a, b = np.empty(3, np.float32), np.empty(3, np.float32)
    before_a, before_b = np.empty(3, np.float32), np.empty(3, np.float32)
    for n in range(count):
        p, q = pairs[n, 0], pairs[n, 1]
        _carried(p, points_tet, points_weight, tets, x, a)
        _carried(q, points_tet, points_weight, tets, x, b)
        nx, ny, nz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
        distance = np.sqrt(nx * nx + ny * ny + nz * nz)
        depth = radius[p] + radius[q] - distance
        if depth <= 0.0 or distance < 1e-9:
            continue
        mobility = _mobility(p, points_tet, points_weight, tets, w) + _mobility(q, points_tet, points_weight, tets, w)
        if mobility <= 0.0:
            continue
        nx, ny, nz = nx / distance, ny / distance, nz / distance
        _carried(p, points_tet, points_weight, tets, previous, before_a)
        _carried(q, points_tet, points_weight, tets, previous, before_b)
        sx = (a[0] - before_a[0]) - (b[0] - before_b[0])
        sy = (a[1] - before_a[1]) - (b[1] - before_b[1])
        sz = (a[2] - before_a[2]) - (b[2] - before_b[2])
        along = sx * nx + sy * ny + sz * nz
        sx, sy, sz = sx - along * nx, sy - along * ny, sz - along * nz
        slip = np.sqrt(sx * sx + sy * sy + sz * sz)
        rough = np.sqrt(friction[p] * friction[q])
        hold = min(np.float32(1.0), rough * depth / max(slip, np.float32(1e-12)))
        scale = np.float32(1.0) / mobility
        px, py, pz = (
            scale * (depth * nx - hold * sx),
            scale * (depth * ny - hold * sy),
            scale * (depth * nz - hold * sz),
        )
        _push(p, points_tet, points_weight, tets, w, x, px, py, pz)
        _push(q, points_tet, points_weight, tets, w, x, -px, -py, -pz)
