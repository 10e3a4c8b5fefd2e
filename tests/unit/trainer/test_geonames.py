from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import DataError, OutputError
from motherlode.trainer.data import GeonamesSummary, load_dataset, make_geonames

FILES = ["ATTRIBUTION.txt", "labels.jsonl.gz", "test.jsonl.gz", "train.jsonl.gz"]


def share(name: str) -> float:
    return int(hashlib.md5(name.encode()).hexdigest()[:8], 16) / 2**32


def name_that_falls_to_test(stem: str) -> str:
    return next(f"{stem} {i}" for i in range(1000) if share(f"{stem} {i}") < 0.05)


TEST_NAME = name_that_falls_to_test("Ψαλμός")
OFFICIAL = name_that_falls_to_test("Town")


def place(key: int, name: str, *names: str, admin1: str = "14", country: str = "PT") -> dict:
    return {
        "geonameid": key,
        "name": name,
        "latitude": 1.0,
        "countrycode": country,
        "admin1code": admin1,
        "alternatenames": list(names),
    }


PLACES = [
    place(20, "Lisbon", "Lisbonne", "", "  ", "https://en.wikipedia.org/wiki/Lisbon", "リスボン"),
    place(3, " Big \t Lake ", "Lisbon", "Lisbon ", TEST_NAME, admin1="", country="US"),
    place(100, OFFICIAL, TEST_NAME, OFFICIAL),
]


def write_places(folder: Path, places: list[dict], size: str = "cities15000") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    document = {str(entry.get("geonameid", i)): entry for i, entry in enumerate(places)}
    (folder / f"{size}.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture
def source(tmp_path) -> Path:
    return write_places(tmp_path / "source", PLACES)


def read(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_names_lead_to_all_places_that_bear_them(tmp_path, source):
    summary = make_geonames("cities15000", tmp_path / "a" / "out", source=source)
    out = tmp_path / "a" / "out"
    assert read(out / "labels.jsonl.gz") == [
        {"id": "3", "text": "Big Lake, US"},
        {"id": "20", "text": "Lisbon, 14, PT"},
        {"id": "100", "text": f"{OFFICIAL}, 14, PT"},
    ]
    assert read(out / "train.jsonl.gz") == [
        {"text": "Big Lake", "labels": ["3"]},
        {"text": "Lisbon", "labels": ["3", "20"]},
        {"text": "Lisbonne", "labels": ["20"]},
        {"text": OFFICIAL, "labels": ["100"]},
        {"text": "リスボン", "labels": ["20"]},
    ]
    assert read(out / "test.jsonl.gz") == [{"text": TEST_NAME, "labels": ["3", "100"]}]
    assert summary == GeonamesSummary(num_train=5, num_test=1, num_labels=3)
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_the_attribution_says_whose_data_it_is_and_under_which_licence(tmp_path, source):
    make_geonames("cities15000", tmp_path / "out", source=source)
    text = (tmp_path / "out" / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    for needed in ("GeoNames", "CC BY 4.0", "licenses/by/4.0", "cities15000", "Changes:"):
        assert needed in text


def test_equal_places_give_equal_files_whatever_their_order(tmp_path, source):
    other = write_places(tmp_path / "other", PLACES[::-1])
    make_geonames("cities15000", tmp_path / "one", source=source)
    make_geonames("cities15000", tmp_path / "two", source=other)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_only_its_own_files_are_replaced(tmp_path, source):
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.jsonl.gz").write_bytes(b"old")
    (out / "notes.txt").write_text("mine")
    make_geonames("cities15000", out, source=source)
    assert (out / "notes.txt").read_text() == "mine"
    assert len(read(out / "train.jsonl.gz")) == 5
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "notes.txt"])


def test_a_failure_leaves_old_files_as_they_were_and_nothing_else(tmp_path, source, monkeypatch):
    out = tmp_path / "out"
    make_geonames("cities15000", out, source=source)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("motherlode.trainer.data.geonames._label_of", fail)
    with pytest.raises(OSError, match="No space left"):
        make_geonames("cities15000", out, source=write_places(source, PLACES[:1]))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, source):
    (tmp_path / "out").write_text("mine")
    for folder in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(OutputError, match="not a folder"):
            make_geonames("cities15000", folder, source=source)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"geonameid": 7}, r"7\.name: expected str, got nothing"),
        (place(7, None), r"7\.name: expected str, got null"),  # type: ignore[arg-type]
        (place(7, "a", admin1=5), r"7\.admin1code: expected str, got 5 \(int\)"),  # type: ignore[arg-type]
        (place(7, "a", None), r"7\.alternatenames: expected strings"),  # type: ignore[arg-type]
        ({**place(7, "a"), "alternatenames": "b"}, r"7\.alternatenames: expected list, got 'b'"),
        ({**place(7, "a"), "geonameid": "7"}, r"7\.geonameid: expected int"),
    ],
)
def test_a_place_that_is_not_as_expected_is_named(tmp_path, entry, message):
    source = write_places(tmp_path / "source", [*PLACES, entry])
    with pytest.raises(DataError, match=rf"cities15000\.json: {message}"):
        make_geonames("cities15000", tmp_path / "out", source=source)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON: expected a whole document"),
        ("[]", "places: expected a map of places"),
        ("{}", "places: expected a map of places"),
        ('{"1": 2}', "1: expected a map of fields, got 2"),
    ],
)
def test_a_broken_source_is_refused(tmp_path, content, message):
    (tmp_path / "cities500.json").write_text(content)
    with pytest.raises(DataError, match=message):
        make_geonames("cities500", tmp_path / "out", source=tmp_path)


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cities500\.json: file: expected .*, got nothing"):
        make_geonames("cities500", tmp_path / "out", source=tmp_path)


@pytest.mark.slow
def test_the_real_places_give_the_documented_data_set(tmp_path):
    summary = make_geonames("cities15000", tmp_path)
    assert summary == GeonamesSummary(num_train=327_025, num_test=15_451, num_labels=34_006)
    train = load_dataset(tmp_path, "train")
    test = load_dataset(tmp_path, "test", labels=train.labels)
    assert [len(train), len(test), len(train.labels)] == [327_025, 15_451, 34_006]
    assert train.labels.frequencies.min() > 0
    assert test.num_true.sum() == len(test.positives.indices)
    lisbon = list(train.labels.texts or ()).index("Lisbon, 14, PT")
    named = train.rows(np.array([train.queries.texts.index("Lisbonne")]))
    assert named.positives.indices.tolist() == [lisbon]
