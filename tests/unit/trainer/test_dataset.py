from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import DataError
from motherlode.core.labels import LabelTable
from motherlode.core.queries import DenseQueries, SparseQueries
from motherlode.trainer.data import Dataset, load_dataset, load_test_file, split_held_out
from tests.support.data_files import write_lines, write_records

LABELS = [{"id": key, "text": f"the {key}"} for key in ("c", "a", "b", "unused")]
TRAIN = [
    {"text": "one", "labels": ["b", "c", "b"]},
    {"text": "two", "labels": []},
    {"text": "three", "labels": ["c"]},
]
TEST = [{"text": "four", "labels": ["new", "b", "newer", "new"]}, {"text": "five", "labels": ["a"]}]


@pytest.fixture
def folder(tmp_path) -> Path:
    write_records(tmp_path / "labels.jsonl", LABELS)
    write_records(tmp_path / "train.jsonl.gz", TRAIN)
    write_records(tmp_path / "test.parquet", TEST)
    return tmp_path


def rows_of(dataset: Dataset) -> list[list[int]]:
    indptr, indices = dataset.positives.indptr, dataset.positives.indices
    return [indices[start:stop].tolist() for start, stop in pairwise(indptr)]


def test_training_data_has_distinct_label_rows_and_counts_frequencies(folder):
    train = load_dataset(folder, "train")
    assert train.queries.texts == ["one", "two", "three"]
    assert list(train.labels.keys) == ["c", "a", "b", "unused"]
    assert list(train.labels.texts) == ["the c", "the a", "the b", "the unused"]
    assert rows_of(train) == [[0, 2], [], [0]]
    assert train.num_true.tolist() == [2, 0, 1]
    assert train.labels.frequencies.tolist() == [2, 0, 1, 0]
    arrays = (train.positives.indptr, train.positives.indices, train.num_true)
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    assert len(train) == 3


def test_labels_of_test_data_that_the_table_lacks_count_as_true_without_a_row(folder):
    train = load_dataset(folder, "train")
    test = load_dataset(folder, "test", labels=train.labels)
    assert rows_of(test) == [[2], [1]]
    assert test.num_true.tolist() == [3, 1]
    assert test.labels is train.labels


def test_one_file_is_read_as_test_data(folder):
    labels = LabelTable(["b", "new"], None, np.array([5, 6]))
    test = load_test_file(folder / "test.parquet", labels=labels)
    assert rows_of(test) == [[0, 1], []]
    assert test.num_true.tolist() == [3, 1]
    assert test.labels.frequencies.tolist() == [5, 6]


def test_a_training_label_that_is_not_in_the_label_file_is_named_with_its_line(tmp_path):
    write_records(tmp_path / "labels.jsonl", LABELS)
    records = [{"text": "a", "labels": ["a"]}] * 3000
    records[2500] = {"text": "a", "labels": ["a", "missing"]}
    write_records(tmp_path / "train.jsonl", records)
    with pytest.raises(DataError, match=r"train\.jsonl:2501: labels: .*got 'missing'"):
        load_dataset(tmp_path, "train")


def test_given_labels_take_the_place_of_the_label_file(folder):
    labels = LabelTable(["b", "c"], None, np.array([100, 100]))
    train = load_dataset(folder, "train", labels=labels)
    assert rows_of(train) == [[0, 1], [], [1]]
    assert train.labels.frequencies.tolist() == [1, 2]
    assert labels.frequencies.tolist() == [100, 100]


def test_without_a_label_file_the_labels_are_those_seen_in_training(folder):
    (folder / "labels.jsonl").unlink()
    train = load_dataset(folder, "train")
    assert list(train.labels.keys) == ["b", "c"]
    assert train.labels.texts is None
    assert rows_of(train) == [[0, 1], [], [1]]
    test = load_dataset(folder, "test")
    assert rows_of(test) == [[0], []]
    assert test.num_true.tolist() == [3, 1]
    assert test.labels.frequencies.tolist() == [1, 2]


