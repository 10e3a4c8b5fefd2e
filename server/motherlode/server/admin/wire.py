"""From the server's state to the messages of `ModelAdminService`."""

from __future__ import annotations

from motherlode.server.gate import Figure
from motherlode.server.slot import ServedVersion, Slot
from motherlode.server.watcher import Watcher
from motherlode.v1 import model_admin_pb2 as pb

# A repository that nobody cleans may have thousands.
_VERSIONS_SHOWN = 100


def model_status(slot: Slot, watcher: Watcher) -> pb.ModelStatus:
    """All that there is to say of a model."""
    sighting = watcher.sightings.get(slot.model)
    seen = set() if sighting is None else set(sighting.versions[:_VERSIONS_SHOWN])
    leaving = {one.version: one for one in watcher.retirement.leaving(slot.model)}
    versions = sorted(seen | leaving.keys() | {one.version for one in slot.loaded}, reverse=True)
    return pb.ModelStatus(
        name=slot.model,
        serving_version=0 if slot.current is None else slot.current.version,
        load_error=slot.load_error,
        is_unloaded=slot.is_unloaded,
        aliases=dict(slot.aliases),
        canary=_canary(slot),
        versions=[_version(slot, watcher, one, leaving.get(one)) for one in versions],
    )


def figure_message(figure: Figure) -> pb.GateFigure:
    """A figure of the gate."""
    return pb.GateFigure(
        name=figure.name, value=figure.value, bound=figure.bound, is_least=figure.is_least
    )


def _canary(slot: Slot) -> pb.CanaryStatus:
    if slot.canary is None:
        return pb.CanaryStatus(trouble=slot.trial_error)
    canary = slot.canary
    return pb.CanaryStatus(
        version=canary.served.version,
        percent=canary.percent,
        trouble=canary.trouble or slot.trial_error,
    )


def _version(
    slot: Slot, watcher: Watcher, version: int, leaving: ServedVersion | None
) -> pb.VersionStatus:
    served = slot.find(version)
    state, detail = _state(slot, watcher, version, is_leaving=leaving is not None)
    status = pb.VersionStatus(
        version=version,
        state=state,
        detail=detail,
        is_serving=served is not None and served is slot.current,
        aliases=sorted(alias for alias, target in slot.aliases.items() if target == version),
    )
    if (loaded := served or leaving) is not None:
        status.bundle_digest = loaded.digest
        status.ram_bytes = loaded.retriever.manifest.memory.ram_bytes
        status.answered_calls = loaded.statistics.answered.count
        status.failed_calls = loaded.statistics.failed.count
        status.current_calls = loaded.num_calls
    return status


def _state(
    slot: Slot, watcher: Watcher, version: int, *, is_leaving: bool
) -> tuple[pb.VersionState, str]:
    progress = watcher.intake.progress
    if progress is not None and (progress.model, progress.version) == (slot.model, version):
        return pb.VERSION_STATE_LOADING, progress.stage
    if slot.find(version) is not None:
        return pb.VERSION_STATE_AVAILABLE, ""
    if is_leaving:
        return pb.VERSION_STATE_RETIRING, ""
    failure = watcher.intake.failures.get((slot.model, version))
    if failure is not None:
        return pb.VERSION_STATE_FAILED, f"{failure.stage}: {failure.message}"
    return pb.VERSION_STATE_START, ""
