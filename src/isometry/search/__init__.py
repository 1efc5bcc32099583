"""Finding vectors again: the durable store, filters, indexes and the collection that joins them."""

from isometry.search.collection import Collection
from isometry.search.filters import Filter, compile_filter
from isometry.search.fusion import reciprocal_rank_fusion
from isometry.search.plan import SearchPlan
from isometry.search.store import VerifyReport, WriteReport

__all__ = [
    "Collection",
    "Filter",
    "SearchPlan",
    "VerifyReport",
    "WriteReport",
    "compile_filter",
    "reciprocal_rank_fusion",
]
