"""Measure many search plans on one's own data, and find the one that fits a budget."""

from isometry.search.tuning.budget import Budget
from isometry.search.tuning.candidates import Candidate, candidates
from isometry.search.tuning.measuring import Measured
from isometry.search.tuning.run import LEAST_RECORDS, TuneReport, apply, tune

__all__ = ["LEAST_RECORDS", "Budget", "Candidate", "Measured", "TuneReport", "apply", "candidates", "tune"]
