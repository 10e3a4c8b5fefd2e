"""What a machine has to put a model on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import final

from motherlode.core.memory import available_bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The CPU with its RAM, or a GPU.

    Attributes:
        name: `cpu`, or `gpu:` and its number.
        description: What it is, for people.
        free_bytes: Memory that is free now.
        has_faiss: Whether FAISS can search on it.
        has_cuvs: Whether it can search graphs on it, by cuVS.
    """

    name: str
    description: str
    free_bytes: int
    has_faiss: bool = True
    has_cuvs: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether it is not the CPU."""
        return self.name != "cpu"


def detect_devices() -> tuple[Device, ...]:
    """The CPU and the GPUs of this machine, as FAISS and torch see them now."""
    # Imported here: to read a manifest takes neither of them.
    import torch  # noqa: PLC0415

    from motherlode.core.index.faiss import has_cuvs, num_gpus  # noqa: PLC0415

    cores = len(os.sched_getaffinity(0))
    cpu = Device(name="cpu", description=f"{cores} cores", free_bytes=available_bytes())
    num_torch = torch.cuda.device_count() if torch.cuda.is_available() else 0
    num_faiss = num_gpus()
    gpus = (
        Device(
            name=f"gpu:{number}",
            description=torch.cuda.get_device_name(number) if number < num_torch else "GPU",
            # Without torch there is nobody to ask, so nothing is planned on it.
            free_bytes=torch.cuda.mem_get_info(number)[0] if number < num_torch else 0,
            has_faiss=number < num_faiss,
            has_cuvs=number < num_faiss and has_cuvs(),
        )
        for number in range(max(num_torch, num_faiss))
    )
    return cpu, *gpus
