"""Soft bodies: XPBD, contact, grabbing."""

from isometry.scenes.physics.materials import PRESETS, Material, material
from isometry.scenes.physics.still import StillGrid, still_grid
from isometry.scenes.physics.world import Body, World, contact_points

__all__ = ["PRESETS", "Body", "Material", "StillGrid", "World", "contact_points", "material", "still_grid"]
