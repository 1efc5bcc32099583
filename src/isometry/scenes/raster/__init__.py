"""Pictures of Gaussians and their gradients."""

from isometry.scenes.raster.render import render, render_backward, splat, vote, weights_matrix
from isometry.scenes.raster.rendering import Gradients, Rendering

__all__ = ["Gradients", "Rendering", "render", "render_backward", "splat", "vote", "weights_matrix"]
