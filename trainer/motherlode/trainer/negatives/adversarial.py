"""Each query's own draws from a tree fitted to the data: negatives that are hard to tell apart.

Bamler and Mandt, "Extreme Classification via Adversarial Softmax Approximation", ICLR 2020.

Shapes: B queries in a batch, K draws a query, N distinct labels drawn, P positives.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from motherlode.core.errors import InvalidInputError
from motherlode.core.rankers import LabelTree, Whitening
from motherlode.core.rankers.correction import check_projection
from motherlode.trainer.negatives.config import CandidatesConfig, LabelTreeConfig
from motherlode.trainer.negatives.sampler import (
    Batch,
    HasLabels,
    Negatives,
    NegativeSampler,
    mask_own_positives,
)


@final
class AdversarialConfig(CandidatesConfig):
    """Draws of each query from a label tree that is fitted to the training data.

    Attributes:
        tree: How the label tree is fitted.
    """

    kind: Literal["adversarial"] = "adversarial"
    # The paper draws one. More of them cost less than as many more queries, and vary less.
    num_candidates: int = Field(default=32, ge=1, le=1 << 16)
    tree: LabelTreeConfig = LabelTreeConfig()


@final
class Proposal(NamedTuple):
    """The fitted p_n(y|x).

    Attributes:
        whitening: Projects the features of a query.
        tree: Gives the probabilities of labels by what the whitening gives.
    """

    whitening: Whitening
    tree: LabelTree


@final
class AdversarialSampler(NegativeSampler):
    """`num_draws` independent draws from p_n(y|x) for each query, x its own features.

    A label drawn twice for a query counts twice, so that every place is one draw from p_n. The
    batch's features go through the whitening as they are, whatever is dropped from them later.

    Args:
        whitening: Projects the features of a query.
        tree: p_n(y|x).
        num_draws: K.
        num_labels: L, of the label table.

    Raises:
        InvalidInputError: If the tree is over other labels or another projection, or num_draws is
            below 1.
    """

    def __init__(
        self, whitening: Whitening, tree: LabelTree, num_draws: int, num_labels: int
    ) -> None:
        check_projection(whitening, tree)
        if tree.num_labels != num_labels:
            expected = f"{num_labels}, as many as the label table has"
            raise InvalidInputError(
                "label_tree.num_labels", expected=expected, actual=tree.num_labels
            )
        if num_draws < 1:
            raise InvalidInputError("num_draws", expected="at least 1", actual=num_draws)
        self.whitening = whitening
        self.tree = tree
        self.num_draws = num_draws

    @override
    def sample(
        self, batch: Batch, queries_BD: Tensor, labels: HasLabels, generator: torch.Generator
    ) -> Negatives:
        # Raw features, as the query path will rank with them.
        projected = self.whitening.transform(batch.features)
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        draws, log_probs = self.tree.sample(projected, self.num_draws, np.random.default_rng(seed))
        draws_BK = torch.from_numpy(draws)
        labels_N, places_BK = torch.unique(draws_BK, return_inverse=True)
        log_q_P = self.tree.log_prob(projected, batch.rows_P.numpy(), batch.positives_P.numpy())
        return Negatives(
            labels_N,
            mask_own_positives(batch, draws_BK),
            places_BK=places_BK,
            log_q_BK=torch.from_numpy(log_probs),
            log_q_P=torch.from_numpy(log_q_P),
        )