def test_labels_seen_in_an_xc_file_are_sorted_as_numbers(tmp_path):
    write_lines(tmp_path / "train.txt", "3 5 100", "10,9 1:1", "2,10 4:2", " 0:1")
    train = load_dataset(tmp_path, "train")
    assert list(train.labels.keys) == ["2", "9", "10"]
    assert rows_of(train) == [[1, 2], [0, 2], []]
    assert train.labels.frequencies.tolist() == [1, 1, 2]
    assert isinstance(train.queries, SparseQueries)
    assert train.queries.num_features == 5


def test_keys_are_sorted_as_text_unless_all_are_numbers(tmp_path):
    write_records(tmp_path / "train.jsonl", [{"text": "a", "labels": ["10", "9", "07"]}])
    assert list(load_dataset(tmp_path, "train").labels.keys) == ["07", "10", "9"]


def test_an_xc_folder_may_name_its_labels(tmp_path):
    write_lines(tmp_path / "train.txt.gz", "1 5 3", "2 1:1")
    write_lines(tmp_path / "labels.txt.gz", "zero", "one", "two")
    train = load_dataset(tmp_path, "train")
    assert rows_of(train) == [[2]]
    assert train.labels.texts_of(np.array([2])) == ["two"]


def test_sparse_data_of_many_batches_has_the_largest_feature_id_of_all(tmp_path):
    records = [{"indices": [i % 4000], "values": [1.0], "labels": [1]} for i in range(5000)]
    write_records(tmp_path / "train.jsonl", records)
    queries = load_dataset(tmp_path, "train").queries
    assert isinstance(queries, SparseQueries)
    assert queries.num_features == 4000
    np.testing.assert_array_equal(queries.indptr, np.arange(5001))
    np.testing.assert_array_equal(queries.indices, np.arange(5000) % 4000)
    assert load_dataset(tmp_path, "train", num_features=9999).queries.num_features == 9999


def test_records_without_labels_are_no_data_to_learn_from(tmp_path):
    write_records(tmp_path / "train.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"train\.jsonl:1: labels: .*got nothing"):
        load_dataset(tmp_path, "train")


def test_two_files_for_one_part_are_refused_and_both_named(folder):
    write_records(folder / "train.jsonl", TRAIN)
    with pytest.raises(DataError, match=r"train\.jsonl\.gz and train\.jsonl$"):
        load_dataset(folder, "train")
    write_lines(folder / "labels.txt", "a")
    with pytest.raises(DataError, match=r"labels\.jsonl and labels\.txt$"):
        load_dataset(folder, "test")


def test_a_missing_part_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"test: expected one of test\.jsonl\.gz, .*none of them"):
        load_dataset(tmp_path, "test")
    with pytest.raises(DataError, match="got no such folder"):
        load_dataset(tmp_path / "nowhere", "train")


def digest_of_files(folder: Path, name: str, records, labels=LABELS) -> str:
    write_records(folder / name, records)
    write_records(folder / "labels.jsonl", labels)
    digest = load_dataset(folder, "train").digest
    (folder / name).unlink()
    return digest


def test_the_digest_depends_on_the_content_not_on_its_file(tmp_path):
    names = ("train.jsonl", "train.jsonl.gz", "train.parquet")
    digests = {digest_of_files(tmp_path, name, TRAIN) for name in names}
    assert len(digests) == 1


