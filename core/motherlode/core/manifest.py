"""The manifest: what a bundle holds, what it is for, and the digests that prove it whole."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from motherlode.core.digests import take_in_file
from motherlode.core.documents import read_json
from motherlode.core.errors import BundleError, UnsupportedFormatError, shorten

# The highest that is read. A bundle is written as the lowest that can say what it holds, so that
# older readers go on reading those without a ranker: 2 has a stage `ranker` and its folder.
FORMAT_VERSION = 5
# Name and kind of a stage -> the first format version that knows it, where that is not the first.
_FIRST_VERSIONS = {
    ("ranker", "tree_correction"): 2,
    ("ranker", "sparse_linear"): 3,
    ("index", "scan"): 3,
    ("index", "ivf"): 3,
    ("index", "learned"): 3,
}
# Name and kind of a stage, and a setting that it need not have -> likewise.
_FIRST_VERSIONS_OF_SETTINGS = {
    ("index", "hnsw", "codes"): 3,
    ("ranker", "sparse_linear", "hidden"): 4,
    ("ranker", "sparse_linear", "neighbors"): 5,
}
MANIFEST_FILE = "manifest.json"
FEATURES_FOLDER = "features"
ENCODER_FILE = "encoder.safetensors"
LABELS_FILE = "labels.arrow"
EMBEDDINGS_FILE = "label_embeddings.safetensors"
LABEL_ENCODER_FILE = "label_encoder.safetensors"
INDEX_FILE = "index/index.faiss"
RANKER_FOLDER = "ranker"
GOLDEN_FILE = "golden.arrow"
QUERY_SAMPLE_FILE = "query_sample.safetensors"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
TRAINING_STATE_FILE = "training_state.safetensors"

# A change in these files changes no answer, so they have no part in the bundle's digest.
_FILES_BESIDE_THE_ANSWERS = frozenset({EVALUATION_FILE, REPORT_FILE, TRAINING_STATE_FILE})

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _check_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    is_plain = path == "/".join(parts) and all(not part.startswith((".", "/")) for part in parts)
    if not is_plain or "\\" in path or "\0" in path or not path:
        raise ValueError("a relative path without hidden parts is expected")
    return path


FilePath = Annotated[str, AfterValidator(_check_path)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@final
class FileEntry(_Frozen):
    """Size and digest of one file."""

    size_bytes: int = Field(ge=0)
    sha256: Sha256

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """The entry that the file at `path` should have."""
        digest = hashlib.sha256()
        take_in_file(digest, path)
        return cls(size_bytes=path.stat().st_size, sha256=digest.hexdigest())


@final
class Dimensions(_Frozen):
    """Sizes that the parts of a bundle must agree on."""

    num_features: int = Field(ge=0)
    width: int = Field(ge=1)
    num_labels: int = Field(ge=1)
    dtype: Literal["float32"] = "float32"
    metric: Literal["inner_product"] = "inner_product"


@final
class Normalization(_Frozen):
    """Whether embeddings have unit length, as found when the bundle was written."""

    queries: Literal["unit", "none"]
    labels: Literal["unit", "none"]


@final
class Stage(_Frozen):
    """One step of the way from a query to its hits.

    Attributes:
        name: `features`, `encoder`, `index`, or `ranker`, which ranks the shortlist anew.
        kind: Which of its kinds.
        config: All that is needed to build it again from its files.
        score_meaning: What a score means after this stage; None where the stage gives no score.
    """

    name: str
    kind: str
    config: dict[str, Any]
    score_meaning: str | None = None


@final
class IndexInfo(_Frozen):
    """The index as it was built and measured.

    Attributes:
        kind: Family of the index.
        factory: FAISS factory text, or a like description.
        faiss_version: Release of FAISS that wrote the file.
        parameters: Its configuration with nothing left automatic.
        recall: Share of the exact hits that it found on held-out queries, such as {"R@10": 0.99}.
    """

    kind: str
    factory: str
    faiss_version: str
    parameters: dict[str, Any]
    recall: dict[str, float]


@final
class Memory(_Frozen):
    """Predicted memory of a loaded bundle, in bytes; working space of queries is not counted."""

    ram_bytes: int = Field(ge=0)
    gpu_bytes: int = Field(ge=0)


@final
class Manifest(_Frozen):
    """What one version of a model is; its number is the name of its folder alone."""

    format_version: int = Field(default=1, ge=1, le=FORMAT_VERSION)
    created_at: datetime
    written_by: str
    digest: Sha256
    dimensions: Dimensions
    normalization: Normalization
    stages: tuple[Stage, ...]
    index: IndexInfo
    memory: Memory
    evaluation: dict[str, Any]
    parents: dict[str, str]
    config: dict[str, Any]
    config_digest: str
    data_digest: str
    files: dict[FilePath, FileEntry]

    def stage(self, name: str) -> Stage:
        """The stage of this name.

        Raises:
            KeyError: If the bundle has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    @property
    def has_ranker(self) -> bool:
        """Whether the hits of the index are ranked anew."""
        return any(stage.name == "ranker" for stage in self.stages)

    @property
    def score_meaning(self) -> str:
        """What the scores of the last stage mean."""
        meanings = [stage.score_meaning for stage in self.stages if stage.score_meaning]
        return meanings[-1] if meanings else ""

    def save(self, folder: Path) -> None:
        """Writes `manifest.json` into the bundle's folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def lowest_format_version(stages: tuple[Stage, ...]) -> int:
    """The first format version in which a bundle may have such stages."""
    return max(map(_first_version, stages))


def _first_version(stage: Stage) -> int:
    of_settings = (
        _FIRST_VERSIONS_OF_SETTINGS.get((stage.name, stage.kind, setting), 1)
        for setting in stage.config
    )
    return max([_FIRST_VERSIONS.get((stage.name, stage.kind), 1), *of_settings])


def bundle_digest(files: dict[str, FileEntry], stages: tuple[Stage, ...]) -> str:
    """SHA-256 over all that decides answers: the stages, and the files but for the reports."""
    deciding = {
        path: entry.sha256 for path, entry in files.items() if path not in _FILES_BESIDE_THE_ANSWERS
    }
    document = {"files": deciding, "stages": [stage.model_dump(mode="json") for stage in stages]}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`; the files it names are not looked at.

    Raises:
        UnsupportedFormatError: If a newer Motherlode wrote it.
        BundleError: If there is none, or it is not valid.
    """
    path = folder / MANIFEST_FILE
    document = _read_document(path)
    version = document.get("format_version")
    if not isinstance(version, int):
        raise BundleError(path, f"format_version: expected an integer, got {shorten(version)}")
    if version > FORMAT_VERSION:
        reason = f"format version {version}; this Motherlode reads versions up to {FORMAT_VERSION}"
        raise UnsupportedFormatError(path, reason)
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        got = shorten(first["input"])
        raise BundleError(path, f"{place}: {first['msg']}, got {got}") from None


