"""Where the arithmetic of a training runs.

Numbers of rows and labels, and all that is drawn, stay on the CPU, so that a run draws the same on
every device; tables, embeddings, scores and gradients are where the products are.
"""

from __future__ import annotations

import os
from typing import Literal

import torch

from motherlode.core.errors import ConfigError
from motherlode.core.index import LabelIndex
from motherlode.core.index.faiss import num_gpus
from motherlode.core.index.gpu import to_gpu

DeviceName = Literal["auto", "cpu", "cuda"]

CPU = torch.device("cpu")


def training_device(name: DeviceName) -> torch.device:
    """The device that a configuration names; of several GPUs each process takes its own.

    Args:
        name: `auto` is the GPU where torch sees one.

    Raises:
        ConfigError: If a GPU is asked for and torch sees none.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not num_gpus):
        return CPU
    if not num_gpus:
        raise ConfigError("loop.device", expected="a GPU that torch sees", actual=name)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % num_gpus)


def searched_on(device: torch.device, index: LabelIndex) -> LabelIndex:
    """An exact index, searched on a GPU where the training runs there and FAISS can."""
    if device.type == "cuda" and num_gpus() > device.index:
        return to_gpu(index, [device.index])
    return index
