# mypy: allow-untyped-defs
"""Stable neo-Hookean tetrahedra, one iteration of XPBD per small step.

Energy: mu/2 (|F|^2 - 3) + lambda/2 (det F - gamma)^2, gamma = 1 + mu/lambda, so that rest is free of force. The lambda
used is Lame's plus mu: with it small strains follow Hooke's law with the given Young's modulus and Poisson's ratio.

Ours (the note proposes one after the other): both constraints of a tetrahedron are solved together, as a 2 x 2 system.
Their forces at rest then cancel exactly for any step, which two separate projections do not do.
The price: shear is explicit, so the caller bounds it. Guards: a tetrahedron crushed below 58 % of its length is pushed
open (the energy alone would keep it in a point), one turned over is put right by the hydrostatic part.
The tetrahedra come sorted by colour and those of one colour share no vertex: in order or at once gives the same bits.
"""

from __future__ import annotations

import numba
import numpy as np

from isometry.scenes._numba import compiled, compiled_parallel

LANES = 16
WORK = 40 * LANES  # floats that one thread needs


def work_space() -> np.ndarray:
    """What `relax` and `relax_coloured` work in."""
    return np.ones((numba.config.NUMBA_NUM_THREADS, WORK), np.float32)


@compiled
def predict(x, v, previous, w, gx, gy, gz, h):
    """Keeps x in `previous` and moves free vertices by their velocity."""
    for i in range(len(x)):
        for a in range(3):
            previous[i, a] = x[i, a]
        if w[i] > 0.0:
            v[i, 0] += h * gx
            v[i, 1] += h * gy
            v[i, 2] += h * gz
            for a in range(3):
                x[i, a] += h * v[i, a]


@compiled
def relax(colours, tets, inverse, soft, w, x, h, work):
    """One projection of all tetrahedra, colour by colour.

    `soft (m, 3)` is 1 / (mu V), 1 / (lambda V), mu / lambda; `work (threads, WORK)` float32 of ones.
    """
    over = np.float32(1.0) / (h * h)
    for c in range(len(colours) - 1):
        for start in range(colours[c], colours[c + 1], LANES):
            _relax_some(start, min(LANES, colours[c + 1] - start), tets, inverse, soft, w, x, over, work[0])


@compiled_parallel
def relax_coloured(colours, tets, inverse, soft, w, x, h, work):
    """The same, the tetrahedra of a colour on all threads."""
    over = np.float32(1.0) / (h * h)
    for c in range(len(colours) - 1):
        blocks = (colours[c + 1] - colours[c] + LANES - 1) // LANES
        for block in numba.prange(blocks):
            start = colours[c] + LANES * block
            count = min(LANES, colours[c + 1] - start)
            _relax_some(start, count, tets, inverse, soft, w, x, over, work[numba.get_thread_id()])


@compiled
def _relax_some(start, count, tets, inverse, soft, w, x, over, work):
    """Up to 16 tetrahedra that share no vertex: gathered into columns, solved side by side, and put back.

    One flat array with offsets known to the compiler: it makes vectors of the middle loop (3.5 times as fast as one after
    the other where a vector holds 16 numbers). Columns beyond `count` hold what was there before and are not put back.
    """
    into, out = work[: 28 * LANES], work[28 * LANES :]
    for j in range(count):
        t = np.uint64(start + j)
        for k in range(4):
            # unsigned: numba otherwise tests every index for being negative
            i = np.uint64(tets[t, k])
            into[3 * k * LANES + j] = x[i, 0]
            into[(3 * k + 1) * LANES + j] = x[i, 1]
            into[(3 * k + 2) * LANES + j] = x[i, 2]
            into[(12 + k) * LANES + j] = w[i]
        for k in range(3):
            for m in range(3):
                into[(16 + 3 * k + m) * LANES + j] = inverse[t, k, m]
            into[(25 + k) * LANES + j] = soft[t, k]
    _solve(into, out, over)
    for j in range(count):
        t = np.uint64(start + j)
        for k in range(4):
            i = np.uint64(tets[t, k])
            x[i, 0] += out[3 * k * LANES + j]
            x[i, 1] += out[(3 * k + 1) * LANES + j]
            x[i, 2] += out[(3 * k + 2) * LANES + j]


