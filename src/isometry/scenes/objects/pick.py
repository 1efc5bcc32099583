"""From boxes and clicks on a view to the Gaussians of an object, propagated over further views.

Paper 1, section 2 of its note, where a video segmenter carries masks from view to view. Ours, with nothing to download:
GrabCut outlines the thing in the person's view, the mask is lifted to Gaussians, those are drawn from the next view and
GrabCut outlines that, and so on around. All views vote, weighed by what each Gaussian adds to each pixel; a cut through the
graph of neighbouring Gaussians settles it with their colours, also for those that no view shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from isometry.errors import InputError, MissingExtraError
from isometry.scenes.files.cameras import Camera, look_at
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.objects.cut import cut_out
from isometry.scenes.objects.lift import claim_inside
from isometry.scenes.raster import Rendering, render, splat, vote

_BACK = (0.93, 0.94, 0.96)
_FEW = 8


@dataclass(frozen=True)
class Stroke:
    """What a person drew on one view; places are shares of its width and height, 0 to 1, from the top left.

    Args:
        camera: of the view, any size.
        box: left, top, right, bottom around the thing, or None.
        inside, outside: clicks on the thing, and on what is not part of it.
    """

    camera: Camera
    box: tuple[float, float, float, float] | None = None
    inside: tuple[tuple[float, float], ...] = ()
    outside: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise InputError(f"a box is left, top, right, bottom within 0 and 1, and is {list(self.box)}")
        places = [*self.inside, *self.outside]
        if not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in places):
            raise InputError(f"clicks lie within 0 and 1, and these are {places}")
        if self.box is None and not self.inside:
            raise InputError("a selection needs a box around the thing or a click on it")


def pick(
    gaussians: Gaussians, strokes: Sequence[Stroke], *, up: np.ndarray | None = None,
    cameras: Sequence[Camera] = (), views: int = 10, size: int = 192, threads: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Which Gaussians belong to what the strokes show, `(n,)` bool.

    Args:
        gaussians: that may be taken; what belongs to other objects should be left out.
        up: direction, +y when None.
        cameras: to look from; None turns around the thing at the distance of the first stroke.
        views: to propagate over.
        size: longer side of a view, pixels.

    Raises:
        InputError: no stroke, or nothing solid under them. MissingExtraError: OpenCV is not installed.
    """
    if not strokes:
        raise InputError("a selection needs a box around the thing or a click on it")
    cv2 = _opencv()
    votes = np.zeros((len(gaussians), 2))
    drawn = [_resized(stroke.camera, size) for stroke in strokes]
    for stroke, camera in zip(strokes, drawn, strict=True):
        mask = _outlined(cv2, render(gaussians, camera, background=_BACK, threads=threads), stroke)
        votes += vote(gaussians, camera, mask.astype(np.int32), 2, threads=threads)
    chosen = _largest(gaussians, _won(votes))
    if chosen.sum() < _FEW:
        raise InputError(f"only {int(chosen.sum())} splats lie under the selection: nothing solid is there")
    for camera in _around(gaussians, chosen, drawn[0], up, [_resized(c, size) for c in cameras], views):
        share = _share(gaussians, chosen, camera, threads)
        if (share > 0.5).sum() < 12:
            continue
        followed = _followed(cv2, render(gaussians, camera, background=_BACK, threads=threads), share)
        if followed is None:
            continue
        votes += vote(gaussians, camera, followed.astype(np.int32), 2, threads=threads)
        found = _largest(gaussians, _won(votes))
        if found.sum() >= _FEW:
            chosen = found
    cut = _largest(gaussians, cut_out(gaussians, chosen, votes, _ruled_out(gaussians, strokes)))
    if cut.sum() < _FEW:
        return chosen
    mine: np.ndarray = claim_inside(gaussians, cut.astype(np.int32)) > 0
    return mine


def _ruled_out(gaussians: Gaussians, strokes: Sequence[Stroke]) -> np.ndarray:
    """Those whose centre lies outside a box that was drawn around the thing."""
    out = np.zeros(len(gaussians), bool)
    for stroke in strokes:
        if stroke.box is None:
            continue
        left, top, right, bottom = stroke.box
        camera = stroke.camera
        points = gaussians.means.astype(np.float64) @ camera.rotation.T + camera.translation
        depth = np.maximum(points[:, 2], 1e-9)
        x = (camera.fx * points[:, 0] / depth + camera.cx) / camera.width
        y = (camera.fy * points[:, 1] / depth + camera.cy) / camera.height
        slack = 0.02 * max(right - left, bottom - top)
        inside = (x > left - slack) & (x < right + slack) & (y > top - slack) & (y < bottom + slack)
        out |= ~inside | (points[:, 2] <= 0)
    return out


def _won(votes: np.ndarray) -> np.ndarray:
    """Who has most votes for the thing and is truly seen: some light passes every splat, so what stands under or behind
    the thing collects a few votes through it and none against."""
    more = votes[:, 1] > votes[:, 0]
    total = votes.sum(axis=1)
    won: np.ndarray = more & (total > 1e-3)
    if won.any():
        won &= total > 0.1 * np.percentile(total[won], 90)
    return won


