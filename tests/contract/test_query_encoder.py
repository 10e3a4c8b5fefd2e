"""What every query encoder promises, run for every encoder, with and without a residual network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from motherlode.core.encoders import (
    BagEncoderConfig,
    DenseEncoderConfig,
    HeadConfig,
    QueryEncoder,
    encoder_from_state,
    load_encoder,
    new_encoder,
)
from motherlode.core.errors import BundleError
from motherlode.core.queries import DenseQueries, Features, SparseQueries

NUM_FEATURES, WIDTH, NUM_QUERIES = 300, 48, 70
CONFIGS = [
    kind(width=WIDTH, head=HeadConfig(hidden=hidden, normalize=normalize))
    for kind in (BagEncoderConfig, DenseEncoderConfig)
    for hidden in (0, 96)
    for normalize in (True, False)
]


def name_of(config: BagEncoderConfig | DenseEncoderConfig) -> str:
    return f"{config.kind}-{config.head.hidden}-{'unit' if config.head.normalize else 'raw'}"


@pytest.fixture(params=CONFIGS, ids=name_of)
def encoder(request: pytest.FixtureRequest) -> QueryEncoder:
    generator = torch.Generator().manual_seed(0)
    table_FD = torch.randn(NUM_FEATURES, WIDTH, generator=generator)
    encoder = new_encoder(request.param, table_FD, generator)
    state = dict(encoder.state())
    if request.param.head.hidden:
        # A fresh residual network adds nothing; this one does.
        state["head.out.weight"] = torch.randn(WIDTH, 96, generator=generator) / 10
    return encoder_from_state(request.param.model_dump(), state)


@pytest.fixture
def features(encoder: QueryEncoder) -> Features:
    rng = np.random.default_rng(1)
    if encoder.kind == "dense":
        return DenseQueries(rng.standard_normal((NUM_QUERIES, NUM_FEATURES)).astype(np.float32))
    lengths = rng.integers(0, 40, NUM_QUERIES)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = [np.sort(rng.choice(NUM_FEATURES, length, replace=False)) for length in lengths]
    values = rng.random(indptr[-1], dtype=np.float32)
    return SparseQueries(indptr, np.concatenate(indices).astype(np.int64), values, NUM_FEATURES)


def test_embeddings_have_the_right_shape_and_type(
    encoder: QueryEncoder, features: Features
) -> None:
    embeddings_BD = encoder.encode(features)
    assert embeddings_BD.shape == (NUM_QUERIES, WIDTH)
    assert embeddings_BD.dtype == np.float32
    assert np.isfinite(embeddings_BD).all()


@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 64])
def test_an_embedding_has_the_same_bits_in_every_batch(
    encoder: QueryEncoder, features: Features, size: int
) -> None:
    whole = encoder.encode(features)
    parts = [
        encoder.encode(features.rows(start, min(start + size, NUM_QUERIES)))
        for start in range(0, NUM_QUERIES, size)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_normalised_embeddings_have_unit_length(encoder: QueryEncoder, features: Features) -> None:
    lengths = np.linalg.norm(encoder.encode(features), axis=1)
    if encoder.config.head.normalize:
        has_features = np.abs(encoder.encode(features)).sum(axis=1) > 0
        np.testing.assert_allclose(lengths[has_features], 1.0, rtol=1e-5)
    else:
        assert lengths.std() > 0.1


def test_no_queries_give_no_embeddings(encoder: QueryEncoder, features: Features) -> None:
    assert encoder.encode(features.rows(0, 0)).shape == (0, WIDTH)


def test_the_head_and_the_sum_are_what_the_docstring_says(
    encoder: QueryEncoder, features: Features
) -> None:
    dense_BF = np.zeros((NUM_QUERIES, NUM_FEATURES), np.float32)
    if isinstance(features, DenseQueries):
        dense_BF = features.features_BF
    else:
        rows = np.repeat(np.arange(NUM_QUERIES), np.diff(features.indptr))
        dense_BF[rows, features.indices] = features.values
    with torch.no_grad():
        expected = encoder.head(torch.from_numpy(dense_BF) @ encoder.table_FD).numpy()
    np.testing.assert_allclose(encoder.encode(features), expected, rtol=1e-4, atol=1e-4)


def test_threads_may_encode_at_once(encoder: QueryEncoder, features: Features) -> None:
    expected = encoder.encode(features)
    with ThreadPoolExecutor(4) as pool:
        for embeddings_BD in pool.map(encoder.encode, [features] * 16):
            np.testing.assert_array_equal(embeddings_BD, expected)


def test_saved_weights_load_to_the_same_bits(
    encoder: QueryEncoder, features: Features, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.safetensors"
    encoder.save(path)
    loaded = load_encoder(path, encoder.config.model_dump(), NUM_FEATURES)
    np.testing.assert_array_equal(loaded.encode(features), encoder.encode(features))


def test_weights_of_another_shape_are_refused_with_their_file(
    encoder: QueryEncoder, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.safetensors"
    encoder.save(path)
    with pytest.raises(BundleError, match=r"encoder\.safetensors"):
        load_encoder(path, encoder.config.model_dump(), NUM_FEATURES + 1)
    head = {"hidden": 7 if encoder.config.head.hidden else 96}
    with pytest.raises(BundleError, match=r"encoder\.safetensors"):
        load_encoder(path, encoder.config.model_dump() | {"head": head}, NUM_FEATURES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"encoder\.safetensors"):
        load_encoder(path, encoder.config.model_dump(), NUM_FEATURES)


def test_arrays_that_cannot_be_written_to_are_encoded_as_well(
    encoder: QueryEncoder, features: Features
) -> None:
    expected = encoder.encode(features)
    arrays = (
        [features.features_BF]
        if isinstance(features, DenseQueries)
        else [features.indptr, features.indices, features.values]
    )
    for array in arrays:
        array.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode(features), expected)
