"""`motherlode query`: ask a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from motherlode.cli.access import Access
from motherlode.cli.output import print_json, print_line, print_note, print_table

if TYPE_CHECKING:
    from motherlode.clients import QuestionOptions, TopKResult

__all__ = ["config_error", "model_options", "query"]

_TITLE_CHARACTERS = 100
_DAY_S = 86_400
_NO_ACCESS = Access()


def query(  # noqa: PLR0913 - one argument per option of the command
    *,
    target: str,
    text: Annotated[list[str] | None, Parameter(negative=())] = None,
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    k: Annotated[int, Parameter(name=("--k", "-k"), validator=Number(gte=1))] = 5,
    model: str | None = None,
    timeout_s: Annotated[float, Parameter(validator=Number(gt=0, lte=_DAY_S))] = 10.0,
    json: Annotated[bool, Parameter(negative=())] = False,
    access: Access = _NO_ACCESS,
) -> None:
    """Ask a running server for the best labels of some texts.

    Args:
        target: HOST:PORT of the server.
        text: A query; may be given several times.
        file: Further queries, one a line; `-` is standard input.
        k: Labels per query.
        model: MODEL, MODEL@VERSION or MODEL@ALIAS; MODEL alone means its serving version. If the
            server has one model, it may be left out.
        timeout_s: Seconds to wait for an answer, up to a day.
        json: Print one JSON document.
        access: How to prove who calls.
    """
    # Imported here, so that `--help` needs neither gRPC nor NumPy.
    from motherlode.clients import Client  # noqa: PLC0415

    texts = [*(text or ()), *(() if file is None else _read_lines(file))]
    if not texts:
        field = "--text" if file is None else "--file"
        raise config_error(field, "at least one query in --text or --file", "none")
    with Client(target, timeout_s=timeout_s, tls=access.encryption(), key=access.key()) as client:
        result = client.top_k(texts, k, **model_options(model))
    if json:
        print_json(_document(texts, result))
    else:
        _print_tables(texts, result)
        print_note(_summary(result))


def model_options(reference: str | None) -> QuestionOptions:
    """MODEL, MODEL@VERSION or MODEL@ALIAS as options of a call.

    Raises:
        ConfigError: If it is none of them.
    """
    # `core.repository` reads the same notation, and would bring PyTorch into a client.
    name, at, choice = (reference or "").partition("@")
    if at and not (name and choice):
        raise config_error("--model", "MODEL, MODEL@VERSION or MODEL@ALIAS", reference)
    options: QuestionOptions = {"model": name or None}
    if choice.isdecimal():
        options["version"] = int(choice)
    elif choice:
        options["alias"] = choice
    return options


def config_error(field: str, expected: str, actual: object) -> Exception:
    """A wrong option, without importing `core` before something is wrong."""
    from motherlode.core.errors import ConfigError  # noqa: PLC0415

    return ConfigError(field, expected=expected, actual=actual)


def _read_lines(path: Path) -> Iterator[str]:
    """The lines of a file that hold text; `-` is standard input."""
    if str(path) == "-":
        yield from _decode(path, sys.stdin.buffer)
        return
    with path.open("rb") as file:
        yield from _decode(path, file)


def _decode(path: Path, lines: Iterator[bytes] | Any) -> Iterator[str]:
    from motherlode.core.errors import DataError  # noqa: PLC0415

    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                path, number, "query", expected="UTF-8", actual=error.object[error.start :][:16]
            ) from error
        if text:
            yield text


def _document(texts: Sequence[str], result: TopKResult) -> dict[str, Any]:
    return {
        "model": result.model,
        "version": result.version,
        "bundle_digest": result.bundle_digest,
        "round_trip_s": result.round_trip_s,
        "timings": asdict(result.timings),
        "notices": [asdict(notice) for notice in result.notices],
        "results": [
            {"query": text, "hits": [asdict(hit) for hit in hits]}
            for text, hits in zip(texts, result, strict=True)
        ],
    }


def _print_tables(texts: Sequence[str], result: TopKResult) -> None:
    unknown = {i for n in result.notices if n.kind == "no_known_features" for i in n.queries}
    for i, (text, hits) in enumerate(zip(texts, result, strict=True)):
        if i:
            print_line()
        title = text if len(text) <= _TITLE_CHARACTERS else text[: _TITLE_CHARACTERS - 1] + "…"
        rows = [(rank, hit.text, hit.key, hit.score) for rank, hit in enumerate(hits, start=1)]
        print_table(["rank", "label", "key", "score"], rows, title=title)
        if i in unknown:
            print_note("The model knows no feature of this query.")


def _summary(result: TopKResult) -> str:
    stages = asdict(result.timings)
    times = ", ".join(f"{name.removesuffix('_s')} {_ms(s)}" for name, s in stages.items())
    noun = "query" if len(result) == 1 else "queries"
    return (
        f"{result.model} version {result.version}: {len(result)} {noun}"
        f" in {_ms(result.round_trip_s)} ({times})"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
