from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from motherlode.core.errors import BundleError
from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    ScanConfig,
    build_index,
    faiss,
    families,
    load_index,
    set_index_threads,
)
from motherlode.core.index.faiss import max_openmp_threads, one_thread
from tests.support.embeddings import clustered, unit

WALKING = HnswConfig(num_neighbors=4, ef_construction=20, ef_search=16)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"kind": "psychic"}, "kind"),
        ({"kind": "exact", "nprobe": 3}, "nprobe"),
        ({"kind": "ivf_flat", "nlist": 0}, "nlist"),
        ({"kind": "ivf_flat", "nprobe": 0}, "nprobe"),
        ({"kind": "hnsw", "num_neighbors": 1}, "num_neighbors"),
        ({"kind": "hnsw", "ef_search": 0}, "ef_search"),
        ({"kind": "hnsw", "ef_construction": "many"}, "ef_construction"),
        ({"kind": "hnsw", "codes": "rabitq"}, "codes"),
        ({"kind": "scan", "codes": "pq"}, "codes"),
        ({"kind": "scan", "refine": 0}, "refine"),
        ({"kind": "scan", "codes": "pq_fast_scan", "subvector_width": 3}, "subvector_width"),
        ({"kind": "scan", "codes": "sq8", "subvector_width": 2}, "subvector_width"),
        ({"kind": "ivf", "codes": "rabitq", "subvector_width": 2}, "subvector_width"),
        ({"kind": "ivf", "nprobe": 0}, "nprobe"),
    ],
)
def test_wrong_settings_are_refused(settings, field):
    with pytest.raises(ValidationError, match=field):
        TypeAdapter(IndexConfig).validate_python(settings)


def test_settings_are_told_apart_by_their_kind():
    adapter: TypeAdapter[IndexConfig] = TypeAdapter(IndexConfig)
    for config in (
        ExactConfig(),
        IvfFlatConfig(nlist=7),
        HnswConfig(ef_search=9, codes="sq8"),
        ScanConfig(codes="rabitq", refine=3),
        IvfConfig(codes="pq_fast_scan", subvector_width=4),
    ):
        assert adapter.validate_python(config.model_dump()) == config


@pytest.mark.parametrize(
    ("config", "factory"),
    [
        (ExactConfig(), "Flat"),
        (IvfFlatConfig(), "IVF80,Flat"),
        (IvfFlatConfig(nlist=9), "IVF9,Flat"),
        (IvfFlatConfig(nlist=1000), "IVF400,Flat"),
        (HnswConfig(num_neighbors=6), "HNSW6,Flat"),
        (HnswConfig(num_neighbors=6, codes="sq8"), "HNSW6,SQ8"),
        (HnswConfig(num_neighbors=6, codes="fp16"), "HNSW6,SQfp16"),
        (ScanConfig(), "SQ8"),
        (ScanConfig(codes="fp16"), "SQfp16"),
        (ScanConfig(codes="pq_fast_scan"), "PQ8x4fs"),
        (ScanConfig(codes="pq_fast_scan", subvector_width=8), "PQ2x4fs"),
        (ScanConfig(codes="rabitq"), "RaBitQ"),
        (IvfConfig(nlist=9), "IVF9,PQ4"),
        (IvfConfig(nlist=9, subvector_width=1), "IVF9,PQ16"),
        (IvfConfig(nlist=9, codes="pq_fast_scan"), "IVF9,PQ8x4fs"),
        (IvfConfig(codes="rabitq"), "IVF80,RaBitQ"),
        (IvfConfig(codes="sq8"), "IVF80,SQ8"),
    ],
)
def test_an_index_says_what_it_is(config, factory):
    labels_LD, _ = clustered(400, 8)
    index = build_index(config, labels_LD, seed=0)
    assert (index.factory, index.kind) == (factory, config.kind)
    assert index.faiss_version[0].isdigit()


def test_predicted_memory_of_approximate_indexes_is_about_the_size_of_their_files(tmp_path):
    labels_LD, _ = clustered(2000, 32)
    for config in (
        IvfFlatConfig(nlist=50),
        HnswConfig(num_neighbors=8),
        HnswConfig(num_neighbors=8, codes="sq8"),
        ScanConfig(codes="sq8"),
        ScanConfig(codes="pq_fast_scan"),
        ScanConfig(codes="rabitq"),
        IvfConfig(nlist=50, codes="fp16"),
        IvfConfig(nlist=50, codes="pq"),
        IvfConfig(nlist=50, codes="pq_fast_scan"),
        IvfConfig(nlist=50, codes="rabitq"),
    ):
        index = build_index(config, labels_LD, seed=0)
        index.save(tmp_path / "index.faiss")
        size_bytes = (tmp_path / "index.faiss").stat().st_size
        assert index.predicted_bytes == pytest.approx(size_bytes, rel=0.05)


def test_a_graph_does_not_copy_the_labels(tmp_path):
    labels_LD, queries_BD = clustered(2000, 32)
    index = build_index(WALKING, labels_LD, seed=0)
    before = index.search(queries_BD, 5)
    labels_LD *= -1
    assert index.search(queries_BD, 5).labels.tolist() != before.labels.tolist()
    index.save(tmp_path / "index.faiss")
    assert (tmp_path / "index.faiss").stat().st_size < labels_LD.nbytes


