"""Settles what a run is before any row is scored: its version, its settings, its bundle."""

from __future__ import annotations

from motherlode.core.errors import BundleError, NotFoundError, OutputError
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.scoring.records import RunRecord
from motherlode.scoring.request import ScoringRequest
from motherlode.scoring.source import Source


def plan_run(
    request: ScoringRequest, source: Source, repository: Repository, previous: RunRecord | None
) -> RunRecord:
    """Settings of this run.

    The version is settled once: a run that goes on keeps to the one it began with, although a newer
    one may have been published.

    Raises:
        NotFoundError: If there is no such model or version.
        BundleError: If the version has no valid manifest.
        OutputError: If `previous`, which began in this folder, has other settings.
    """
    version = _version(request, repository, previous)
    run = RunRecord(
        input=source.record,
        model=request.model,
        requested_version=request.requested_version,
        version=version,
        bundle_digest=_bundle_digest(repository, request.model, version, previous),
        k=request.k,
        rows_per_part=request.rows_per_part,
    )
    if previous is not None and previous.digest != run.digest:
        reason = f"holds a run with other settings: {_differences(previous, run)}"
        raise OutputError(request.output, f"{reason}; use another folder, or --restart to drop it")
    return run


def load_retriever(
    request: ScoringRequest, repository: Repository, run: RunRecord, *, is_begun: bool
) -> Retriever:
    """The verified retriever of the run's version.

    Raises:
        BundleError: If it cannot be loaded.
        NotFoundError: If it is gone.
        OutputError: If either happens to a run that has begun already.
    """
    try:
        return Retriever.load(repository, run.model, run.version)
    except (NotFoundError, BundleError) as error:
        if not is_begun:
            raise
        reason = f"holds a run of {run.model}@{run.version}, which cannot be loaded: {error}"
        raise OutputError(request.output, f"{reason}; use --restart to drop it") from error


def newer_version(request: ScoringRequest, repository: Repository, run: RunRecord) -> int | None:
    """The version that the request means by now, if that is not the run's."""
    try:
        version = repository.resolve(request.model, request.version)
    except (NotFoundError, BundleError):
        return None
    return version if version != run.version else None


def _version(request: ScoringRequest, repository: Repository, previous: RunRecord | None) -> int:
    asked = (request.model, request.requested_version)
    if previous is not None and asked == (previous.model, previous.requested_version):
        return previous.version
    return repository.resolve(request.model, request.version)


def _bundle_digest(
    repository: Repository, model: str, version: int, previous: RunRecord | None
) -> str:
    try:
        return repository.manifest(model, version).digest
    except BundleError:
        # A version may be retired after its run; a finished run does not need it any more, and an
        # unfinished one fails when the bundle is loaded.
        if previous is None or previous.version != version:
            raise
        return previous.bundle_digest


def _differences(previous: RunRecord, run: RunRecord) -> str:
    pairs = {
        "input": (_content(previous), _content(run)),
        "model": (previous.model, run.model),
        "version": (previous.version, run.version),
        "bundle_digest": (previous.bundle_digest[:12], run.bundle_digest[:12]),
        "k": (previous.k, run.k),
        "rows_per_part": (previous.rows_per_part, run.rows_per_part),
    }
    return ", ".join(
        f"{name} was {old}, is {new}" for name, (old, new) in pairs.items() if old != new
    )


def _content(run: RunRecord) -> str:
    return f"{run.input.size_bytes} bytes with sha256 {run.input.sha256[:12]}"
