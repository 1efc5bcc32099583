"""In what order and mixture an encoder sees its data."""

from isometry.training.stages.batching import LikeLengthSampler, MixedBatchSampler, like_length_batches, mixed_batches
from isometry.training.stages.conversion import class_triplets, graded_pairs

__all__ = [
    "LikeLengthSampler",
    "MixedBatchSampler",
    "class_triplets",
    "graded_pairs",
    "like_length_batches",
    "mixed_batches",
]
