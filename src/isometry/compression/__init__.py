"""Makes vectors smaller: scikit-learn estimators from float vectors to byte codes, and what their bytes cost."""

from isometry.compression._base import CodeEstimator, SavedEstimator, load_compressor, restore_compressor
from isometry.compression.contrastive_pq import ContrastivePQ
from isometry.compression.fine_head import FineHead
from isometry.compression.fixed_dimensional import FixedDimensionalEncoding
from isometry.compression.locality import PairBatch, locality_batches
from isometry.compression.product import ProductQuantizer
from isometry.compression.rabitq import RaBitQ
from isometry.compression.recurrent_binary import RecurrentBinary
from isometry.compression.scalar import ScalarQuantizer
from isometry.compression.sign import SignBinarizer
from isometry.compression.truncate import Truncate

__all__ = [
    "CodeEstimator",
    "ContrastivePQ",
    "FineHead",
    "FixedDimensionalEncoding",
    "PairBatch",
    "ProductQuantizer",
    "RaBitQ",
    "RecurrentBinary",
    "SavedEstimator",
    "ScalarQuantizer",
    "SignBinarizer",
    "Truncate",
    "load_compressor",
    "locality_batches",
    "restore_compressor",
]