def _largest(gaussians: Gaussians, chosen: np.ndarray) -> np.ndarray:
    """The part of a selection that hangs together and weighs most: strays of other things are left behind."""
    rows = np.nonzero(chosen)[0]
    if len(rows) < 2:
        return chosen
    points = gaussians.means[rows]
    count = min(7, len(rows))
    distance, near = cKDTree(points).query(points, k=count)
    limit = 4 * np.median(distance[:, -1]) + 1e-12
    first = np.repeat(np.arange(len(rows)), count).reshape(near.shape)
    close = distance <= limit
    links = sparse.coo_array((np.ones(int(close.sum())), (first[close], near[close])), shape=(len(rows), len(rows)))
    _, part = connected_components(links, directed=False)
    best = np.bincount(part, gaussians.opacities[rows]).argmax()
    out = np.zeros(len(chosen), bool)
    out[rows[part == best]] = True
    return out


def _outlined(cv2: Any, seen: Rendering, stroke: Stroke) -> np.ndarray:
    """The thing in the person's view, `(h, w)` bool."""
    picture, solid = _bytes(seen), seen.rest < 0.5
    height, width = solid.shape
    marks = np.full((height, width), cv2.GC_BGD, np.uint8)
    if stroke.box is not None:
        left, top, right, bottom = stroke.box
        rows = slice(int(top * height), max(int(top * height) + 2, int(np.ceil(bottom * height))))
        columns = slice(int(left * width), max(int(left * width) + 2, int(np.ceil(right * width))))
        marks[rows, columns] = cv2.GC_PR_FGD
        mask = _cut(cv2, picture, _clicked(cv2, marks.copy(), stroke), 5) & solid
        if mask.sum() >= 0.15 * mask[rows, columns].size:
            return mask
        # coloured like what surrounds it: people draw boxes around things, so the middle is taken for granted
        centre = ((columns.start + columns.stop) // 2, (rows.start + rows.stop) // 2)
        half = ((columns.stop - columns.start) // 4, (rows.stop - rows.start) // 4)
        cv2.ellipse(marks, centre, half, 0, 0, 360, int(cv2.GC_FGD), -1)
        return _cut(cv2, picture, _clicked(cv2, marks, stroke), 5) & solid
    return _grown(cv2, seen, stroke) & solid


def _clicked(cv2: Any, marks: np.ndarray, stroke: Stroke, wide: int = 1) -> np.ndarray:
    height, width = marks.shape
    for places, mark in ((stroke.inside, cv2.GC_FGD), (stroke.outside, cv2.GC_BGD)):
        for x, y in places:
            cv2.circle(marks, (min(width - 1, int(x * width)), min(height - 1, int(y * height))), wide, int(mark), -1)
    return marks


def _grown(cv2: Any, seen: Rendering, stroke: Stroke) -> np.ndarray:
    """The thing under clicks without a box: outlined within rounds of growing size, of which the smallest wins that the
    outline keeps within and along which depth and colour step about as clearly as along any."""
    picture = _bytes(seen)
    height, width = picture.shape[:2]
    places = np.array([(min(width - 1, int(x * width)), min(height - 1, int(y * height))) for x, y in stroke.inside])
    middle = places.mean(axis=0)
    least = float(np.linalg.norm(places - middle, axis=1).max()) * 1.2
    rows, columns = np.mgrid[:height, :width]
    off = np.hypot(columns - middle[0], rows - middle[1])
    soft = cv2.cvtColor(cv2.bilateralFilter(picture, 5, 30, 3), cv2.COLOR_RGB2Lab).astype(np.float64)
    known = np.isfinite(seen.expected_depth) & (seen.rest < 0.5)
    depth = np.where(known, seen.expected_depth, seen.expected_depth[known].max() if known.any() else 1.0)
    found = []
    for radius in np.geomspace(0.03, 0.35, 11) * max(width, height):
        if radius < least:
            continue
        part = tuple(slice(max(0, int(m - 2 * radius)), int(m + 2 * radius) + 1) for m in middle[::-1])
        marks = np.where(off < radius, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        marks = np.ascontiguousarray(_clicked(cv2, marks, stroke, max(1, round(0.15 * radius)))[part])
        mask = np.zeros((height, width), bool)
        mask[part] = _cut(cv2, picture[part], marks, 4)
        parts, _ = ndimage.label(mask)
        mask = ndimage.binary_fill_holes(np.isin(parts, np.setdiff1d(parts[places[:, 1], places[:, 0]], 0)))
        rim = (off < radius) & (off >= radius - 1.5)
        if mask.sum() < 12 or (mask & rim).sum() > 0.1 * rim.sum():
            continue
        across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
        steps = [
            float(np.concatenate([edge(np.diff(map_, axis=1))[across], edge(np.diff(map_, axis=0))[down]]).mean())
            for map_, edge in ((depth, np.abs), (soft, lambda change: np.linalg.norm(change, axis=2)))
        ]
        found.append((mask, steps))
    if not found:
        return np.zeros((height, width), bool)
    clear = np.array([steps for _, steps in found])
    good = (clear >= clear.max(axis=0) / 3).all(axis=1)
    return found[int(np.argmax(good)) if good.any() else int(clear[:, 0].argmax())][0]


def _followed(cv2: Any, seen: Rendering, share: np.ndarray) -> np.ndarray | None:
    """The thing in a further view, given how much of each pixel is known to be it; None where that cannot be told."""
    known = share > 0.5
    margin = max(2, round(0.12 * np.sqrt(known.sum())))
    marks = np.full(share.shape, cv2.GC_BGD, np.uint8)
    marks[ndimage.binary_dilation(known, iterations=margin)] = cv2.GC_PR_BGD
    marks[known] = cv2.GC_PR_FGD
    sure = ndimage.binary_erosion(share > 0.8, iterations=2)
    marks[sure if sure.sum() >= 8 else share > 0.8] = cv2.GC_FGD
    mask = _cut(cv2, _bytes(seen), marks, 3) & (seen.rest < 0.5)
    grown = mask.sum() / known.sum()
    return mask if 0.5 <= grown <= 2.0 else None


def _cut(cv2: Any, picture: np.ndarray, marks: np.ndarray, rounds: int) -> np.ndarray:
    front = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    if front.sum() < 5 or (~front).sum() < 5:
        return front
    cv2.setRNGSeed(0)
    work = np.zeros((2, 1, 65))
    marks = marks.copy()
    cv2.grabCut(np.ascontiguousarray(picture[..., ::-1]), marks, None, work[0], work[1], rounds, cv2.GC_INIT_WITH_MASK)
    cut: np.ndarray = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    return cut


def _bytes(seen: Rendering) -> np.ndarray:
    return (np.clip(seen.colour, 0, 1) * 255 + 0.5).astype(np.uint8)


def _share(gaussians: Gaussians, chosen: np.ndarray, camera: Camera, threads: int | None) -> np.ndarray:
    colours = np.repeat(chosen[:, None], 3, axis=1).astype(np.float32)
    covariances = gaussians.covariances()
    return splat(gaussians.means, covariances, gaussians.opacities, colours, camera, threads=threads).colour[..., 0]


def _resized(camera: Camera, size: int) -> Camera:
    plain = replace(camera, distortion=(0.0, 0.0, 0.0, 0.0))
    return plain.resized(size / max(camera.width, camera.height))


def _around(
    gaussians: Gaussians, chosen: np.ndarray, first: Camera, up: np.ndarray | None, cameras: list[Camera], count: int
) -> list[Camera]:
    """Further views, the nearest in angle first, so that every mask stands on one from beside it."""
    up = np.array([0.0, 1.0, 0.0]) if up is None else np.asarray(up, np.float64) / np.linalg.norm(up)
    points = gaussians.means[chosen].astype(np.float64)
    centre = np.median(points, axis=0)
    way = first.position - centre
    distance = float(np.linalg.norm(way)) or 1.0
    if cameras:
        seeing = [camera for camera in cameras if _sees(camera, centre)]
        angles = [float(np.dot(c.position - centre, way) / (np.linalg.norm(c.position - centre) * distance + 1e-12))
                  for c in seeing]  # fmt: skip
        order = np.argsort(-np.array(angles), kind="stable")
        return [seeing[n] for n in order[: 2 * count]][:: 2 if len(seeing) >= 2 * count else 1][:count]
    size = float(np.percentile(np.linalg.norm(points - centre, axis=1), 95)) + 1e-9
    reach = float(np.clip(distance, 3.5 * size, 8.0 * size))
    height = float(way @ up)
    flat = way - height * up
    if np.linalg.norm(flat) < 1e-6 * distance:
        flat = np.cross(up, [0.31, 0.17, 0.93])
    flat /= np.linalg.norm(flat)
    across = np.cross(up, flat)
    rise = float(np.clip(height / distance, 0.3, 0.75))
    side = max(first.width, first.height)
    views = []
    for k in range(count):
        # 0, +step, -step, +2 step, … so that the thing is followed both ways round
        turn = (k + 1) // 2 * (1 if k % 2 else -1) * 2 * np.pi / count
        direction = np.sqrt(1 - rise * rise) * (np.cos(turn) * flat + np.sin(turn) * across) + rise * up
        views.append(look_at(centre + reach * direction, centre, up=up, width=side, height=side, field_of_view=38.0))
    return views


def _sees(camera: Camera, point: np.ndarray) -> bool:
    x, y, z = camera.rotation @ point + camera.translation
    if z <= 1e-6:
        return False
    column, row = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    return bool(0.1 * camera.width < column < 0.9 * camera.width and 0.1 * camera.height < row < 0.9 * camera.height)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("selecting by boxes and clicks", "scene") from error
    return cv2
