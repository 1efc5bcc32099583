"""Files of splats, points, meshes and posed photographs."""

from isometry.scenes.files.atomic import write_atomic
from isometry.scenes.files.cameras import Camera, read_cameras
from isometry.scenes.files.colmap import read_colmap
from isometry.scenes.files.ply import read_ply, read_splat_ply, splat_ply_bytes
from isometry.scenes.files.splat import read_splat
from isometry.scenes.files.splats import read_splats, write_splats
from isometry.scenes.files.spz import read_spz, spz_bytes
from isometry.scenes.files.transforms import read_transforms

__all__ = [
    "Camera",
    "read_cameras",
    "read_colmap",
    "read_ply",
    "read_splat",
    "read_splat_ply",
    "read_splats",
    "read_spz",
    "read_transforms",
    "splat_ply_bytes",
    "spz_bytes",
    "write_atomic",
    "write_splats",
]
