"""A retriever without a model, for tests of what stands round one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from motherlode.core.queries import Queries, TextQueries
from motherlode.core.query_path import StageTimes
from motherlode.core.query_rows import StillWanted
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK

TIMEOUT_S = 60.0


class FakeRetriever:
    """Answers the text `n` with the labels n, n+1, ... (k of them), and `few n` with n alone.

    The text `fail` raises ZeroDivisionError, `exit` SystemExit; `raise` raises `error`. After
    `hold` every batch waits for `release`.

    Attributes:
        batches: The texts of each batch, in the order in which they ran.
        searched: Those of them that somebody still waited for after the encoding.
        threads: The thread that each batch ran in.
        after_encoding: Called in each batch between what would be encoding and search.
        after_search: Called at its end.
    """

    BYTES_PER_QUERY = 100

    def __init__(self, version: int = 1, *, model: str = "fake") -> None:
        self.model = model
        self.version = version
        self.digest = f"{version:064x}"
        self.batches: list[list[str]] = []
        self.searched: list[list[str]] = []
        self.threads: list[int] = []
        self.after_encoding: Callable[[], object] = int
        self.after_search: Callable[[], object] = int
        self.error: BaseException = ValueError("not set")
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()

    @property
    def as_retriever(self) -> Retriever:
        """Itself, for the type checker."""
        return cast("Retriever", self)

    def hold(self) -> None:
        """Makes every batch wait from now on."""
        self._open.clear()

    def wait_entered(self) -> None:
        """Returns when one more batch has begun; blocks the thread."""
        assert self._entered.acquire(timeout=TIMEOUT_S), "no batch came"

    def release(self) -> None:
        """Lets all batches pass."""
        self._open.set()

    def bytes_per_query(self, _k: int) -> int:
        return self.BYTES_PER_QUERY

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        times: StageTimes | None = None,
        still_wanted: StillWanted | None = None,
        **_options: object,
    ) -> TopK:
        texts = self._texts(queries)
        self.batches.append(texts)
        self.threads.append(threading.get_ident())
        self._entered.release()
        assert self._open.wait(TIMEOUT_S), "the retriever was never released"
        if times is not None:
            times.search_s += 0.25
        self.after_encoding()
        kept_B = None if still_wanted is None else still_wanted()
        kept = [kept_B is None or bool(kept_B[i]) for i in range(len(texts))]
        self.searched.append([text for text, is_kept in zip(texts, kept, strict=True) if is_kept])
        rows = [
            self._answer(text, k) if is_kept else []
            for text, is_kept in zip(texts, kept, strict=True)
        ]
        self.after_search()
        labels = np.array([label for row in rows for label in row], np.int64)
        return TopK(labels, -labels.astype(np.float32), np.array([len(row) for row in rows]))

    def _texts(self, queries: Queries) -> list[str]:
        if isinstance(queries, TextQueries):
            return list(queries.texts)
        return [str(int(row[0])) for row in cast("Any", queries).embeddings_BD]

    def _answer(self, text: str, k: int) -> list[int]:
        if text == "fail":
            raise ZeroDivisionError("a secret of the model")
        if text == "exit":
            raise SystemExit(3)
        if text == "raise":
            raise self.error
        if text.startswith("few "):
            return [int(text.removeprefix("few "))]
        return [int(text) + i for i in range(k)]
