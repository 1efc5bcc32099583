# mypy: allow-untyped-defs
"""Tiles of 16 x 16 pixels, Gaussians front to back: alpha = min(0.99, o exp(-q/2)), stop below transmittance 1e-4.

Only rows that meet the ellipse q <= reach are visited, and a row's 16 pixels are one vector.
"""

from __future__ import annotations

import numpy as np

from isometry.scenes._numba import compiled

TILE = 16
_LANES = np.arange(16, dtype=np.float32)


@compiled
def bin_tiles(order, boxes, columns, rows):
    """Lists per tile in the given order: starts `(columns * rows + 1,)` int64 and members int32."""
    starts = np.zeros(columns * rows + 1, np.int64)
    for i in order:
        if boxes[i, 2] >= boxes[i, 0]:
            for ty in range(boxes[i, 1] // 16, boxes[i, 3] // 16 + 1):
                for tx in range(boxes[i, 0] // 16, boxes[i, 2] // 16 + 1):
                    starts[ty * columns + tx + 1] += 1
    for t in range(columns * rows):
        starts[t + 1] += starts[t]
    members = np.empty(starts[-1], np.int32)
    cursor = starts[:-1].copy()
    for i in order:
        if boxes[i, 2] >= boxes[i, 0]:
            for ty in range(boxes[i, 1] // 16, boxes[i, 3] // 16 + 1):
                for tx in range(boxes[i, 0] // 16, boxes[i, 2] // 16 + 1):
                    t = ty * columns + tx
                    members[cursor[t]] = i
                    cursor[t] += 1
    return starts, members


@compiled
def pack(centres, conics, reach, boxes, opacities, colours, depths, rows):
    """All that blending reads of a Gaussian into `rows (n, 16)` float32: one line of the cache instead of seven."""
    for i in range(len(reach)):
        rows[i, 0], rows[i, 1], rows[i, 2] = centres[i, 0], centres[i, 1], reach[i]
        rows[i, 3], rows[i, 4], rows[i, 5], rows[i, 6] = conics[i, 0], conics[i, 1], conics[i, 2], opacities[i]
        rows[i, 7], rows[i, 8], rows[i, 9], rows[i, 10] = colours[i, 0], colours[i, 1], colours[i, 2], depths[i]
        rows[i, 11], rows[i, 12] = boxes[i, 1], boxes[i, 3]


@compiled
def blend(first, last, columns, starts, members, rows, picture, depth_map, rest, ids, lasts):
    """Tiles first..last-1 into picture `(h, w, 3)` (without background), depth_map, rest (transmittance), ids, lasts.

    `ids` is the Gaussian of the largest weight (-1 for none); `lasts` how far into the tile's list a pixel read.
    """
    height, width = rest.shape
    # of every row of a tile, 16 numbers each: light that still passes, whether a pixel is closed, red, green, blue, depth,
    # largest weight; and its Gaussian, and how far the pixel read
    sums = np.empty((16, 7 * 16), np.float32)
    marks = np.empty((16, 2 * 16), np.int32)
    open_ = np.empty(16, np.int64)  # pixels of a row that still take light
    for tile in range(first, last):
        x0, y0 = (tile % columns) * 16, (tile // columns) * 16
        x1, y1 = min(x0 + 15, width - 1), min(y0 + 15, height - 1)
        sums[:, :16] = 1.0
        sums[:, 16:] = 0.0
        sums[:, 16 + x1 - x0 + 1 : 32] = 1.0
        marks[:, :16] = -1
        marks[:, 16:] = 0
        live = (x1 - x0 + 1) * (y1 - y0 + 1)
        open_[:] = x1 - x0 + 1
        for k in range(starts[tile], starts[tile + 1]):
            if live == 0:
                break
            i = members[k]
            g = rows[i]
            a, b, c, level = g[3], g[4], g[5], g[2]
            from_left = np.float32(x0) + np.float32(0.5) - g[0]
            for y in range(max(y0, int(g[11])), min(y1, int(g[12])) + 1):
                row = y - y0
                dy = np.float32(y) + np.float32(0.5) - g[1]
                if open_[row] == 0 or b * dy * (b * dy) < a * (c * dy * dy - level):
                    continue
                closed = _blend_row(
                    sums[row], marks[row], from_left, b * dy, c * dy * dy, a, level, g[6], g[7], g[8], g[9],
                    g[10], np.int32(i), np.int32(k - starts[tile] + 1),
                )  # fmt: skip
                open_[row] -= closed
                live -= closed
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                s, m, p = sums[y - y0], marks[y - y0], x - x0
                picture[y, x, 0], picture[y, x, 1], picture[y, x, 2] = s[32 + p], s[48 + p], s[64 + p]
                depth_map[y, x], rest[y, x] = s[80 + p], s[p]
                ids[y, x], lasts[y, x] = m[p], m[16 + p]


@compiled
def _blend_row(sums, marks, from_left, bdy, cdd, a, level, opacity, red, green, blue, depth, number, place):
    """One Gaussian into the 16 pixels of a tile's row, without a branch so that they become one vector; gives how many
    pixels it closed."""
    zero, one = np.float32(0.0), np.float32(1.0)
    closed = np.int32(0)
    for j in range(np.uint64(16)):
        dx = from_left + _LANES[j]
        q = (a * dx + bdy + bdy) * dx + cdd
        alpha = min(np.float32(0.99), opacity * _exp(np.float32(-0.5) * q))
        t = sums[j]
        after = t * (one - alpha)
        meets = (q <= level) & (sums[16 + j] == zero)
        ends = meets & (after < np.float32(1e-4))
        adds = meets & (after >= np.float32(1e-4))
        w = alpha * t if adds else zero
        sums[j] = after if adds else t
        sums[16 + j] = one if ends else sums[16 + j]
        sums[32 + j] += w * red
        sums[48 + j] += w * green
        sums[64 + j] += w * blue
        sums[80 + j] += w * depth
        best = sums[96 + j]
        more = w > best
        sums[96 + j] = w if more else best
        marks[j] = number if more else marks[j]
        marks[16 + j] = place if adds else marks[16 + j]
        closed += np.int32(1) if ends else np.int32(0)
    return closed


@compiled
def _exp(x):
    """exp of numbers up to 0 in single precision, to 1e-7 of its value; 0 below -87. Plain arithmetic, for vectors."""
    y = max(x * np.float32(1.442695041), np.float32(-126.0))
    k = np.int32(y - np.float32(0.5))
    f = y - np.float32(k)
    p = np.float32(1.5403530e-4)
    p = p * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + np.float32(1.0)
    return p * np.int32((k + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def blend_backward(first, last, columns, starts, members, rows, rest, lasts, d_picture, d_depth, d_rest, gradients):
    """Adds to `gradients (n, 10)`: centre x, y, conic a, b, c, opacity, red, green, blue, depth. Back to front."""
    height, width = rest.shape
    through = np.empty(256, np.float32)
    behind = np.empty(256, np.float32)
    half, one, cap = np.float32(-0.5), np.float32(1.0), np.float32(0.99)
    for tile in range(first, last):
        x0, y0 = (tile % columns) * 16, (tile // columns) * 16
        x1, y1 = min(x0 + 15, width - 1), min(y0 + 15, height - 1)
        deepest = 0
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                p = (y - y0) * 16 + x - x0
                through[p] = rest[y, x]
                behind[p] = rest[y, x] * d_rest[y, x]
                deepest = max(deepest, lasts[y, x])
        for k in range(deepest - 1, -1, -1):
            i = members[starts[tile] + k]
            g = rows[i]
            u, v, level, a, b, c, o = g[0], g[1], g[2], g[3], g[4], g[5], g[6]
            r_, g_, b_, z_ = g[7], g[8], g[9], g[10]
            below = one / a
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = np.float32(0.0)
            for y in range(max(y0, int(g[11])), min(y1, int(g[12])) + 1):
                dy = np.float32(y) + np.float32(0.5) - v
                bd = b * dy
                inside = bd * bd - a * (c * dy * dy - level)
                if inside < 0:
                    continue
                root = np.sqrt(inside)
                left = u - np.float32(0.5) + (-bd - root) * below
                right = u - np.float32(0.5) + (-bd + root) * below
                xa = max(x0, int(np.ceil(max(left, np.float32(-1.0)))) - 1)
                xb = min(x1, int(np.floor(min(right, np.float32(40000.0)))) + 1)
                cdd = c * dy * dy
                row = (y - y0) * 16 - x0
                for x in range(xa, xb + 1):
                    if k >= lasts[y, x]:
                        continue
                    p = row + x
                    dx = np.float32(x) + np.float32(0.5) - u
                    q = (a * dx + bd + bd) * dx + cdd
                    if q > level:  # the interval is a little wide, so that rounding loses no pixel that was drawn
                        continue
                    fall = np.exp(half * q)
                    alpha = min(cap, o * fall)
                    inverse = one / (one - alpha)
                    t = through[p] * inverse
                    through[p] = t
                    w = alpha * t
                    d_r, d_g, d_b = d_picture[y, x, 0], d_picture[y, x, 1], d_picture[y, x, 2]
                    d_z = d_depth[y, x]
                    mine = r_ * d_r + g_ * d_g + b_ * d_b + z_ * d_z
                    s6 += w * d_r
                    s7 += w * d_g
                    s8 += w * d_b
                    s9 += w * d_z
                    d_alpha = t * mine - behind[p] * inverse
                    behind[p] += w * mine
                    if alpha >= cap:
                        continue
                    s5 += fall * d_alpha
                    d_q = half * alpha * d_alpha
                    s2 += d_q * dx * dx
                    s3 += (d_q + d_q) * dx * dy
                    s4 += d_q * dy * dy
                    s0 -= (d_q + d_q) * (a * dx + bd)
                    s1 -= (d_q + d_q) * (b * dx + c * dy)
            d = gradients[i]
            d[0] += s0
            d[1] += s1
            d[2] += s2
            d[3] += s3
            d[4] += s4
            d[5] += s5
            d[6] += s6
            d[7] += s7
            d[8] += s8
            d[9] += s9


@compiled
def gather(first, last, columns, starts, members, centres, conics, reach, boxes, opacities, labels, votes):
    """Adds every pixel's weight alpha T of Gaussian i to `votes[i, labels[y, x]]`; a negative label is skipped."""
    height, width = labels.shape
    through = np.empty(256, np.float32)
    for tile in range(first, last):
        x0, y0 = (tile % columns) * 16, (tile // columns) * 16
        x1, y1 = min(x0 + 15, width - 1), min(y0 + 15, height - 1)
        through[:] = 1.0
        for k in range(starts[tile], starts[tile + 1]):
            i = members[k]
            u, v = centres[i, 0], centres[i, 1]
            a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
            for y in range(max(y0, boxes[i, 1]), min(y1, boxes[i, 3]) + 1):
                dy = np.float32(y) + np.float32(0.5) - v
                for x in range(max(x0, boxes[i, 0]), min(x1, boxes[i, 2]) + 1):
                    p = (y - y0) * 16 + x - x0
                    dx = np.float32(x) + np.float32(0.5) - u
                    q = a * dx * dx + np.float32(2.0) * b * dx * dy + c * dy * dy
                    if through[p] < np.float32(0.0) or q > reach[i]:
                        continue
                    alpha = min(np.float32(0.99), opacities[i] * np.exp(np.float32(-0.5) * q))
                    after = through[p] * (np.float32(1.0) - alpha)
                    if after < np.float32(1e-4):
                        through[p] = np.float32(-1.0)
                        continue
                    if labels[y, x] >= 0:
                        votes[i, labels[y, x]] += alpha * through[p]
                    through[p] = after


@compiled
def list_weights(first, last, columns, starts, members, centres, conics, reach, boxes, opacities, shape, counts, begins,
                 which, weights, fill):  # fmt: skip
    """Counts (`fill` 0) or writes (`fill` 1) every weight alpha T: of pixel p into begins[p].. of `which` and `weights`."""
    height, width = shape
    through = np.empty(256, np.float32)
    for tile in range(first, last):
        x0, y0 = (tile % columns) * 16, (tile // columns) * 16
        x1, y1 = min(x0 + 15, width - 1), min(y0 + 15, height - 1)
        through[:] = 1.0
        for k in range(starts[tile], starts[tile + 1]):
            i = members[k]
            u, v = centres[i, 0], centres[i, 1]
            a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
            for y in range(max(y0, boxes[i, 1]), min(y1, boxes[i, 3]) + 1):
                dy = np.float32(y) + np.float32(0.5) - v
                for x in range(max(x0, boxes[i, 0]), min(x1, boxes[i, 2]) + 1):
                    p = (y - y0) * 16 + x - x0
                    dx = np.float32(x) + np.float32(0.5) - u
                    q = a * dx * dx + np.float32(2.0) * b * dx * dy + c * dy * dy
                    if through[p] < np.float32(0.0) or q > reach[i]:
                        continue
                    alpha = min(np.float32(0.99), opacities[i] * np.exp(np.float32(-0.5) * q))
                    after = through[p] * (np.float32(1.0) - alpha)
                    if after < np.float32(1e-4):
                        through[p] = np.float32(-1.0)
                        continue
                    at = y * width + x
                    if fill:
                        which[begins[at] + counts[at]] = i
                        weights[begins[at] + counts[at]] = alpha * through[p]
                    counts[at] += 1
                    through[p] = after
