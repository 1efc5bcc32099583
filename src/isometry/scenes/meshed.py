"""Cages from a tetrahedral mesher instead of the lattice: smooth outsides, for where contact must be close."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError
from isometry.scenes.cage import Cage, build_cage, cage_from_mesh
from isometry.scenes.gaussians import Gaussians

Mesher = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
MESHERS = ("lattice", "pytetwild", "tetgen")


def object_cage(gaussians: Gaussians, mesher: str | Mesher = "lattice", *, vertices: int = 1500) -> Cage:
    """The cage of an object: the lattice, or its outside smoothed and filled by a mesher.

    Args:
        mesher: 'lattice', the name of an installed mesher, or a function of vertices `(v, 3)` and outward triangles
            `(f, 3)` that gives vertices and tetrahedra.
        vertices: of the lattice, about; a named mesher makes tetrahedra of the size of the lattice's.

    Raises:
        InputError: no such mesher, slivers, or a mesh that lost much of the volume. MissingExtraError: not installed.
    """
    if isinstance(mesher, str) and mesher not in MESHERS:
        raise InputError(f"a cage is made by {', '.join(MESHERS)}, not by '{mesher}'")
    lattice = build_cage(gaussians, vertices=vertices)
    if mesher == "lattice":
        return lattice
    work: Mesher = _named(mesher, lattice.cell) if isinstance(mesher, str) else mesher
    used, triangles = np.unique(lattice.surface, return_inverse=True)
    outside = _smoothed(lattice.vertices[used], triangles.reshape(-1, 3))
    volume = _volume(outside, triangles.reshape(-1, 3))
    if not volume > 0:
        raise InputError("the outside of this object is inside out or flat: use the lattice")
    made, tets = work(outside, triangles.reshape(-1, 3).astype(np.int32))
    cage = cage_from_mesh(np.asarray(made), np.asarray(tets))
    filled = float(cage.rest_volumes.sum())
    if not 0.7 * volume < filled < 1.4 * volume:
        raise InputError(
            f"the mesher filled {filled:.3g} of a volume of {volume:.3g} cubic metres: it took the outside for something "
            "else; use the lattice"
        )
    return cage


def _volume(points: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6.0)


def _smoothed(points: np.ndarray, triangles: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Steps of the lattice rounded off, out and in by turns so that it does not shrink (Taubin 1995)."""
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ends = np.concatenate([ends, ends[:, ::-1]])
    count = np.maximum(np.bincount(ends[:, 0], minlength=len(points)), 1)[:, None]
    for number in range(2 * rounds):
        mean = np.stack(
            [np.bincount(ends[:, 0], points[ends[:, 1], a], len(points)) for a in range(3)], axis=1
        ) / count  # fmt: skip
        points = points + (0.5 if number % 2 == 0 else -0.53) * (mean - points)
    return points


def _named(name: str, cell: float) -> Mesher:
    """An installed mesher, set to about the lattice's resolution."""
    if name == "pytetwild":
        if not all(importlib.util.find_spec(module) for module in ("pytetwild", "pyvista")):
            raise MissingExtraError(f"the mesher {name}", "mesh")
        return lambda points, triangles: _tetwild(points, triangles, 1.5 * cell)
    try:
        import tetgen
    except ImportError as error:
        raise MissingExtraError(f"the mesher {name}", "mesh") from error

    def work(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # without its optimisation of wide dihedral angles tetgen leaves slivers here and there
        made: Any = tetgen.TetGen(points, triangles).tetrahedralize(
            order=1, mindihedral=12, minratio=1.4, fixedvolume=True, maxvolume=cell**3 / 3, optmaxdihedral=150,
            opt_iterations=10,
        )  # fmt: skip
        return made[0], made[1]

    return work


def _tetwild(points: np.ndarray, triangles: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """pytetwild in a process and a folder of its own: it leaves a file where it runs, and writes to standard output.

    Raises:
        InputError: it failed, with its last words.
    """
    code = (
        "import numpy, pytetwild; g = numpy.load('given.npz'); "
        "made = pytetwild.tetrahedralize(g['points'], g['triangles'], edge_length_abs=float(g['edge'])); "
        "numpy.savez('made.npz', points=made[0], tets=made[1])"
    )
    with tempfile.TemporaryDirectory() as work:
        np.savez(Path(work) / "given.npz", points=points, triangles=triangles, edge=edge)
        done = subprocess.run([sys.executable, "-c", code], cwd=work, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not (Path(work) / "made.npz").is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise InputError(f"pytetwild could not fill this outside ({last[:200]}): use the lattice")
        with np.load(Path(work) / "made.npz") as made:
            return made["points"], made["tets"]