@compiled
def _solve(into, out, over):
    """Columns of `into`: corners 0..11, mobilities 12..15, inverse edges 16..24, soft 25..27; of `out`: corrections."""
    for j in range(np.uint64(LANES)):
        ox, oy, oz = into[j], into[1 * LANES + j], into[2 * LANES + j]
        w0, w1, w2, w3 = into[12 * LANES + j], into[13 * LANES + j], into[14 * LANES + j], into[15 * LANES + j]
        q00, q01, q02 = into[16 * LANES + j], into[17 * LANES + j], into[18 * LANES + j]
        q10, q11, q12 = into[19 * LANES + j], into[20 * LANES + j], into[21 * LANES + j]
        q20, q21, q22 = into[22 * LANES + j], into[23 * LANES + j], into[24 * LANES + j]
        ax, ay, az = into[3 * LANES + j] - ox, into[4 * LANES + j] - oy, into[5 * LANES + j] - oz
        bx, by, bz = into[6 * LANES + j] - ox, into[7 * LANES + j] - oy, into[8 * LANES + j] - oz
        cx, cy, cz = into[9 * LANES + j] - ox, into[10 * LANES + j] - oy, into[11 * LANES + j] - oz
        f00, f01, f02 = ax * q00 + bx * q10 + cx * q20, ax * q01 + bx * q11 + cx * q21, ax * q02 + bx * q12 + cx * q22
        f10, f11, f12 = ay * q00 + by * q10 + cy * q20, ay * q01 + by * q11 + cy * q21, ay * q02 + by * q12 + cy * q22
        f20, f21, f22 = az * q00 + bz * q10 + cz * q20, az * q01 + bz * q11 + cz * q21, az * q02 + bz * q12 + cz * q22
        # cofactors: the gradient of the determinant
        c00, c01, c02 = f11 * f22 - f12 * f21, f12 * f20 - f10 * f22, f10 * f21 - f11 * f20
        c10, c11, c12 = f21 * f02 - f22 * f01, f22 * f00 - f20 * f02, f20 * f01 - f21 * f00
        c20, c21, c22 = f01 * f12 - f02 * f11, f02 * f10 - f00 * f12, f00 * f11 - f01 * f10
        det = f00 * c00 + f01 * c01 + f02 * c02
        norm = np.sqrt(
            f00 * f00 + f01 * f01 + f02 * f02 + f10 * f10 + f11 * f11 + f12 * f12 + f20 * f20 + f21 * f21 + f22 * f22
        )
        tiny = norm < np.float32(1e-3)  # crushed to a point: any direction out will do
        f00 = np.float32(1e-3) if tiny else f00
        f11 = np.float32(1e-3) if tiny else f11
        f22 = np.float32(1e-3) if tiny else f22
        norm = np.float32(1.7320508e-3) if tiny else norm
        s = np.float32(1.0) / norm
        # gradients by vertices 1..3 are the columns of P Q^T: d for the deviatoric part, g for the hydrostatic one
        d1x, d1y, d1z = (
            s * (f00 * q00 + f01 * q01 + f02 * q02),
            s * (f10 * q00 + f11 * q01 + f12 * q02),
            s * (f20 * q00 + f21 * q01 + f22 * q02),
        )
        d2x, d2y, d2z = (
            s * (f00 * q10 + f01 * q11 + f02 * q12),
            s * (f10 * q10 + f11 * q11 + f12 * q12),
            s * (f20 * q10 + f21 * q11 + f22 * q12),
        )
        d3x, d3y, d3z = (
            s * (f00 * q20 + f01 * q21 + f02 * q22),
            s * (f10 * q20 + f11 * q21 + f12 * q22),
            s * (f20 * q20 + f21 * q21 + f22 * q22),
        )
        d0x, d0y, d0z = -d1x - d2x - d3x, -d1y - d2y - d3y, -d1z - d2z - d3z
        g1x, g1y, g1z = (
            c00 * q00 + c01 * q01 + c02 * q02,
            c10 * q00 + c11 * q01 + c12 * q02,
            c20 * q00 + c21 * q01 + c22 * q02,
        )
        g2x, g2y, g2z = (
            c00 * q10 + c01 * q11 + c02 * q12,
            c10 * q10 + c11 * q11 + c12 * q12,
            c20 * q10 + c21 * q11 + c22 * q12,
        )
        g3x, g3y, g3z = (
            c00 * q20 + c01 * q21 + c02 * q22,
            c10 * q20 + c11 * q21 + c12 * q22,
            c20 * q20 + c21 * q21 + c22 * q22,
        )
        g0x, g0y, g0z = -g1x - g2x - g3x, -g1y - g2y - g3y, -g1z - g2z - g3z
        dd = np.float64(
            w0 * (d0x * d0x + d0y * d0y + d0z * d0z)
            + w1 * (d1x * d1x + d1y * d1y + d1z * d1z)
            + w2 * (d2x * d2x + d2y * d2y + d2z * d2z)
            + w3 * (d3x * d3x + d3y * d3y + d3z * d3z)
        ) + np.float64(into[25 * LANES + j] * over)
        gg = np.float64(
            w0 * (g0x * g0x + g0y * g0y + g0z * g0z)
            + w1 * (g1x * g1x + g1y * g1y + g1z * g1z)
            + w2 * (g2x * g2x + g2y * g2y + g2z * g2z)
            + w3 * (g3x * g3x + g3y * g3y + g3z * g3z)
        ) + np.float64(into[26 * LANES + j] * over)
        dg = np.float64(
            w0 * (d0x * g0x + d0y * g0y + d0z * g0z)
            + w1 * (d1x * g1x + d1y * g1y + d1z * g1z)
            + w2 * (d2x * g2x + d2y * g2y + d2z * g2z)
            + w3 * (d3x * g3x + d3y * g3y + d3z * g3z)
        )
        # the energy has a second rest at F = 0: a crushed tetrahedron is pushed out of it
        first = np.float64(np.float32(1.3) - norm) if norm < np.float32(1.0) else -np.float64(norm)
        second = -(np.float64(det) - 1.0 - np.float64(into[27 * LANES + j]))
        below = 1.0 / (dd * gg - dg * dg)
        a = np.float32((gg * first - dg * second) * below)
        b = np.float32((dd * second - dg * first) * below)
        out[j] = w0 * (a * d0x + b * g0x)
        out[1 * LANES + j] = w0 * (a * d0y + b * g0y)
        out[2 * LANES + j] = w0 * (a * d0z + b * g0z)
        out[3 * LANES + j] = w1 * (a * d1x + b * g1x)
        out[4 * LANES + j] = w1 * (a * d1y + b * g1y)
        out[5 * LANES + j] = w1 * (a * d1z + b * g1z)
        out[6 * LANES + j] = w2 * (a * d2x + b * g2x)
        out[7 * LANES + j] = w2 * (a * d2y + b * g2y)
        out[8 * LANES + j] = w2 * (a * d2z + b * g2z)
        out[9 * LANES + j] = w3 * (a * d3x + b * g3x)
        out[10 * LANES + j] = w3 * (a * d3y + b * g3y)
        out[11 * LANES + j] = w3 * (a * d3z + b * g3z)