def test_another_seed_builds_another_graph_and_other_lists(tmp_path):
    labels_LD, _ = clustered(800, 8)
    for config in (IvfFlatConfig(nlist=20), WALKING, IvfConfig(nlist=20)):
        files = []
        for seed in (0, 1, 2**40):
            build_index(config, labels_LD, seed=seed).save(tmp_path / "index.faiss")
            files.append((tmp_path / "index.faiss").read_bytes())
        assert len(set(files)) >= 2


def test_an_index_outlives_every_other_reference_to_its_parts(tmp_path):
    labels_LD, queries_BD = clustered(900, 16)
    index = build_index(WALKING, labels_LD, seed=0)
    expected = index.search(queries_BD, 5).labels.tolist()
    index.save(tmp_path / "index.faiss")
    loaded = load_index(WALKING, tmp_path / "index.faiss", labels_LD.copy(), mmap=True)
    del index
    (tmp_path / "index.faiss").unlink()
    assert loaded.search(queries_BD, 5).labels.tolist() == expected


@pytest.mark.parametrize("name", ["search_graph", "search_lists"])
def test_queries_for_which_too_little_is_found_are_scanned(monkeypatch, name):
    labels_LD, queries_BD = clustered(900, 16)
    config = WALKING if name == "search_graph" else IvfFlatConfig(nlist=30, nprobe=2)
    index = build_index(config, labels_LD, seed=0)
    search = getattr(faiss, name)

    def lose_hits(*args: object) -> np.ndarray:
        rows_BC = search(*args)
        rows_BC[1, 2:] = -1
        return np.asarray(rows_BC)

    monkeypatch.setattr(families.faiss, name, lose_hits)
    exact = build_index(ExactConfig(), labels_LD, seed=0).search(queries_BD[:3], 5)
    top = index.search(queries_BD[:3], 5)
    assert top.counts.tolist() == [5, 5, 5]
    assert top.row(1)[0].tolist() == exact.row(1)[0].tolist()


def test_lists_a_rounding_apart_are_chosen_alike_in_every_batch():
    generator = np.random.default_rng(0)
    label_D = unit(generator.standard_normal((1, 64)))
    labels_LD = (label_D * (1 + generator.uniform(-3e-7, 3e-7, (800, 64)))).astype(np.float32)
    queries_BD = unit(label_D + 0.1 * generator.standard_normal((64, 64)))
    index = build_index(IvfFlatConfig(nlist=40, nprobe=2), labels_LD, seed=0)
    together = index.search(queries_BD, 5).labels.reshape(64, 5)
    alone = [index.search(query_D[None], 5).labels.tolist() for query_D in queries_BD]
    assert together.tolist() == alone


def test_lists_that_hold_a_label_twice_are_refused(tmp_path, monkeypatch):
    labels_LD, _ = clustered(300, 8)
    config = IvfFlatConfig(nlist=10)
    build_index(config, labels_LD, seed=0).save(tmp_path / "index.faiss")
    monkeypatch.setattr(families.faiss, "rows_in_lists", lambda _: np.zeros(300, np.int64))
    with pytest.raises(BundleError, match="do not hold each label once"):
        load_index(config, tmp_path / "index.faiss", labels_LD, mmap=False)


def test_the_number_of_threads_reaches_every_thread_that_searches():
    import faiss as library

    labels_LD, queries_BD = clustered(100, 8)
    index = build_index(ExactConfig(), labels_LD, seed=0)

    def threads_of_a_search(_: int) -> int:
        index.search(queries_BD, 3)
        return int(library.omp_get_max_threads())

    with ThreadPoolExecutor(2) as pool:
        for n in (1, 3, 1):
            set_index_threads(n)
            assert set(pool.map(threads_of_a_search, range(4))) == {n}
    assert threads_of_a_search(0) == 1


def test_a_search_within_work_of_one_thread_changes_nothing_for_later_ones():
    labels_LD, queries_BD = clustered(100, 8)
    index = build_index(ExactConfig(), labels_LD, seed=0)
    set_index_threads(2)
    index.search(queries_BD, 3)
    set_index_threads(1)
    with one_thread():
        index.search(queries_BD, 3)
    index.search(queries_BD, 3)
    assert max_openmp_threads() == 1


@pytest.mark.parametrize("n", [0, -1])
def test_less_than_one_thread_is_refused(n):
    with pytest.raises(ValueError, match="at least 1"):
        set_index_threads(n)


def test_checks_do_not_depend_on_assertions():
    # FAISS itself reads past the end of such a query when Python runs with -O.
    program = """
import numpy as np
from motherlode.core.errors import InvalidQueryError
from motherlode.core.index import ExactConfig, build_index
index = build_index(ExactConfig(), np.eye(8, dtype=np.float32), seed=0)
try:
    index.search(np.ones((1, 5), np.float32), 3)
except InvalidQueryError as error:
    raise SystemExit(17)
"""
    assert subprocess.run([sys.executable, "-O", "-c", program], check=False).returncode == 17
