"""Both clients and `motherlode query` against the real server in a process of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from motherlode.cli.main import main
from motherlode.clients import (
    Client,
    InvalidArgumentError,
    NotFoundError,
    TopKResult,
    query_batch,
)
from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from tests.support.bundles import WIDTH, publish_tiny
from tests.support.callers import CALLERS, Caller
from tests.support.servers import TIMEOUT_S, ServerProcess, server_process

NUM_LABELS = 50
MAX_QUERIES = 16

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("repository")
    publish_tiny(path, num_labels=NUM_LABELS)
    return path


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory) -> Iterator[ServerProcess]:
    ready_file = tmp_path_factory.mktemp("ready") / "ready.json"
    flags = ["--set", f"max_queries_per_call={MAX_QUERIES}", "--set", "reload_interval_s=0.05"]
    with server_process(repository, ready_file, flags) as process:
        yield process


@pytest.fixture(scope="module")
def retriever(repository) -> Retriever:
    return Retriever.load(Repository(repository), "tiny", 1)


@pytest.fixture(params=CALLERS)
def caller(request, server) -> Caller:
    return CALLERS[request.param](server.address, timeout_s=TIMEOUT_S)


def texts(num_queries: int) -> list[str]:
    return [f"topic{i % NUM_LABELS} filler" for i in range(num_queries)]


def first_keys(result: TopKResult) -> list[str | None]:
    return [hits[0].key for hits in result]


def test_the_planted_label_comes_first_with_its_key_and_text(caller):
    [hits] = caller.top_k(["topic7 filler"], 3, version=1)
    assert len(hits) == 3
    assert (hits[0].label, hits[0].key, hits[0].text) == (7, "label7", "topic7")
    assert hits[0].score == max(hit.score for hit in hits)


def test_a_batch_of_many_times_the_servers_limit_is_answered_as_the_retriever_does(
    caller, retriever
):
    queries = texts(5 * MAX_QUERIES + 3)
    result = caller.top_k(queries, 4, version=1)
    expected = retriever.top_k(TextQueries(queries), 4)
    assert result.labels.tolist() == expected.labels.tolist()
    assert result.scores.tolist() == expected.scores.tolist()
    assert result.counts.tolist() == expected.counts.tolist()
    assert result.bundle_digest == retriever.digest


def test_embeddings_and_sparse_features_are_answered_like_their_texts(caller, retriever):
    queries = texts(6)
    expected = caller.top_k(queries, 3, version=1)
    embeddings_BD = retriever.encode(TextQueries(queries))
    assert embeddings_BD.shape == (6, WIDTH)
    by_embedding = caller.top_k(embeddings=embeddings_BD, k=3, version=1)
    features = retriever.path.featurizer.transform(TextQueries(queries))
    sparse = (features.indptr, features.indices, features.values)
    by_features = caller.top_k(sparse=sparse, k=3, version=1)
    assert by_embedding.labels.tolist() == expected.labels.tolist()
    assert by_features.labels.tolist() == expected.labels.tolist()


def test_labels_are_allowed_and_denied_by_key(caller):
    allowed = caller.top_k(["topic7"], 2, version=1, allow=["label3", "label9"])
    assert sorted(hit.key for hit in allowed[0]) == ["label3", "label9"]
    denied = caller.top_k(["topic7"], 2, version=1, deny=["label7"])
    assert "label7" not in [hit.key for hit in denied[0]]


def test_a_query_of_unknown_words_has_no_hits_and_a_notice(caller):
    queries = [*texts(MAX_QUERIES), "qqqq"]
    result = caller.top_k(queries, 2, version=1)
    assert result[-1] == []
    assert {n.kind: n.queries for n in result.notices}["no_known_features"] == (MAX_QUERIES,)


def test_the_server_says_what_it_serves(caller):
    info = caller.server_info()
    assert info.limits.max_queries_per_call == MAX_QUERIES
    assert [model.name for model in info.models] == ["tiny"]
    assert info.models[0].num_labels == NUM_LABELS
    assert caller.health() == "serving"
    assert caller.health("tiny") == "serving"
    assert caller.health("nix") == "unknown"


@pytest.mark.parametrize(
    ("queries", "k", "field"),
    [
        ({"queries": ["a"]}, NUM_LABELS + 1, "k"),
        ({"embeddings": [[1.0, 2.0]]}, 1, "queries.embeddings"),
        ({"embeddings": [[float("nan")] * WIDTH]}, 1, "queries.embeddings"),
        ({"queries": ["x" * 1_000_000]}, 1, "queries.text.texts[0]"),
    ],
    ids=["k", "width", "nan", "length"],
)
def test_a_wrong_request_names_the_field_and_harms_nobody_else(caller, queries, k, field):
    with pytest.raises(InvalidArgumentError) as caught:
        caller.top_k(k=k, version=1, **queries)
    assert caught.value.violations[0].field.startswith(field)
    assert first_keys(caller.top_k(["topic1"], 1, version=1)) == ["label1"]


@pytest.mark.parametrize("choice", [{"model": "nix"}, {"version": 99}, {"alias": "nix"}])
def test_a_model_version_or_alias_that_is_not_there_is_not_found(caller, choice):
    with pytest.raises(NotFoundError):
        caller.top_k(["topic1"], 1, **choice)


def test_a_stream_is_answered_in_order(caller):
    batches = [texts(i % 5 + 1) for i in range(40)]
    batches[20] = texts(3 * MAX_QUERIES)
    results = caller.top_k_stream(batches, 1, version=1)
    expected = [[f"label{i % NUM_LABELS}" for i in range(len(batch))] for batch in batches]
    assert [first_keys(result) for result in results] == expected


def test_a_stream_takes_prepared_batches(caller, retriever):
    embeddings_BD = retriever.encode(TextQueries(texts(3)))
    [result] = caller.top_k_stream([query_batch(embeddings=embeddings_BD)], 1, version=1)
    assert first_keys(result) == ["label0", "label1", "label2"]


def test_the_command_prints_the_planted_label(server, capsys):
    arguments = ["--target", server.address, "--text", "topic7 filler", "-k", "2", "--json"]
    assert main(["query", *arguments, "--model", "tiny@1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["results"][0]["hits"][0]["key"] == "label7"
    assert document["version"] == 1


def test_no_call_fails_or_mixes_versions_while_versions_are_swapped(tmp_path):
    repository = tmp_path / "repository"
    publish_tiny(repository, num_labels=NUM_LABELS)
    flags = ["--set", f"max_queries_per_call={MAX_QUERIES}", "--set", "reload_interval_s=0.05"]
    digests: dict[int, set[str]] = {}
    last_version = 5
    done = threading.Event()

    def ask(client: Client) -> int:
        num_calls = 0
        while not done.is_set():
            result = client.top_k(texts(3 * MAX_QUERIES), 1)
            assert first_keys(result) == [f"label{i % NUM_LABELS}" for i in range(len(result))]
            digests.setdefault(result.version, set()).add(result.bundle_digest)
            num_calls += 1
            if result.version == last_version:
                done.set()
        return num_calls

    with (
        server_process(repository, tmp_path / "ready.json", flags) as server,
        Client(server.address, timeout_s=TIMEOUT_S) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        askers = [pool.submit(ask, client) for _ in range(2)]
        for seed in range(1, last_version):
            publish_tiny(repository, num_labels=NUM_LABELS, seed=seed)
        try:
            assert done.wait(TIMEOUT_S)
        finally:
            done.set()
        assert all(asker.result() > 0 for asker in askers)
    assert all(len(of_version) == 1 for of_version in digests.values())