@compiled
def finish(x, v, previous, w, damping, h, fastest):
    """Velocities from displacements, damped and bounded; vertices that left the numbers go back, and are counted."""
    lost = 0
    for i in range(len(x)):
        if w[i] == 0.0:  # put back, should a broken neighbour have reached it
            for k in range(3):
                x[i, k] = previous[i, k]
                v[i, k] = np.float32(0.0)
            continue
        a, b, c = (x[i, 0] - previous[i, 0]) / h, (x[i, 1] - previous[i, 1]) / h, (x[i, 2] - previous[i, 2]) / h
        speed = np.sqrt(a * a + b * b + c * c)
        if not np.isfinite(speed):
            for k in range(3):
                x[i, k] = previous[i, k]
                v[i, k] = np.float32(0.0)
            lost += 1
            continue
        keep = np.exp(-damping[i] * h)
        if speed > fastest:
            shrink = fastest / speed
            x[i, 0] = previous[i, 0] + a * shrink * h
            x[i, 1] = previous[i, 1] + b * shrink * h
            x[i, 2] = previous[i, 2] + c * shrink * h
            keep *= shrink
        v[i, 0], v[i, 1], v[i, 2] = a * keep, b * keep, c * keep
    return lost


@compiled
def pull(vertices, targets, compliance, w, x, h):
    """Compliant springs from vertices to targets `(k, 3)`; compliance in metre per newton."""
    for k in range(len(vertices)):
        i = vertices[k]
        share = w[i] / (w[i] + compliance / (h * h) + np.float32(1e-30))
        for a in range(3):
            x[i, a] += share * (targets[k, a] - x[i, a])
