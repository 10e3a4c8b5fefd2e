"""Second stages over a shortlist, and what they rank with."""

from motherlode.core.rankers.correction import TreeCorrection, TreeCorrectionConfig
from motherlode.core.rankers.label_tree import PADDING_BIAS, LabelTree
from motherlode.core.rankers.whitening import Whitening

__all__ = [
    "PADDING_BIAS",
    "LabelTree",
    "TreeCorrection",
    "TreeCorrectionConfig",
    "Whitening",
]
