"""In what order and mixture an encoder sees its data."""

from isometry.training.stages.batching import MixedBatchSampler, mixed_batches
from isometry.training.stages.conversion import class_triplets, graded_pairs

__all__ = ["MixedBatchSampler", "class_triplets", "graded_pairs", "mixed_batches"]
