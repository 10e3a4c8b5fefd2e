"""Where negatives come from."""

from motherlode.trainer.negatives.sampler import Batch, Negatives, NegativeSampler
from motherlode.trainer.negatives.snm import SnmSampler, keep_hardest
from motherlode.trainer.negatives.uniform import UniformSampler

__all__ = [
    "Batch",
    "NegativeSampler",
    "Negatives",
    "SnmSampler",
    "UniformSampler",
    "keep_hardest",
]
