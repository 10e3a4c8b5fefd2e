"""`motherlode bench` over a real socket, for a moment each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from motherlode.cli import main as main_module
from motherlode.cli.main import main
from motherlode.clients import InvalidArgumentError, query_batch
from motherlode.clients.load import MotherlodeProtocol
from motherlode.clients.question import Question
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_tiny
from tests.support.fake_server import RefusedError, fake_server
from tests.support.retrieval import FakeRetrieval, fail
from tests.support.servers import running_server


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "configure_logging", lambda *_: None)


@pytest.fixture
def fake() -> FakeRetrieval:
    return FakeRetrieval(limits=pb.Limits(max_queries_per_call=100))


@pytest.fixture
def target(fake) -> Iterator[str]:
    with fake_server(fake) as (address, _):
        yield address


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.jsonl"
    path.write_text("".join(f'{{"text": "q{i}"}}\n' for i in range(1, 6)), encoding="utf-8")
    return path


def bench(target: str, queries: Path, *arguments: str) -> int:
    return main(["bench", "--target", target, "--queries", str(queries), *arguments])


def test_an_open_loop_makes_the_calls_that_its_seed_says(target, fake, queries, capsys):
    arguments = ["--rate", "100", "--duration", "300ms", "--seed", "3", "--json", "-k", "2"]
    assert bench(target, queries, *arguments, "--model", "tiny@stable") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "tiny@3"
    assert document["load"]["kind"] == "OpenLoop"
    assert document["statuses"]["OK"]["calls"] == document["num_due"] == document["num_calls"]
    # One more went ahead.
    assert len(fake.requests) == document["num_due"] + 1
    assert document["offered_rate"] == pytest.approx(document["num_due"] / 0.3)
    assert {request.model.alias for request in fake.requests} == {"stable"}
    assert {request.k for request in fake.requests} == {2}
    # Calls take their turns at the queries of the file.
    texts = sorted(request.text.texts[0] for request in fake.requests[1:])
    expected = sorted(f"q{1 + i % 5}" for i in range(document["num_due"]))
    assert texts == expected


def test_a_closed_loop_asks_in_batches_over_several_connections(target, fake, queries, capsys):
    arguments = ["--concurrency", "3", "--duration", "0.2s", "--batch", "2", "--connections", "2"]
    assert bench(target, queries, *arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["load"] == {"kind": "ClosedLoop", "concurrency": 3, "duration_s": 0.2}
    assert document["call"] == {"k": 10, "queries_per_call": 2, "connections": 2}
    assert len(fake.requests) == document["num_calls"] + 2
    # The fifth query is left over: two calls of two are all.
    assert {tuple(r.text.texts) for r in fake.requests} == {("q1", "q2"), ("q3", "q4")}
    assert document["achieved_queries_per_s"] == pytest.approx(2 * document["achieved_rate"])
    latencies = document["statuses"]["OK"]
    order = [latencies[name] for name in ("p50_s", "p90_s", "p99_s", "p999_s", "max_s")]
    assert order == sorted(order)


def test_refusals_are_counted_by_status_with_the_first_message(target, fake, queries, capsys):
    refused = RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
    fake.script = [lambda _: None, *[fail(refused)] * 4]
    assert bench(target, queries, "--rate", "200", "--duration", "0.2s") == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][0] == "tiny@3"
    assert rows[2][0] == "OK"
    # Nothing is tried again: each of the four counts.
    assert rows[3][:2] == ["RESOURCE_EXHAUSTED", "4"]
    assert "RESOURCE_EXHAUSTED: the queue is full" in err


def test_the_plot_is_a_picture(target, queries, tmp_path, capsys):
    path = tmp_path / "latency.png"
    assert bench(target, queries, "--duration", "0.1s", "--plot", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().err


def test_an_interrupt_ends_the_run_with_what_there_is(target, fake, queries, capsys):
    answered = threading.Event()
    fake.script = [lambda _: None, lambda _: answered.set()]

    def interrupt() -> None:
        assert answered.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert bench(target, queries, "--duration", "1h", "--json") == 130
    thread.join()
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["is_interrupted"]
    assert 1 <= document["num_calls"] == document["num_due"]
    assert "interrupted" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "5", "--concurrency", "2"], "--rate: expected either"),
        (["--duration", "0s"], "--duration: expected a time"),
        (["--duration", "10 parsecs"], "--duration: expected a time"),
        (["--duration", "-1s"], "--duration"),
        (["--duration", "25h"], "--duration: expected a time"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--concurrency", "0"], "--concurrency"),
        (["--batch", "6"], "--queries: expected at least the 6 queries of a call"),
        (["--model", "tiny@"], "MODEL@VERSION"),
        (["--plot", "latency.gif"], "--plot: expected a name that ends in .png"),
        (["--plot", "no/such/folder/a.png"], "--plot: expected a file in a folder that exists"),
    ],
)
def test_a_wrong_option_is_found_before_any_call(target, fake, queries, capsys, arguments, message):
    assert bench(target, queries, *arguments) == 2
    assert message in capsys.readouterr().err
    assert fake.requests == []


def test_another_machine_is_loaded_only_if_that_is_said(queries, capsys):
    assert bench("192.0.2.1:8001", queries) == 2
    assert "--allow-remote" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_line(queries, capsys):
    assert bench("127.0.0.1:1", queries, "--duration", "1h") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("motherlode: no server answers at 127.0.0.1:1 (")


def test_what_the_server_refuses_at_once_ends_the_run_before_it_begins(
    target, fake, queries, capsys
):
    fake.script = [fail(RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "k: expected 1 to 3"))]
    assert bench(target, queries, "--duration", "1h") == 1
    assert capsys.readouterr().err == "motherlode: k: expected 1 to 3\n"
    assert len(fake.requests) == 1


def test_fewer_answers_than_queries_are_no_success(fake):
    async def work(address: str) -> str:
        questions = query_batch(["q1", "q2"])
        protocol = MotherlodeProtocol(address, questions, Question(k=1), queries_per_call=2)
        await protocol.connect()
        # The server takes the last text away before it answers.
        fake.script = [lambda retrieval: retrieval.requests[-1].text.texts.pop()]
        answer = await protocol.call(0)
        await protocol.close()
        return f"{answer.status}: {answer.message}"

    with fake_server(fake) as (address, _):
        assert asyncio.run(work(address)) == "WRONG_ANSWER: 1 answers to 2 queries"


def test_a_call_of_more_queries_than_there_are_is_refused():
    with pytest.raises(InvalidArgumentError, match="at least the 3 of a call, got 2"):
        MotherlodeProtocol("x:1", query_batch(["a", "b"]), Question(k=1), queries_per_call=3)


@pytest.mark.asyncio
async def test_a_real_server_counts_the_same_queries(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with running_server(tmp_path) as server:
        questions = query_batch([f"topic{i}" for i in range(20)])
        protocol = MotherlodeProtocol(
            server.address, questions, Question(k=3), queries_per_call=5, connections=2
        )
        assert await protocol.connect() == "tiny@1"
        answers = [await protocol.call(number) for number in range(6)]
        await protocol.close()
        assert {answer.status for answer in answers} == {"OK"}
        assert server.metric("queries_total", model="tiny", version="1") == 5 * (6 + 2)


def test_sparse_and_dense_queries_are_sent_as_they_are(target, fake, tmp_path, capsys):
    sparse = tmp_path / "sparse.jsonl"
    sparse.write_text('{"indices": [7, 9], "values": [1, 2]}\n', encoding="utf-8")
    dense = tmp_path / "dense.jsonl"
    dense.write_text('{"features": [4.0, 0.5]}\n', encoding="utf-8")
    for path in (sparse, dense):
        assert bench(target, path, "--duration", "50ms", "--json") == 0
    capsys.readouterr()
    first, last = fake.requests[0], fake.requests[-1]
    assert np.frombuffer(first.sparse.indices, "<i8").tolist() == [7, 9]
    assert np.frombuffer(last.features.data, "<f4").tolist() == [4.0, 0.5]
