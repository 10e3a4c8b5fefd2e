"""What every label index promises of its file, run for every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motherlode.core.errors import BundleError
from motherlode.core.index import (
    HnswConfig,
    IndexConfig,
    load_index,
    set_index_threads,
)
from motherlode.core.queries import FloatArray
from tests.support.label_indexes import (
    CASES,
    CONFIGS,
    NUM_LABELS,
    WIDTH,
    Case,
    name_of,
    rows_of,
)
from tests.support.learned_index import build_any_index as build_index


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    assert isinstance(request.param, Case)
    return request.param


@pytest.mark.parametrize("mmap", [True, False])
def test_a_saved_index_answers_in_the_same_bits(case, tmp_path, mmap):
    path = tmp_path / "index.faiss"
    case.index.save(path)
    loaded = load_index(case.index.config, path, case.labels_LD, mmap=mmap)
    assert (loaded.kind, loaded.factory, loaded.num_labels, loaded.width) == (
        case.index.kind,
        case.index.factory,
        NUM_LABELS,
        WIDTH,
    )
    assert loaded.predicted_bytes == case.index.predicted_bytes
    for k in (1, 10, 100):
        expected = rows_of(case.index.search(case.queries_BD, k))
        assert rows_of(loaded.search(case.queries_BD, k)) == expected


def test_an_index_of_a_read_only_file_mapping_answers_in_the_same_bits(case, tmp_path):
    np.save(tmp_path / "labels.npy", case.labels_LD)
    mapped_LD = np.load(tmp_path / "labels.npy", mmap_mode="r")
    case.index.save(tmp_path / "index.faiss")
    loaded = load_index(case.index.config, tmp_path / "index.faiss", mapped_LD, mmap=True)
    expected = rows_of(case.index.search(case.queries_BD, 10))
    assert rows_of(loaded.search(case.queries_BD, 10)) == expected


def saved_bytes(config: IndexConfig, labels_LD: FloatArray, path: Path, *, seed: int = 0) -> bytes:
    build_index(config, labels_LD, seed=seed).save(path)
    return path.read_bytes()


def test_the_same_arguments_build_the_same_file_whatever_the_threads(case, tmp_path):
    files = []
    for threads in (1, 2, 2):
        set_index_threads(threads)
        files.append(saved_bytes(case.index.config, case.labels_LD, tmp_path / "index.faiss"))
    assert files[0] == files[1] == files[2]


def test_an_index_of_other_labels_is_refused(case, tmp_path):
    path = tmp_path / "index.faiss"
    case.index.save(path)
    others: dict[str, FloatArray] = {
        "number of labels is 900, expected 899": case.labels_LD[:-1],
        "width is 24, expected 23": np.ascontiguousarray(case.labels_LD[:, :-1]),
        "is the index of other label embeddings": case.labels_LD[::-1].copy(),
        "expected finite values": np.full_like(case.labels_LD, np.nan),
    }
    for reason, labels_LD in others.items():
        with pytest.raises(BundleError, match=reason) as caught:
            load_index(case.index.config, path, labels_LD, mmap=True)
        assert caught.value.path == path


@pytest.mark.parametrize("other", CONFIGS, ids=name_of)
def test_an_index_of_another_family_is_refused(case, tmp_path, other):
    if other == case.index.config:
        other = (
            HnswConfig(num_neighbors=5) if other.kind == "hnsw" else CONFIGS[other.kind == "exact"]
        )
    case.index.save(tmp_path / "index.faiss")
    wrong = r"index\.faiss: .* is |index\.faiss: holds|index\.faiss: not a "
    with pytest.raises(BundleError, match=wrong):
        load_index(other, tmp_path / "index.faiss", case.labels_LD, mmap=False)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 39, 40, 60, -41, -40, -1])
def test_a_file_cut_short_is_refused(case, tmp_path, kept, mmap):
    path = tmp_path / "index.faiss"
    case.index.save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BundleError, match=r"index\.faiss"):
        load_index(case.index.config, path, case.labels_LD, mmap=mmap)


def test_a_missing_file_is_refused(case, tmp_path):
    with pytest.raises(BundleError, match="No such file"):
        load_index(case.index.config, tmp_path / "index.faiss", case.labels_LD, mmap=True)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(CASES)),
    damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    mmap=st.booleans(),
)
def test_a_damaged_file_is_refused_or_does_no_harm(tmp_path_factory, name, damage, mmap):
    # A file of its own for each example: an index of the last one may still be mapped.
    case, path = CASES[name], tmp_path_factory.mktemp("damaged") / "index.faiss"
    case.index.save(path)
    content = bytearray(path.read_bytes())
    path.unlink()
    for place, value in damage:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        index = load_index(case.index.config, path, case.labels_LD, mmap=mmap)
    except BundleError:
        return
    top = index.search(case.queries_BD[:5], 5)
    assert top.counts.tolist() == [5] * 5
    assert ((top.labels >= 0) & (top.labels < NUM_LABELS)).all()
