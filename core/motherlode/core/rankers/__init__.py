"""Second stages over a shortlist, and what they rank with."""

from motherlode.core.rankers.correction import TreeCorrection, TreeCorrectionConfig
from motherlode.core.rankers.hidden_units import HiddenUnits
from motherlode.core.rankers.kinds import RANKERS, load_ranker
from motherlode.core.rankers.label_texts import LabelTexts
from motherlode.core.rankers.label_tree import PADDING_BIAS, LabelTree
from motherlode.core.rankers.neighbors import MOST_NEIGHBORS, Neighbors, NeighborsConfig
from motherlode.core.rankers.ranker import Ranker
from motherlode.core.rankers.sparse_linear import (
    INPUTS,
    INPUTS_WITH_NEIGHBORS,
    JOINED,
    SparseLinear,
    SparseLinearConfig,
    joined_terms,
)
from motherlode.core.rankers.sparse_weights import SparseWeights
from motherlode.core.rankers.whitening import Whitening

__all__ = [
    "INPUTS",
    "INPUTS_WITH_NEIGHBORS",
    "JOINED",
    "MOST_NEIGHBORS",
    "PADDING_BIAS",
    "RANKERS",
    "HiddenUnits",
    "LabelTexts",
    "LabelTree",
    "Neighbors",
    "NeighborsConfig",
    "Ranker",
    "SparseLinear",
    "SparseLinearConfig",
    "SparseWeights",
    "TreeCorrection",
    "TreeCorrectionConfig",
    "Whitening",
    "joined_terms",
    "load_ranker",
]
