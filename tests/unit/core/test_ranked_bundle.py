"""Bundles with a ranker: what is written, what is refused, and how they answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motherlode.core.bundle import BundleDraft, read_bundle, write_bundle
from motherlode.core.errors import BundleError, InvalidQueryError
from motherlode.core.features import DenseFeaturesConfig, DenseFeaturizer
from motherlode.core.golden import Golden
from motherlode.core.index import LabelFilter
from motherlode.core.manifest import Manifest, read_manifest
from motherlode.core.queries import DenseQueries, EmbeddingQueries, TextQueries
from motherlode.core.query_path import QueryPath, StageTimes
from motherlode.core.rankers import TreeCorrection, TreeCorrectionConfig
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from tests.support.bundles import SHORTLIST, forge_manifest, tiny_draft
from tests.support.rankers import random_correction, random_ranker

NUM_LABELS = 50
RANKER_FILES = {
    "ranker/config.json",
    "ranker/label_tree.safetensors",
    "ranker/whitening.safetensors",
}
QUERIES = TextQueries(["topic7 filler", "unheard-of", "topic3 more", "topic9 topic8 other"])


@pytest.fixture(scope="module")
def draft() -> BundleDraft:
    return tiny_draft(ranker_kind="tree_correction")


@pytest.fixture
def folder(tmp_path: Path, draft: BundleDraft) -> Path:
    write_bundle(draft, tmp_path / "bundle")
    return tmp_path / "bundle"


def opened(folder: Path) -> Retriever:
    return Retriever(read_bundle(folder), model="tiny", version=1)


@pytest.fixture
def retriever(folder: Path) -> Retriever:
    return opened(folder)


def change(folder: Path, edit: Callable[[Manifest], dict[str, Any]]) -> None:
    """Changes fields of a manifest, and its digest to match."""
    manifest = read_manifest(folder)
    manifest.model_copy(update=edit(manifest)).save(folder)
    forge_manifest(folder)


def hits(top: TopK) -> list[tuple[list[int], bytes]]:
    return [(top.row(i)[0].tolist(), top.row(i)[1].tobytes()) for i in range(len(top))]


def test_the_manifest_names_the_ranker_and_what_its_scores_mean(folder: Path) -> None:
    manifest = read_manifest(folder)
    stage = manifest.stages[-1]
    assert (stage.name, stage.kind) == ("ranker", "tree_correction")
    assert stage.config == {"kind": "tree_correction", "scale": 20.0, "shortlist": SHORTLIST}
    assert manifest.score_meaning == stage.score_meaning == TreeCorrection.score_meaning
    assert manifest.stage("index").score_meaning == "cosine of query and label"
    assert set(manifest.files) > RANKER_FILES
    assert manifest.format_version == 2


def test_a_bundle_without_ranker_is_still_one_that_version_1_reads(tmp_path: Path) -> None:
    manifest = write_bundle(tiny_draft(), tmp_path / "plain")
    assert manifest.format_version == 1
    assert json.loads((tmp_path / "plain/manifest.json").read_text())["format_version"] == 1
    assert not (tmp_path / "plain/ranker").exists()
    assert read_bundle(tmp_path / "plain").ranker is None


def test_the_ranker_has_a_part_in_the_digest_and_the_memory(
    tmp_path: Path, draft: BundleDraft, folder: Path
) -> None:
    assert draft.ranker is not None
    manifest = read_manifest(folder)
    plain = write_bundle(replace(draft, ranker=None), tmp_path / "plain")
    config = TreeCorrectionConfig(scale=20.0, shortlist=SHORTLIST + 1)
    ranker = TreeCorrection(config, draft.ranker.whitening, draft.ranker.tree)
    longer = write_bundle(replace(draft, ranker=ranker), tmp_path / "longer")
    assert len({manifest.digest, plain.digest, longer.digest}) == 3
    assert manifest.memory.ram_bytes - plain.memory.ram_bytes == draft.ranker.predicted_bytes
    # 63 nodes of three weights and a bias, 64 leaves, 50 labels, 53 features and a mean.
    assert draft.ranker.predicted_bytes == 63 * 16 + 64 * 8 + 50 * 8 + 53 * 12 + 12
    assert manifest.memory.gpu_bytes == plain.memory.gpu_bytes


@pytest.mark.parametrize("k", [1, 5, SHORTLIST, SHORTLIST + 7, NUM_LABELS])
def test_hits_are_those_of_the_index_ranked_anew(
    draft: BundleDraft, retriever: Retriever, k: int
) -> None:
    path = QueryPath(draft.featurizer, draft.encoder, draft.index)
    shortlist = path.top_k(QUERIES, max(k, SHORTLIST))
    features = draft.featurizer.transform(QUERIES)
    assert draft.ranker is not None
    expected = draft.ranker.rank(shortlist, features, draft.encoder.encode(features), k)
    top = retriever.top_k(QUERIES, k)
    assert hits(top) == hits(expected)
    assert top.counts.tolist() == [k, 0, k, k]


def test_the_ranker_changes_the_order(draft: BundleDraft, retriever: Retriever) -> None:
    plain = QueryPath(draft.featurizer, draft.encoder, draft.index).top_k(QUERIES, 10)
    assert retriever.top_k(QUERIES, 10).labels.tolist() != plain.labels.tolist()


def test_a_smaller_k_begins_the_answer_of_a_greater_one_within_the_shortlist(
    retriever: Retriever,
) -> None:
    few, many = retriever.top_k(QUERIES, 3), retriever.top_k(QUERIES, SHORTLIST)
    for row in (0, 2, 3):
        assert few.row(row)[0].tolist() == many.row(row)[0][:3].tolist()


@pytest.mark.parametrize("k", [1, 10, 30])
def test_an_answer_has_the_same_bits_alone_and_in_any_batch(retriever: Retriever, k: int) -> None:
    texts = [f"topic{i} topic{i // 2} filler" for i in range(40)] + ["unheard-of", ""]
    together = hits(retriever.top_k(TextQueries(texts), k))
    alone = [hits(retriever.top_k(TextQueries([text]), k))[0] for text in texts]
    assert alone == together


def test_a_filter_is_applied_before_the_ranking(retriever: Retriever) -> None:
    denied = retriever.top_k(QUERIES, 5, filter=LabelFilter(np.array([3, 7]), "deny"))
    assert denied.counts.tolist() == [5, 0, 5, 5]
    assert not set(denied.labels.tolist()) & {3, 7}
    allowed = retriever.top_k(QUERIES, 5, filter=LabelFilter(np.array([3, 7]), "allow"))
    assert allowed.counts.tolist() == [2, 0, 2, 2]
    whole = retriever.top_k(QUERIES, NUM_LABELS)
    for row in (0, 2, 3):
        scores = dict(zip(*(part.tolist() for part in whole.row(row)), strict=True))
        labels, corrected = (part.tolist() for part in allowed.row(row))
        assert [scores[label] for label in labels] == corrected
        assert corrected == sorted(corrected, reverse=True)


def test_ranking_is_timed(retriever: Retriever) -> None:
    times = StageTimes()
    retriever.top_k(QUERIES, 2, times=times)
    assert times.rank_s > 0
    assert times.search_s > 0


def test_embeddings_are_refused_for_they_have_no_features(retriever: Retriever) -> None:
    assert retriever.query_kinds == ("text", "sparse")
    queries = EmbeddingQueries(np.ones((1, 16), np.float32))
    message = "queries: expected the queries themselves, whose features the tree_correction needs"
    for ask in (retriever.validate, retriever.top_k, retriever.path.take_golden):
        with pytest.raises(InvalidQueryError, match=f"{message}, got 'embeddings'"):
            ask(queries, 1)
    with pytest.raises(InvalidQueryError, match="expected one of text, sparse, got 'features'"):
        retriever.validate(DenseQueries(np.ones((1, 53), np.float32)), 1)


def test_features_too_large_for_a_finite_score_are_refused() -> None:
    ranker = random_correction(4, 20, SHORTLIST)
    shortlist = TopK(np.arange(20), np.ones(20, np.float32), np.array([20]))
    good, embeddings = np.ones((1, 4), np.float32), np.ones((1, 2), np.float32)
    assert np.isfinite(ranker.rank(shortlist, DenseQueries(good), embeddings, 20).scores).all()
    for size in (3e38, -3e38):
        queries = DenseQueries(np.full((1, 4), size, np.float32))
        with pytest.raises(InvalidQueryError, match=r"queries\.features: expected values small"):
            ranker.rank(shortlist, queries, embeddings, 1)


def test_neighbours_of_another_width_are_refused(tmp_path: Path) -> None:
    draft = tiny_draft(ranker_kind="sparse_linear")
    ranker = random_ranker("sparse_linear", draft.featurizer.num_features, NUM_LABELS, width=17)
    with pytest.raises(BundleError, match="ranker: width is 17, expected 16"):
        write_bundle(replace(draft, ranker=ranker), tmp_path / "bundle")


def test_golden_answers_are_those_of_the_ranker(draft: BundleDraft, folder: Path) -> None:
    opened(folder).check_golden()
    other = replace(
        read_bundle(folder), ranker=random_correction(53, NUM_LABELS, SHORTLIST, seed=1)
    )
    with pytest.raises(BundleError, match=r"ranker: does not give the hits in golden\.arrow"):
        Retriever(other, model="tiny", version=1).check_golden()
    plain = QueryPath(draft.featurizer, draft.encoder, draft.index)
    taken = plain.take_golden(draft.golden.queries, draft.golden.k)
    assert draft.golden.hit_difference(taken.top) is not None


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            random_correction(53, NUM_LABELS - 1, SHORTLIST),
            "ranker: number of labels is 49, expected 50",
        ),
        (
            random_correction(52, NUM_LABELS, SHORTLIST),
            "ranker: number of features is 52, expected 53",
        ),
    ],
)
def test_a_ranker_over_other_labels_or_features_is_neither_written_nor_read(
    tmp_path: Path, draft: BundleDraft, folder: Path, other: TreeCorrection, reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        write_bundle(replace(draft, ranker=other), tmp_path / "new")
    other.save(folder / "ranker")
    forge_manifest(folder)
    with pytest.raises(BundleError, match=reason):
        read_bundle(folder)


def test_golden_queries_without_features_are_not_written(
    tmp_path: Path, draft: BundleDraft
) -> None:
    queries = EmbeddingQueries(draft.golden.embeddings_BD)
    golden = Golden(queries, draft.golden.embeddings_BD, draft.golden.top, draft.golden.k)
    with pytest.raises(BundleError, match=r"golden\.arrow: what the ranker gets .* embeddings"):
        write_bundle(replace(draft, golden=golden), tmp_path / "new")


def test_a_configuration_other_than_the_stages_is_refused(folder: Path) -> None:
    path = folder / "ranker/config.json"
    document = json.loads(path.read_text())
    document["config"]["scale"] = 21.0
    path.write_text(json.dumps(document))
    forge_manifest(folder)
    with pytest.raises(BundleError, match=r"ranker: configuration is .*21\.0.* expected .*20\.0"):
        read_bundle(folder)


def test_a_folder_without_stage_is_refused(folder: Path) -> None:
    change(folder, lambda manifest: {"stages": manifest.stages[:-1]})
    with pytest.raises(BundleError, match="ranker: the manifest has no stage ranker"):
        read_bundle(folder)


def test_a_stage_without_folder_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "ranker")
    change(
        folder,
        lambda manifest: {
            "files": {n: entry for n, entry in manifest.files.items() if n not in RANKER_FILES}
        },
    )
    with pytest.raises(BundleError, match=r"files: there is a stage ranker and no file in ranker/"):
        read_bundle(folder)


def test_a_ranker_of_an_unknown_kind_is_refused(folder: Path) -> None:
    def edit(manifest: Manifest) -> dict[str, Any]:
        stage = manifest.stages[-1].model_copy(update={"kind": "psychic"})
        return {"stages": (*manifest.stages[:-1], stage)}

    change(folder, edit)
    with pytest.raises(BundleError, match=r"stages\.ranker\.kind: .*tree_correction, got psychic"):
        read_bundle(folder)


def test_a_ranker_in_a_bundle_of_version_1_is_refused(folder: Path) -> None:
    change(folder, lambda _: {"format_version": 1})
    with pytest.raises(BundleError, match=r"format_version: expected 2 with a stage ranker, got 1"):
        read_bundle(folder)


@pytest.mark.parametrize("name", sorted(RANKER_FILES))
def test_garbage_or_nothing_in_a_file_of_the_ranker_is_refused_by_name(
    folder: Path, name: str
) -> None:
    (folder / name).write_bytes(b"\x07garbage\x00\xff" * 20)
    with pytest.raises(BundleError, match=f"{name}: \\d+ bytes"):
        read_bundle(folder)
    forge_manifest(folder)
    with pytest.raises(BundleError, match=name):
        read_bundle(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: cannot be read"):
        read_bundle(folder)


def test_a_dense_model_with_a_ranker_takes_dense_features_alone(folder: Path) -> None:
    bundle = replace(read_bundle(folder), featurizer=DenseFeaturizer(DenseFeaturesConfig(), 53))
    retriever = Retriever(bundle, model="tiny", version=1)
    assert retriever.query_kinds == ("features",)
