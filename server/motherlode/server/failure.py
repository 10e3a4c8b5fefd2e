"""Why a version did not come in."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from motherlode.core.errors import (
    BundleError,
    GateError,
    MotherlodeError,
    UnavailableError,
    UnsupportedFormatError,
)
from motherlode.server.admission import AdmissionError
from motherlode.server.survey import Fingerprint

_FOREVER = float("inf")
# A full disk or a memory shortage may pass without any change to the bundle.
_RETRY_OTHER_FAILURES_S = 30.0
# The first row whose class fits counts.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (UnsupportedFormatError, "unsupported_format"),
    (GateError, "gate"),
    (BundleError, "bundle"),
    (AdmissionError, "no_room"),
    (UnavailableError, "busy"),
    (MotherlodeError, "refused"),
    (MemoryError, "out_of_memory"),
    (OSError, "io"),
)


@final
class StageError(Exception):
    """A stage failed.

    Attributes:
        stage: Its name.
        cause: Why.
    """

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(stage)
        self.stage = stage
        self.cause = cause

    def forget_frames(self) -> None:
        """Lets go of the frames in which it came about: they hold what was being loaded."""
        for error in (self, self.cause):
            error.__traceback__ = error.__context__ = error.__cause__ = None


@final
@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a version did not come in; not tried again until its files change or the time comes.

    Attributes:
        model: Its model.
        version: Its number.
        stage: Where it failed.
        reason: One word, for metrics.
        message: A sentence, for people.
        files: As they were.
        retry_at: `time.monotonic` after which it is tried again.
    """

    model: str
    version: int
    stage: str
    reason: str
    message: str
    files: Fingerprint
    retry_at: float

    @classmethod
    def of(
        cls, model: str, version: int, error: StageError, files: Fingerprint, *, hidden: str
    ) -> LoadFailure:
        """What an error says, without the path `hidden`."""
        cause = error.cause
        may_pass = isinstance(cause, AdmissionError | UnavailableError)
        is_final = isinstance(cause, MotherlodeError) and not may_pass
        return cls(
            model=model,
            version=version,
            stage=error.stage,
            reason=reason_of(cause),
            message=str(cause).replace(hidden, "") or type(cause).__name__,
            files=files,
            retry_at=_FOREVER if is_final else time.monotonic() + _RETRY_OTHER_FAILURES_S,
        )

    def stands(self, files: Fingerprint) -> bool:
        """Whether there is no point in another attempt."""
        return self.files == files and time.monotonic() < self.retry_at

    @override
    def __str__(self) -> str:
        return f"{self.model}@{self.version}: {self.stage}: {self.message}"


@final
class LoadRefusedError(MotherlodeError):
    """A version that an operator asked for does not pass every stage.

    Attributes:
        failure: Where, and why.
    """

    def __init__(self, failure: LoadFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


@final
class RepositoryUnusableError(MotherlodeError):
    """What an operator asked for needs a repository that can be read and written."""


def reason_of(error: Exception) -> str:
    """One word for why a load failed, for metrics."""
    return next((word for kind, word in _REASONS if isinstance(error, kind)), "internal")
