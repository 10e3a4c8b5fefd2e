"""What every query encoder promises.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor

from motherlode.core.encoders.head import Head, HeadConfig
from motherlode.core.queries import Features, FloatArray


class EncoderConfig(BaseModel):
    """What all encoders have in their configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    width: int = Field(default=256, ge=1, le=65536, description="D, width of the embeddings")
    head: HeadConfig = HeadConfig()

    def without_network(self) -> Self:
        """The same encoder without a residual network, as an own one of label texts is."""
        return self.model_copy(update={"head": HeadConfig(normalize=self.head.normalize)})


class QueryEncoder(ABC):
    """Features in, embeddings out.

    The embedding of a query has the same bits alone and in any batch. `encode` may be called from
    several threads at once.
    """

    kind: ClassVar[str]
    config: EncoderConfig
    table_FD: Tensor
    head: Head

    @property
    def width(self) -> int:
        """D, width of the embeddings."""
        return self.config.width

    @property
    def num_features(self) -> int:
        """F, number of features it takes."""
        return len(self.table_FD)

    @abstractmethod
    def project(self, features: Features, table_FD: Tensor) -> Tensor:
        """Features times a table of their embeddings: float32 [B, D].

        Args:
            features: A batch whose feature ids are rows of `table_FD`; in training that is the
                part of the table which the batch touches.
            table_FD: float32 [F, D].
        """

    @abstractmethod
    def encode(self, features: Features) -> FloatArray:
        """Embeddings of a batch: float32 [B, D]."""

    def state(self) -> dict[str, Tensor]:
        """All weights, by name."""
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        return {"table": self.table_FD, **head}

    def save(self, path: Path) -> None:
        """Write the weights as a safetensors file."""
        save_file({name: value.contiguous() for name, value in self.state().items()}, path)


def load_head(head: Head, state: Mapping[str, Tensor]) -> None:
    """Set the weights of a head from the state of its encoder."""
    prefix = "head."
    head.load_state_dict(
        {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
    )
    head.eval()
    head.requires_grad_(requires_grad=False)
