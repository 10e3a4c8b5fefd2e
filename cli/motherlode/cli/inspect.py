"""`motherlode inspect`: what a repository or one of its models holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from motherlode.cli.output import print_json, print_line, print_table
from motherlode.core.errors import BundleError, ConfigError, NotFoundError
from motherlode.core.manifest import Manifest
from motherlode.core.repository import Repository, parse_model_ref

__all__ = ["inspect"]


def inspect(
    *,
    repository: Path,
    model: str | None = None,
    placement: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Show what a repository or a model holds, or where a model would go on this machine.

    Without a model, lists all models with their versions and aliases.

    Args:
        repository: Folder of the repository.
        model: MODEL, MODEL@VERSION or MODEL@ALIAS; MODEL alone means its newest version.
        placement: Show where the model's index and encoder would go on this machine, what each kind
            of query would use, and why. Nothing of the model is loaded.
        json: Print one JSON document.
    """
    opened = Repository(repository)
    if not repository.is_dir():
        raise NotFoundError("repository", str(repository))
    if placement and model is None:
        raise ConfigError("model", expected="a model to place", actual="none")
    if model is None:
        listing = [_list_model(opened, name) for name in opened.models()]
        _print_json_or(json, {"models": listing}, lambda: _print_listing(repository, listing))
        return
    name, reference = parse_model_ref(model)
    version = opened.resolve(name, reference)
    manifest = opened.manifest(name, version)
    aliases = _aliases_of(opened, name, version)
    head = {"model": name, "version": version, "aliases": aliases}
    if placement:
        # Imported here: to look into a repository takes neither PyTorch nor FAISS.
        from motherlode.cli.placement import print_placement  # noqa: PLC0415

        print_placement(head, manifest, json=json)
        return
    document = head | manifest.model_dump(mode="json")
    _print_json_or(json, document, lambda: _print_manifest(head, manifest))


def _print_json_or(json: bool, document: object, show: Any) -> None:
    if json:
        print_json(document)
    else:
        show()


def _list_model(repository: Repository, name: str) -> dict[str, Any]:
    """The versions and aliases of a model, or why they cannot be read."""
    entry: dict[str, Any] = {"name": name, "aliases": {}, "versions": []}
    try:
        versions = repository.versions(name)
        entry["versions"] = [_list_version(repository, name, version) for version in versions]
        entry["aliases"] = repository.aliases(name)
    except BundleError as error:
        entry["error"] = str(error)
    return entry


def _list_version(repository: Repository, name: str, version: int) -> dict[str, Any]:
    """The main facts of a version, or why it cannot be read."""
    entry: dict[str, Any] = {"version": version}
    try:
        manifest = repository.manifest(name, version)
    except BundleError as error:
        return entry | {"error": error.reason}
    return entry | {
        "created_at": f"{manifest.created_at:%Y-%m-%dT%H:%M:%SZ}",
        "num_labels": manifest.dimensions.num_labels,
        "width": manifest.dimensions.width,
        "index": manifest.index.kind,
        "size_bytes": _total_size(manifest),
        "digest": manifest.digest,
    }


def _print_listing(repository: Path, listing: list[dict[str, Any]]) -> None:
    if not listing:
        print_line(f"{repository} holds no model")
        return
    columns = ["model", "version", "aliases", "created", "labels", "width", "index", "size"]
    rows = [row for model in listing for row in _listing_rows(model)]
    print_table([*columns, "digest"], rows)


def _listing_rows(model: dict[str, Any]) -> Iterator[list[object]]:
    if "error" in model:
        yield [model["name"], *[None] * 7, model["error"]]
    for version in reversed(model["versions"]):
        yield _listing_row(model, version)


def _listing_row(model: dict[str, Any], version: dict[str, Any]) -> list[object]:
    number = version["version"]
    aliases = ", ".join(alias for alias, target in model["aliases"].items() if target == number)
    row: list[object] = [model["name"], number, aliases]
    if "error" in version:
        return [*row, None, None, None, None, None, version["error"]]
    size, digest = _readable_size(version["size_bytes"]), version["digest"][:12]
    facts = [version[key] for key in ("created_at", "num_labels", "width", "index")]
    return [*row, *facts, size, digest]


def _print_manifest(head: dict[str, Any], manifest: Manifest) -> None:
    print_table(["", f"{head['model']}@{head['version']}"], _facts(head, manifest))
    print_line()
    stages = [
        [stage.name, stage.kind, stage.score_meaning or "-", _settings(stage.config)]
        for stage in manifest.stages
    ]
    print_table(["stage", "kind", "score", "configuration"], stages)
    print_line()
    if figures := list(_figures(manifest.evaluation)):
        print_table(["evaluation", "value"], figures, decimals=2)
        print_line()
    files = [
        [name, _readable_size(entry.size_bytes), entry.sha256[:12]]
        for name, entry in manifest.files.items()
    ]
    print_table(["file", "size", "sha256"], files)


def _facts(head: dict[str, Any], manifest: Manifest) -> Iterator[tuple[str, str]]:
    dimensions, index, memory = manifest.dimensions, manifest.index, manifest.memory
    lengths = manifest.normalization
    yield "aliases", ", ".join(head["aliases"]) or "-"
    yield "created", f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC by {manifest.written_by}"
    yield "format", str(manifest.format_version)
    yield "digest", manifest.digest
    yield "labels", f"{dimensions.num_labels:,}"
    yield "features", f"{dimensions.num_features:,}"
    yield "width", f"{dimensions.width} ({dimensions.dtype})"
    yield "unit length", f"queries {_yes(lengths.queries)}, labels {_yes(lengths.labels)}"
    metric = "ranked anew" if manifest.has_ranker else dimensions.metric
    yield "score", f"{manifest.score_meaning} ({metric})"
    yield "index", f"{index.factory}, FAISS {index.faiss_version} ({_settings(index.parameters)})"
    yield "index recall", ", ".join(f"{k} {v:.4f}" for k, v in index.recall.items()) or "-"
    ram, gpu = _readable_size(memory.ram_bytes), _readable_size(memory.gpu_bytes)
    yield "memory", f"{ram} RAM, {gpu} on a GPU (predicted)"
    yield "size", _readable_size(_total_size(manifest))
    yield "parents", _settings(manifest.parents)
    yield "config digest", manifest.config_digest
    yield "data digest", manifest.data_digest


def _figures(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a nested document with their dotted names; lists are left to the report."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _figures(value, "" if name == "figures" else f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value


def _aliases_of(repository: Repository, model: str, version: int) -> list[str]:
    return [alias for alias, v in sorted(repository.aliases(model).items()) if v == version]


def _total_size(manifest: Manifest) -> int:
    return sum(entry.size_bytes for entry in manifest.files.values())


def _settings(config: dict[str, Any]) -> str:
    return ", ".join(_assignments(config)) or "-"


def _assignments(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _assignments(value, f"{prefix}{name}.")
        elif name != "kind":
            yield f"{prefix}{name}={value}"


def _yes(length: str) -> str:
    return "yes" if length == "unit" else "no"


def _readable_size(size_bytes: int) -> str:
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
