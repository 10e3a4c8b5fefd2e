"""Where negatives come from."""

from typing import Annotated

from pydantic import Field

from motherlode.trainer.negatives.adversarial import (
    AdversarialConfig,
    AdversarialSampler,
    Proposal,
)
from motherlode.trainer.negatives.config import LabelTreeConfig
from motherlode.trainer.negatives.draws import AliasTable, draw_distinct
from motherlode.trainer.negatives.frequency import FrequencyConfig, FrequencySampler
from motherlode.trainer.negatives.in_batch import InBatchConfig, InBatchSampler
from motherlode.trainer.negatives.nearest import NearestConfig, NearestSampler
from motherlode.trainer.negatives.sampler import Batch, Negatives, NegativeSampler
from motherlode.trainer.negatives.snm import SnmSampler, keep_hardest
from motherlode.trainer.negatives.uniform import UniformConfig, UniformSampler

__all__ = [
    "AdversarialConfig",
    "AdversarialSampler",
    "AliasTable",
    "AnyNegativesConfig",
    "Batch",
    "FrequencyConfig",
    "FrequencySampler",
    "InBatchConfig",
    "InBatchSampler",
    "LabelTreeConfig",
    "NearestConfig",
    "NearestSampler",
    "NegativeSampler",
    "Negatives",
    "NegativesConfig",
    "Proposal",
    "SnmSampler",
    "UniformConfig",
    "UniformSampler",
    "draw_distinct",
    "keep_hardest",
]

AnyNegativesConfig = (
    UniformConfig | FrequencyConfig | InBatchConfig | NearestConfig | AdversarialConfig
)

NegativesConfig = Annotated[AnyNegativesConfig, Field(discriminator="kind")]