def test_the_digest_changes_with_every_part_of_the_content(tmp_path):
    def variant(row: int, **changes) -> list[dict]:
        return [{**record, **(changes if i == row else {})} for i, record in enumerate(TRAIN)]

    contents = [
        (TRAIN, LABELS),
        (variant(0, text="One"), LABELS),
        (variant(0, labels=["b"]), LABELS),
        (variant(1, labels=["c"]), LABELS),
        (TRAIN[::-1], LABELS),
        # The same characters, cut at another place.
        ([{**TRAIN[0], "text": "onet"}, {**TRAIN[1], "text": "wo"}, TRAIN[2]], LABELS),
        (TRAIN, [*LABELS[:3], {"id": "unused", "text": "other"}]),
        (TRAIN, [*LABELS[:3], {"id": "other", "text": "the unused"}]),
        (TRAIN, [{"id": label["id"]} for label in LABELS]),
    ]
    digests = [digest_of_files(tmp_path, "train.jsonl", *content) for content in contents]
    assert len(set(digests)) == len(contents)


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_the_digest_covers_features(tmp_path, value):
    for name, record in (
        ("sparse", {"indices": [1, 2], "values": [1.0, value]}),
        ("dense", {"features": [1.0, value]}),
    ):
        write_records(tmp_path / name / "train.jsonl", [{**record, "labels": ["a"]}])
        write_records(
            tmp_path / f"{name}-other" / "train.jsonl",
            [{**record, list(record)[-1]: [1.0, 3.0], "labels": ["a"]}],
        )
        digests = {load_dataset(tmp_path / f, "train").digest for f in (name, f"{name}-other")}
        assert len(digests) == 2


def sized(folder: Path, kind: str, size: int = 40) -> Dataset:
    inputs = {
        "text": lambda i: {"text": f"text {i}"},
        "sparse": lambda i: {"indices": list(range(i % 3)), "values": [float(i)] * (i % 3)},
        "dense": lambda i: {"features": [float(i), 1.0]},
    }[kind]
    records = [{**inputs(i), "labels": [f"{j:02}" for j in range(i % 5)]} for i in range(size)]
    write_records(folder / kind / "train.jsonl", records)
    return load_dataset(folder / kind, "train")


@pytest.mark.parametrize("kind", ["text", "sparse", "dense"])
def test_chosen_rows_keep_queries_and_labels_together(tmp_path, kind):
    dataset = sized(tmp_path, kind)
    chosen = np.array([7, 2, 30, 7, 0])
    part = dataset.rows(chosen)
    assert [len(part), len(part.queries), len(part.positives)] == [5, 5, 5]
    for place, row in enumerate(chosen.tolist()):
        single = dataset.rows(np.array([row]))
        assert rows_of(part)[place] == rows_of(single)[0] == list(range(row % 5))
        assert part.num_true[place] == row % 5
        left, right = part.queries.rows(place, place + 1), dataset.queries.rows(row, row + 1)
        for name in left.__slots__:
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert part.labels is dataset.labels
    assert len(dataset.rows(np.array([], np.int64))) == 0


def test_all_rows_in_order_are_the_same_content(tmp_path):
    for kind in ("text", "sparse", "dense"):
        dataset = sized(tmp_path, kind)
        assert dataset.rows(np.arange(len(dataset))).digest == dataset.digest


@pytest.mark.parametrize("count", [10, 1, 39])
def test_a_held_out_part_and_the_rest_are_the_whole(tmp_path, count):
    dataset = sized(tmp_path, "text")
    train, held = split_held_out(dataset, count, np.random.default_rng(3))
    assert [len(train), len(held)] == [40 - count, count]
    texts = list(dataset.queries.texts)
    assert sorted([*train.queries.texts, *held.queries.texts]) == sorted(texts)
    assert list(held.queries.texts) == [t for t in texts if t in set(held.queries.texts)]
    np.testing.assert_array_equal(
        train.labels.frequencies, train.positives.counts(len(dataset.labels))
    )
    assert held.labels is train.labels
    assert list(train.labels.keys) == list(dataset.labels.keys)
    assert dataset.labels.frequencies.sum() == len(dataset.positives.indices)


def test_the_generator_decides_what_is_held_out(tmp_path):
    dataset = sized(tmp_path, "dense")

    def held(seed: int) -> list[float]:
        part = split_held_out(dataset, 10, np.random.default_rng(seed))[1]
        assert isinstance(part.queries, DenseQueries)
        return part.queries.features_BF[:, 0].tolist()

    assert held(1) == held(1)
    assert held(1) != held(2)


@pytest.mark.parametrize("count", [0, 40, 41, -1])
def test_a_part_that_would_be_empty_is_refused(tmp_path, count):
    with pytest.raises(ValueError, match="cannot hold out"):
        split_held_out(sized(tmp_path, "text"), count, np.random.default_rng(0))
