"""Finding, filtering and making hard negatives, with reports of what was done."""

from isometry.training.negatives.corpus import Corpus, Judge, read_corpus
from isometry.training.negatives.filters import consistent_rows, guided_rows
from isometry.training.negatives.fusion import Bm25, reciprocal_rank_fusion, standardised_sum
from isometry.training.negatives.mining import MinedNegatives, NegativesReport, mine_negatives
from isometry.training.negatives.mixing import draw_pairs, mix_list, mix_pairs

__all__ = [
    "Bm25",
    "Corpus",
    "Judge",
    "MinedNegatives",
    "NegativesReport",
    "consistent_rows",
    "draw_pairs",
    "guided_rows",
    "mine_negatives",
    "mix_list",
    "mix_pairs",
    "read_corpus",
    "reciprocal_rank_fusion",
    "standardised_sum",
]
