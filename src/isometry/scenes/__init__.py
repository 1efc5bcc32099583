"""Scenes of 3D Gaussians: read, drawn, split into objects, simulated, shown. Needs `isometry[scene]`."""

from isometry.scenes.cage import Cage, build_cage, cage_from_mesh
from isometry.scenes.embedding import Embedding, bind, deform
from isometry.scenes.example import example_scene, shipped_scene
from isometry.scenes.files import Camera, read_cameras, read_splats, write_atomic, write_splats
from isometry.scenes.files.cameras import look_at
from isometry.scenes.gaussians import Gaussians
from isometry.scenes.inputs import Log, Script, apply_input, read_script
from isometry.scenes.meshed import object_cage
from isometry.scenes.physics import Body, Material, World
from isometry.scenes.raster import Rendering, render, render_backward, splat, vote
from isometry.scenes.scene import Scene, SceneObject, load_scene, save_scene
from isometry.scenes.shadows import lit_shares
from isometry.scenes.simulate import Run, simulate
from isometry.scenes.stage import Pose, Stage
from isometry.scenes.thinning import thinned

__all__ = [
    "Body",
    "Cage",
    "Camera",
    "Embedding",
    "Gaussians",
    "Log",
    "Material",
    "Pose",
    "Rendering",
    "Run",
    "Scene",
    "SceneObject",
    "Script",
    "Stage",
    "World",
    "apply_input",
    "bind",
    "build_cage",
    "cage_from_mesh",
    "deform",
    "example_scene",
    "lit_shares",
    "load_scene",
    "look_at",
    "object_cage",
    "read_cameras",
    "read_script",
    "read_splats",
    "render",
    "render_backward",
    "save_scene",
    "shipped_scene",
    "simulate",
    "splat",
    "thinned",
    "vote",
    "write_atomic",
    "write_splats",
]
