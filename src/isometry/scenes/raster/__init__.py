"""Pictures of Gaussians and their gradients."""

from isometry.scenes.raster.render import Gradients, Rendering, render, render_backward, splat, vote, weights_matrix

__all__ = ["Gradients", "Rendering", "render", "render_backward", "splat", "vote", "weights_matrix"]
