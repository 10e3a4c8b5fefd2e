"""New labels from their texts alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.bundle import read_bundle
from motherlode.core.errors import DataError, InvalidInputError
from motherlode.core.manifest import ENCODER_FILE
from motherlode.core.queries import TextQueries
from motherlode.core.rankers import SparseLinear
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.trainer.label_addition import add_labels
from tests.support.bundles import publish_tiny


@pytest.fixture(params=["exact", "hnsw", "ivf_flat", "ivf", "scan"])
def repository(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    publish_tiny(tmp_path / "repository", index_kind=request.param)
    return Repository(tmp_path / "repository")


def labels_file(folder: Path, *records: dict[str, object]) -> Path:
    path = folder / "new.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def test_a_new_label_is_found_by_its_text_at_once(tmp_path: Path, repository: Repository) -> None:
    file = labels_file(
        tmp_path, {"id": "a", "text": "topic3 topic4"}, {"id": "b", "text": "topic5 topic9"}
    )
    assert add_labels(repository, "tiny", None, file) == (2, 2)

    retriever = Retriever.load(repository, "tiny")
    top = retriever.top_k(TextQueries(["topic4 topic3", "topic9 topic5"]), 1)

    assert retriever.labels.keys_of(top.labels) == ["a", "b"]
    assert retriever.labels.texts_of(top.labels) == ["topic3 topic4", "topic5 topic9"]
    np.testing.assert_allclose(top.scores, 1.0, rtol=1e-5)


def test_classifiers_go_on_ranking_the_old_labels_and_the_new_ones_go_by_their_scores(
    tmp_path: Path,
) -> None:
    publish_tiny(tmp_path / "classified", ranker_kind="sparse_linear")
    repository = Repository(tmp_path / "classified")
    file = labels_file(tmp_path, {"id": "a", "text": "topic3 topic4"})
    before = Retriever.load(repository, "tiny")
    add_labels(repository, "tiny", None, file)
    after = Retriever.load(repository, "tiny")
    assert isinstance(after.path.ranker, SparseLinear)
    assert after.path.ranker.weights.biases_L[-1] == 0.0
    assert np.diff(after.path.ranker.texts.offsets_L)[-1] == 2

    query = TextQueries(["topic7 filler", "topic4 topic3"])
    old, new = before.top_k(query, 3), after.top_k(query, 3)
    assert new.row(0)[0].tolist() == old.row(0)[0].tolist()
    assert new.row(0)[1].tolist() == old.row(0)[1].tolist()
    assert after.labels.keys_of(new.row(1)[0])[0] == "a"


def test_the_encoder_and_the_scores_of_the_old_labels_stay(
    tmp_path: Path, repository: Repository
) -> None:
    before = Retriever.load(repository, "tiny")
    add_labels(repository, "tiny", 1, labels_file(tmp_path, {"id": "a", "text": "topic3"}))
    after = Retriever.load(repository, "tiny")

    assert after.manifest.files[ENCODER_FILE] == before.manifest.files[ENCODER_FILE]
    assert after.manifest.parents == {"labels_added_to": before.digest}
    query = TextQueries(["topic7 filler"])
    old, new = before.top_k(query, 50), after.top_k(query, 51)
    scores = dict(zip(new.labels.tolist(), new.scores.tolist(), strict=True))
    assert [scores[label] for label in old.labels.tolist()] == old.scores.tolist()


def test_a_new_label_is_as_long_as_the_others(tmp_path: Path) -> None:
    publish_tiny(tmp_path / "repository")
    repository = Repository(tmp_path / "repository")
    version, _ = add_labels(
        repository, "tiny", None, labels_file(tmp_path, {"id": "a", "text": "topic3"})
    )
    lengths_L = np.linalg.norm(
        read_bundle(repository.path_of("tiny", version)).labels_LD.astype(np.float64), axis=1
    )
    assert lengths_L[-1] == pytest.approx(lengths_L[:-1].mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"id": "a"}], "text: expected a text for each label, got None"),
        ([{"id": "label3", "text": "topic3"}], "id: expected labels that .* got 'label3'"),
        (
            [{"id": "a", "text": "topic3"}, {"id": "b", "text": "nobody knows"}],
            "text: expected a text with features that the model knows, got 'label b'",
        ),
    ],
)
def test_what_cannot_be_added_is_refused_and_nothing_published(
    tmp_path: Path, records: list[dict[str, object]], message: str
) -> None:
    publish_tiny(tmp_path / "repository")
    repository = Repository(tmp_path / "repository")
    with pytest.raises(InvalidInputError, match=message):
        add_labels(repository, "tiny", None, labels_file(tmp_path, *records))
    assert repository.versions("tiny") == [1]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    publish_tiny(tmp_path / "repository")
    file = labels_file(tmp_path, {"id": "a", "text": "topic3"})
    file.write_text(file.read_text("utf-8") + "\n{", encoding="utf-8")
    with pytest.raises(DataError, match=r"new\.jsonl:2"):
        add_labels(Repository(tmp_path / "repository"), "tiny", None, file)
