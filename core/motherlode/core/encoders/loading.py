"""Encoders from their configuration and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from motherlode.core.encoders.bag import BagEncoder, BagEncoderConfig
from motherlode.core.encoders.dense import DenseEncoder, DenseEncoderConfig
from motherlode.core.encoders.encoder import QueryEncoder, load_head
from motherlode.core.encoders.head import Head
from motherlode.core.errors import BundleError

AnyEncoderConfig = Annotated[BagEncoderConfig | DenseEncoderConfig, Field(discriminator="kind")]
_CONFIG: TypeAdapter[BagEncoderConfig | DenseEncoderConfig] = TypeAdapter(AnyEncoderConfig)


def new_encoder(
    config: BagEncoderConfig | DenseEncoderConfig, table_FD: Tensor, generator: torch.Generator
) -> QueryEncoder:
    """An encoder over a given feature table, with a fresh head."""
    head = Head(config.width, config.head, generator)
    if isinstance(config, BagEncoderConfig):
        return BagEncoder(config, table_FD, head)
    return DenseEncoder(config, table_FD, head)


def encoder_from_state(config: Mapping[str, object], state: Mapping[str, Tensor]) -> QueryEncoder:
    """An encoder ready for inference.

    Raises:
        pydantic.ValidationError: If the configuration is not one of an encoder.
        RuntimeError: If names or shapes of the head's weights do not fit the configuration.
    """
    checked = _CONFIG.validate_python(config)
    encoder = new_encoder(checked, state["table"], torch.Generator().manual_seed(0))
    load_head(encoder.head, state)
    return encoder


def load_encoder(path: Path, config: Mapping[str, object], num_features: int) -> QueryEncoder:
    """The encoder whose weights `QueryEncoder.save` wrote.

    Raises:
        BundleError: If the file cannot be read or its shapes do not fit.
    """
    try:
        encoder = encoder_from_state(config, load_file(path))
    except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
        raise BundleError(path, f"not the weights of this encoder: {error}") from error
    if tuple(encoder.table_FD.shape) != (num_features, encoder.width):
        expected = f"[{num_features}, {encoder.width}]"
        raise BundleError(path, f"table is {list(encoder.table_FD.shape)}, expected {expected}")
    return encoder
