"""The model that `beside_triton.py` gives to the Python backend of Triton: FAISS, batch by batch.

Triton imports it in a process of its own, by an interpreter that ignores `PYTHONPATH`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.environ["TRITON_MODEL_PACKAGES"])

import faiss
import numpy as np
import triton_python_backend_utils as triton

K = 10


class TritonPythonModel:
    """One search for all requests that Triton's batcher has put together."""

    def initialize(self, _: dict[str, str]) -> None:
        """Reads the index."""
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(os.environ["TRITON_MODEL_INDEX"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request."""
        parts = [
            triton.get_input_tensor_by_name(request, "embeddings").as_numpy()
            for request in requests
        ]
        scores, ids = self._index.search(np.concatenate(parts), K)
        answers, start = [], 0
        for part in parts:
            rows = slice(start, start + len(part))
            start += len(part)
            tensors = [triton.Tensor("ids", ids[rows]), triton.Tensor("scores", scores[rows])]
            answers.append(triton.InferenceResponse(tensors))
        return answers
