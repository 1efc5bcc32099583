"""Losses that sentence-transformers lacks, in its own shape: `forward(sentence_features, labels)`."""

from isometry.training.losses.functional import (
    coordinate_kl,
    cosine_matrix,
    focal_weights,
    kl_between_scores,
    standardise,
)
from isometry.training.losses.info_nce import InfoNCE
from isometry.training.losses.ladder_loss import EspressoLoss, LadderLoss, SampledSizeLoss, compressed_target
from isometry.training.losses.layer_distillation import LayerDistillationLoss
from isometry.training.losses.margin_ranking import MarginRankingLoss
from isometry.training.losses.masked_autoencoder import MaskedAutoencoderLoss, nested_masks
from isometry.training.losses.masks import add_guide_vectors, duplicate_keys

__all__ = [
    "EspressoLoss",
    "InfoNCE",
    "LadderLoss",
    "LayerDistillationLoss",
    "MarginRankingLoss",
    "MaskedAutoencoderLoss",
    "SampledSizeLoss",
    "add_guide_vectors",
    "compressed_target",
    "coordinate_kl",
    "cosine_matrix",
    "duplicate_keys",
    "focal_weights",
    "kl_between_scores",
    "nested_masks",
    "standardise",
]
