"""The selection's last word: a cut through the graph of neighbouring Gaussians.

GrabCut (Rother, Kolmogorov and Blake 2004) with Gaussians in the place of pixels: what the masks say of each, how well its
colour suits either side, and how alike it is to its neighbours. Ours; the paper's masks come from a video segmenter.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial import cKDTree

from isometry.scenes.gaussians import Gaussians

_LARGEST = 40_000
_NEIGHBOURS = 8
_BINS = 16  # a side of the histogram of colours
_UNIT = 1000  # capacities are whole numbers


def cut_out(
    gaussians: Gaussians,
    chosen: np.ndarray,
    votes: np.ndarray,
    never: np.ndarray,
    *,
    rounds: int = 2,
    smooth: float = 1.0,
) -> np.ndarray:
    """Which Gaussians belong to the thing, `(n,)` bool.

    Args:
        chosen: a first guess `(n,)`.
        votes: `(n, 2)` weights of pixels against and for it.
        never: those known not to be it.
        smooth: what it costs to part two alike neighbours, in nats.
    """
    points = gaussians.means[chosen].astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    reach = 0.35 * float(np.linalg.norm(high - low))
    means = gaussians.means.astype(np.float64)
    near = around = np.nonzero(((means > low - reach) & (means < high + reach)).all(axis=1))[0]
    if len(near) > _LARGEST:  # the most solid ones decide; the others follow the nearest of them
        order = np.argsort(
            -(gaussians.opacities[near] * np.exp(gaussians.log_scales[near].sum(axis=1) / 3)), kind="stable"
        )
        near = np.sort(near[order[:_LARGEST]])
    mine = chosen[near] & ~never[near]
    if mine.sum() < 2 or mine.all():
        return chosen & ~never
    colours = gaussians.base_colours[near].astype(np.float64)
    said = _said(votes[near])
    links, strengths = _links(gaussians, near, colours)
    for _ in range(rounds):
        suits = _suits(colours, mine, gaussians.opacities[near])
        lean = said + suits
        lean[never[near]] = -50.0
        mine = _least_cut(lean, links, smooth * strengths)
        if mine.sum() < 2 or mine.all():
            break
    out = np.zeros(len(chosen), bool)
    out[around] = mine if len(around) == len(near) else mine[cKDTree(means[near]).query(means[around])[1]]
    return out & ~never


def _said(votes: np.ndarray) -> np.ndarray:
    """Log odds of what the masks say, 0 for those hardly seen."""
    total = votes.sum(axis=1)
    doubt = 0.1 * np.percentile(total[total > 0], 90) if (total > 0).any() else 1.0
    share = (votes[:, 1] + 0.5 * doubt) / (total + doubt)
    lean: np.ndarray = np.log(share / (1 - share))
    return lean


def _suits(colours: np.ndarray, mine: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log odds of the colour by smoothed histograms of both sides, within what one feature may say."""
    bins = np.minimum((colours * _BINS).astype(np.int64), _BINS - 1)
    place = np.ravel_multi_index(tuple(bins.T), (_BINS,) * 3)
    logs = []
    for side in (~mine, mine):
        counts = np.bincount(place[side], weights[side], _BINS**3).reshape((_BINS,) * 3)
        smooth = ndimage.gaussian_filter(counts, 0.7, mode="nearest")
        logs.append(np.log(smooth / max(smooth.sum(), 1e-12) + 1e-5).ravel()[place])
    lean: np.ndarray = np.clip(logs[1] - logs[0], -3.0, 3.0)
    return lean


def _links(gaussians: Gaussians, rows: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbours `(m, 2)` and how alike the two are, 0 to 1, `(m,)`."""
    points = gaussians.means[rows].astype(np.float64)
    count = min(_NEIGHBOURS + 1, len(rows))
    distance, near = cKDTree(points).query(points, k=count)
    first = np.repeat(np.arange(len(rows)), count - 1)
    second, distance = near[:, 1:].ravel(), distance[:, 1:].ravel()
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1)
    pairs, place = np.unique(pairs, axis=0, return_index=True)
    distance = distance[place]
    kept = pairs[:, 0] != pairs[:, 1]
    pairs, distance = pairs[kept], distance[kept]
    apart = ((colours[pairs[:, 0]] - colours[pairs[:, 1]]) ** 2).sum(axis=1)
    alike = np.exp(-apart / (2 * max(float(apart.mean()), 1e-6)))
    close = np.exp(-((distance / (2 * float(np.median(distance)) + 1e-12)) ** 2))
    return pairs, alike * close


def _least_cut(lean: np.ndarray, links: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """The division of least cost: `-lean` for taking one, `strengths` for parting two."""
    n = len(lean)
    source, sink = n, n + 1
    gain = np.round(_UNIT * np.abs(lean)).astype(np.int32)
    between = np.round(_UNIT * strengths).astype(np.int32)
    likes, minds = np.nonzero(lean > 0)[0], np.nonzero(lean <= 0)[0]
    first = np.concatenate([np.full(len(likes), source), minds, links[:, 0], links[:, 1]])
    second = np.concatenate([likes, np.full(len(minds), sink), links[:, 1], links[:, 0]])
    capacity = np.concatenate([gain[likes], gain[minds], between, between])
    graph = sparse.csr_array((capacity, (first, second)), shape=(n + 2, n + 2))
    left = graph - maximum_flow(sparse.csr_matrix(graph), source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    mine = np.zeros(n + 2, bool)
    mine[reached] = True
    return mine[:n]
