"""Objects of a scene: from masks to Gaussians, and found by words."""

from isometry.scenes.objects.collection import index_objects, object_views
from isometry.scenes.objects.fills import find_fill
from isometry.scenes.objects.identity import Identities, learn_identities
from isometry.scenes.objects.inpaint import Removed, remove_object
from isometry.scenes.objects.judge import masked_psnr
from isometry.scenes.objects.lift import Lifted, claim_inside, clean_up, lift, lift_objects
from isometry.scenes.objects.make import make_objects
from isometry.scenes.objects.masks import read_masks
from isometry.scenes.objects.pick import Stroke, pick
from isometry.scenes.objects.search import find_names, find_objects

__all__ = [
    "Identities",
    "Lifted",
    "Removed",
    "Stroke",
    "claim_inside",
    "clean_up",
    "find_fill",
    "find_names",
    "find_objects",
    "index_objects",
    "learn_identities",
    "lift",
    "lift_objects",
    "make_objects",
    "masked_psnr",
    "object_views",
    "pick",
    "read_masks",
    "remove_object",
]
