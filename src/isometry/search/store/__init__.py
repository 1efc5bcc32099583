"""The durable local store: SQLite for records, immutable checksummed files for vectors."""

from isometry.search.store.segments import Segment, SegmentInfo, write_segment
from isometry.search.store.store import Store, WriteReport
from isometry.search.store.verify import Problem, VerifyReport, verify_store

__all__ = ["Problem", "Segment", "SegmentInfo", "Store", "VerifyReport", "WriteReport", "verify_store", "write_segment"]
