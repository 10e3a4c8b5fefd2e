"""Offline scoring: the top k labels of every row of a file, as Parquet."""

from __future__ import annotations

from motherlode.scoring.request import ScoringRequest
from motherlode.scoring.scorer import score_file
from motherlode.scoring.summary import RowsDone, ScoringSummary

__all__ = ["RowsDone", "ScoringRequest", "ScoringSummary", "score_file"]