def check_files(folder: Path, manifest: Manifest, *, verify: bool) -> None:
    """Refuses a bundle whose files are not those of its manifest.

    Args:
        folder: The bundle's folder.
        manifest: Its manifest.
        verify: Whether to hash every file; otherwise names and sizes must do.

    Raises:
        BundleError: For a file that is missing, changed, or not in the manifest.
    """
    if bundle_digest(manifest.files, manifest.stages) != manifest.digest:
        raise BundleError(folder / MANIFEST_FILE, "digest is not that of the files and stages")
    for name, entry in manifest.files.items():
        _check_file(folder / name, entry, verify=verify)
    extra = list_files(folder) - manifest.files.keys()
    if extra:
        raise BundleError(folder / min(extra), f"not in {MANIFEST_FILE}, so it is not trusted")


def list_files(folder: Path) -> set[str]:
    """Relative paths of all files but the manifest and hidden ones."""
    names = set()
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(parent).relative_to(folder)
        names |= {(relative / name).as_posix() for name in files if not name.startswith(".")}
    return names - {MANIFEST_FILE}


def _check_file(path: Path, entry: FileEntry, *, verify: bool) -> None:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != entry.size_bytes:
            reason = f"{size_bytes} bytes, expected {entry.size_bytes} (incomplete copy?)"
            raise BundleError(path, reason)
        actual = FileEntry.of(path).sha256 if verify else entry.sha256
    except OSError as error:
        raise BundleError(path, f"cannot be read: {error.strerror or error}") from error
    if actual != entry.sha256:
        raise BundleError(path, f"SHA-256 is {actual}, expected {entry.sha256}: the file changed")


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise BundleError(path, "no such file, so this folder holds no bundle") from None
    except OSError as error:
        raise BundleError(path, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BundleError(path, f"not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise BundleError(path, "expected a JSON object")
    return document
