"""From features to query embeddings; the same code and weights in training, scoring and serving."""

from motherlode.core.encoders.bag import BagEncoder, BagEncoderConfig
from motherlode.core.encoders.dense import DenseEncoder, DenseEncoderConfig
from motherlode.core.encoders.encoder import EncoderConfig, QueryEncoder
from motherlode.core.encoders.head import HeadConfig
from motherlode.core.encoders.loading import (
    AnyEncoderConfig,
    encoder_from_state,
    load_encoder,
    new_encoder,
)

__all__ = [
    "AnyEncoderConfig",
    "BagEncoder",
    "BagEncoderConfig",
    "DenseEncoder",
    "DenseEncoderConfig",
    "EncoderConfig",
    "HeadConfig",
    "QueryEncoder",
    "encoder_from_state",
    "load_encoder",
    "new_encoder",
]
