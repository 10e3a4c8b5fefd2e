"""Readers of data files: JSONL, Parquet and the Extreme Classification Repository's text format."""

from motherlode.core.records.batch import RecordBatch, RecordQueries
from motherlode.core.records.label_table import read_label_table
from motherlode.core.records.reader import SUFFIXES, read_records

__all__ = ["SUFFIXES", "RecordBatch", "RecordQueries", "read_label_table", "read_records"]
