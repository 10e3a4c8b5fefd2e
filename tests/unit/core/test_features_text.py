"""Texts to tf-idf features."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from motherlode.core.errors import BundleError, InvalidInputError, InvalidQueryError
from motherlode.core.features import (
    TextFeaturesConfig,
    TextFeaturizer,
    load_featurizer,
    map_vocabulary,
)
from motherlode.core.queries import DenseQueries, SparseQueries, TextQueries

CHARACTERS = TextFeaturesConfig(words=None, characters=(2, 4), min_count=1)


def fit(*texts: str, **settings: object) -> TextFeaturizer:
    return TextFeaturizer.fit(
        texts, TextFeaturesConfig.model_validate({"min_count": 1, **settings})
    )


def row(featurizer: TextFeaturizer, text: str) -> dict[str, float]:
    features = featurizer.transform(TextQueries([text]))
    values = features.values.tolist()
    return {
        featurizer.vocabulary[i]: v for i, v in zip(features.indices.tolist(), values, strict=True)
    }


def ngrams(text: str, **settings: object) -> set[str]:
    return set(fit(text, **settings).vocabulary)


def test_the_weights_are_those_worked_out_by_hand() -> None:
    featurizer = fit("red red fish", "red bird", "blue")

    # Three texts; red stands in two of them, fish in one.
    red = (1 + math.log(2)) * (math.log(4 / 3) + 1)
    fish = math.log(4 / 2) + 1
    length = math.hypot(red, fish)
    expected = {"red": red / length, "fish": fish / length}
    assert row(featurizer, "red fish, red!") == pytest.approx(expected, rel=1e-6)


def test_without_sublinear_a_feature_counts_as_often_as_it_stands() -> None:
    featurizer = fit("red red red fish", sublinear=False)

    weights = row(featurizer, "red red red fish")

    assert weights["red"] == pytest.approx(3 * weights["fish"])


def test_features_stand_in_order_of_their_texts_and_then_of_the_alphabet() -> None:
    featurizer = fit("b c", "b a", "c d", "b")

    assert featurizer.vocabulary == ["b", "c", "a", "d"]
    assert featurizer.idf.dtype == np.float32
    np.testing.assert_allclose(featurizer.idf[0], math.log(5 / 4) + 1, rtol=1e-6)


def test_a_feature_in_too_few_texts_is_dropped_however_often_it_stands_there() -> None:
    assert fit("rare rare rare often", "often", min_count=2).vocabulary == ["often"]


def test_of_too_many_features_those_in_the_most_texts_stay() -> None:
    assert fit("b c", "b a", "c d", "b", max_features=3).vocabulary == ["b", "c", "a"]


def test_word_runs_are_joined_by_a_space() -> None:
    assert ngrams("New York city", words=(2, 3)) == {"new york", "york city", "new york city"}


def test_character_ngrams_stay_inside_words_padded_with_spaces() -> None:
    found = ngrams("ab  c", words=None, characters=(2, 3))

    assert found == {"# a", "#ab", "#b ", "# ab", "#ab ", "# c", "#c ", "# c "}


def test_a_word_shorter_than_every_ngram_is_one_feature() -> None:
    found = ngrams("ab cdef", words=None, characters=(5, 6))

    assert found == {"# ab ", "# cdef", "#cdef ", "# cdef "}


def test_a_word_and_the_same_characters_inside_a_word_are_two_features() -> None:
    featurizer = fit("cat", words=(1, 1), characters=(3, 3))

    assert set(featurizer.vocabulary) == {"cat", "#cat", "# ca", "#at "}
    assert set(row(featurizer, "concat")) == {"#cat", "#at "}


def test_a_hash_sign_in_a_text_is_no_mark() -> None:
    featurizer = fit("#a", words=None, characters=(2, 2))

    assert set(featurizer.vocabulary) == {"# #", "##a", "#a "}
    assert set(row(featurizer, "#a")) == set(featurizer.vocabulary)


def test_scripts_without_spaces_are_found_by_characters() -> None:
    featurizer = fit("東京都", "กรุงเทพมหานคร", words=None, characters=(2, 2))

    assert {"#東京", "#京都"} <= set(row(featurizer, "東京都"))
    assert "#กร" in row(featurizer, "กรุงเทพ")


def test_words_keep_their_combining_marks() -> None:
    assert ngrams("हिन्दी กรุงเทพ") == {"हिन्दी", "กรุงเทพ"}


def test_a_text_of_only_unknown_ngrams_has_an_empty_row_among_full_ones() -> None:
    featurizer = fit("red fish")

    features = featurizer.transform(TextQueries(["red", "", "?!", "other", "fish"]))

    assert features.indptr.tolist() == [0, 1, 1, 1, 1, 2]
    assert features.values.tolist() == [1.0, 1.0]


def test_known_ngrams_are_found_in_texts_that_were_not_fitted() -> None:
    featurizer = TextFeaturizer.fit(["Lisboa", "Lisbon"], CHARACTERS)

    found = set(row(featurizer, "LISBONNE"))

    assert {"#lisb", "#sbon", "#bon"} <= found
    assert not any(feature.endswith("e ") for feature in found)


def test_what_stands_behind_max_characters_is_ignored() -> None:
    featurizer = fit("one two three", max_characters=20_000)
    short = TextFeaturizer(
        TextFeaturesConfig(min_count=1, max_characters=7), featurizer.vocabulary, featurizer.idf
    )

    assert set(row(short, "one two three")) == {"one", "two"}


@pytest.mark.parametrize("text", ["x" * 1_000_000, "x " * 500_000, "\u0300\u0316" * 500_000])
def test_a_text_of_a_megabyte_has_the_features_of_its_beginning(text: str) -> None:
    featurizer = TextFeaturizer.fit([text, "a"], CHARACTERS)

    assert row(featurizer, text) == row(featurizer, text[:20_000])


def test_texts_of_many_characters_in_one_batch_have_the_features_they_have_alone() -> None:
    words = [f"w{i % 97} v{i % 31}" for i in range(400)]
    texts = [" ".join(words[i : i + 150]) for i in range(150)]
    featurizer = fit(*texts, words=(1, 2), characters=(2, 3))

    together = featurizer.transform(TextQueries(texts))

    for i, text in enumerate(texts):
        alone = featurizer.transform(TextQueries([text]))
        part = together.rows(i, i + 1)
        assert part.indices.tolist() == alone.indices.tolist()
        assert part.values.tobytes() == alone.values.tobytes()


def test_counting_in_many_parts_gives_the_same_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"place{i % 40} of stone{i % 7}" for i in range(200)]
    settings = {"words": (1, 2), "characters": (2, 4)}
    whole = fit(*texts, **settings)

    monkeypatch.setattr("motherlode.core.features.text._FIT_CHUNK_CHARACTERS", 100)
    monkeypatch.setattr("motherlode.core.features.characters._COMPACT_AT", 64)
    parts = fit(*texts, **settings)

    assert parts.vocabulary == whole.vocabulary
    assert parts.idf.tobytes() == whole.idf.tobytes()


def test_texts_may_come_from_a_generator() -> None:
    featurizer = TextFeaturizer.fit((t for t in ("a b", "a")), TextFeaturesConfig())

    assert featurizer.vocabulary == ["a"]


@pytest.mark.parametrize("texts", [[], ["", "?!"], ["only", "once"]])
def test_texts_without_a_common_ngram_cannot_be_fitted(texts: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="2 texts or more"):
        TextFeaturizer.fit(texts, TextFeaturesConfig())


def test_sparse_queries_pass_as_they_are() -> None:
    queries = SparseQueries(
        np.array([0, 1]), np.array([0]), np.array([0.5], np.float32), num_features=2
    )

    assert fit("a b").transform(queries) is queries


def test_sparse_queries_of_another_width_are_refused() -> None:
    queries = SparseQueries(np.array([0]), np.empty(0, np.int64), np.empty(0, np.float32), 3)

    with pytest.raises(InvalidQueryError, match=r"num_features: expected 2 features, got 3"):
        fit("a b").transform(queries)


@given(text=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_short_text_has_the_features_that_it_has_beside_a_long_one(text: str) -> None:
    featurizer = fit("#tag a b ab aé 東京 ß", text, words=(1, 2), characters=(2, 4))

    alone = featurizer.transform(TextQueries([text]))
    beside = featurizer.transform(TextQueries([text, "long " * 100])).rows(0, 1)

    assert alone.indices.tolist() == beside.indices.tolist()
    assert alone.values.tobytes() == beside.values.tobytes()


def test_words_beyond_those_that_are_remembered_are_found_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("motherlode.core.features.words._MOST_MET", 2)
    featurizer = fit("a b c d e", words=(1, 2))
    for text in ("a b x", "c d", "e a b", "c d", "x y"):
        alone = featurizer.transform(TextQueries([text]))
        beside = featurizer.transform(TextQueries([text, "long " * 100])).rows(0, 1)
        assert alone.indices.tolist() == beside.indices.tolist()
        assert len(alone.indices) == {"a b x": 3, "c d": 3, "e a b": 4, "x y": 0}[text]


def test_dense_queries_are_refused() -> None:
    with pytest.raises(InvalidQueryError, match="queries: expected texts"):
        fit("a b").transform(DenseQueries(np.zeros((1, 2), np.float32)))


@pytest.mark.parametrize(
    "text",
    [
        "nul\0nul",
        "lone \ud800 surrogate \udfff",
        "a\u0301\u0316 marks \u0e34 alone",
        "zero\u200bwidth\u200d \ufeff",
        "กรุงเทพมหานคร 東京都 हिन्दी",
        "emoji \U0001f468\u200d\U0001f469 # #tag",
        "\U0010ffff \ufffe",
        "line\nfeed\ttab\x1cgroup\x85next",
    ],
    ids=["nul", "surrogate", "marks", "zero-width", "no-spaces", "emoji", "nonchars", "white"],
)
def test_a_vocabulary_of_odd_characters_comes_back_from_disk(tmp_path: Path, text: str) -> None:
    saved = fit(text, words=(1, 2), characters=(1, 4))
    saved.save(tmp_path)

    loaded = load_featurizer(tmp_path)

    assert isinstance(loaded, TextFeaturizer)
    assert list(loaded.vocabulary) == list(saved.vocabulary)
    assert row(loaded, text) == row(saved, text)
    assert len(row(loaded, text)) == saved.num_features


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    fit("a b").save(tmp_path)
    (tmp_path / "vocabulary.arrow").unlink()

    with pytest.raises(BundleError, match=r"vocabulary\.arrow: cannot be read"):
        load_featurizer(tmp_path)


def test_half_a_vocabulary_is_refused(tmp_path: Path) -> None:
    fit("a b").save(tmp_path)
    path = tmp_path / "vocabulary.arrow"
    path.write_bytes(path.read_bytes()[:200])

    with pytest.raises(BundleError, match=r"vocabulary\.arrow: cannot be read"):
        load_featurizer(tmp_path)


def test_a_vocabulary_of_another_featurizer_is_refused(tmp_path: Path) -> None:
    fit("a b").save(tmp_path / "one")
    fit("a b c").save(tmp_path / "two")
    (tmp_path / "two" / "vocabulary.arrow").replace(tmp_path / "one" / "vocabulary.arrow")

    with pytest.raises(BundleError, match="expected 2 features, got 3"):
        load_featurizer(tmp_path / "one")


def test_an_arrow_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    fit("a b").save(tmp_path)
    table = pa.table({"feature": ["a", "b"], "idf": pa.array([1.0, 1.0], pa.float64())})
    with pa.ipc.new_file(str(tmp_path / "vocabulary.arrow"), table.schema) as writer:
        writer.write_table(table)

    with pytest.raises(BundleError, match="idf: double"):
        load_featurizer(tmp_path)


def test_a_vocabulary_with_a_gap_is_refused(tmp_path: Path) -> None:
    featurizer = fit("a b")
    broken = TextFeaturizer(
        featurizer.config, featurizer.vocabulary, np.array([1, np.nan], np.float32)
    )
    broken.save(tmp_path)

    with pytest.raises(BundleError, match="a finite idf"):
        load_featurizer(tmp_path)


def test_the_map_of_two_vocabularies_gives_old_ids_and_minus_one_for_new_features() -> None:
    old = fit("a b", "a")
    new = fit("c b", "c a b")

    mapped = map_vocabulary(old, new)

    assert mapped.dtype == np.int64
    expected = {"a": old.vocabulary.index("a"), "b": old.vocabulary.index("b"), "c": -1}
    assert mapped.tolist() == [expected[feature] for feature in new.vocabulary]


@pytest.mark.parametrize(
    "settings",
    [
        {"words": None, "characters": None},
        {"words": (2, 1)},
        {"characters": (0, 2)},
        {"characters": (2, 17)},
        {"min_count": 0},
        {"max_features": 0},
        {"max_characters": 0},
        {"word": (1, 2)},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TextFeaturesConfig.model_validate(settings)
