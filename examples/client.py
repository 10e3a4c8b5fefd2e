"""Ask a running server in all the ways that the clients offer.

Start one first: motherlode serve --repository models

Usage: python examples/client.py [--target localhost:8001] [--model NAME] [QUERY ...]
"""

from __future__ import annotations

import argparse
import asyncio

from motherlode.clients import AsyncClient, Client, ClientError, TopKResult


def main() -> None:
    """Ask the same queries with both clients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("queries", nargs="*", default=["Lisbonne", "東京"], metavar="QUERY")
    parser.add_argument("--target", default="localhost:8001")
    parser.add_argument("--model", default=None)
    options = parser.parse_args()
    try:
        ask(options.target, options.queries, options.model)
        asyncio.run(ask_at_once(options.target, options.queries, options.model))
    except ClientError as error:
        parser.exit(1, f"{type(error).__name__}: {error}\n")


def ask(target: str, queries: list[str], model: str | None) -> None:
    """One call, the same without the best label of all, and a stream of batches."""
    with Client(target, timeout_s=5) as client:
        for info in client.server_info().models:
            print(f"{info.name}@{info.version}: {info.num_labels:,} labels, {info.score_meaning}")
        result = client.top_k(queries, k=3, model=model)
        show(queries, result)
        best = next((hit for hits in result for hit in hits), None)
        if best is not None and best.key is not None:
            print(f"without {best.text}:")
            show(queries, client.top_k(queries, k=3, model=model, deny=[best.key]))
        batches = ([query] for query in queries)
        counts = [len(part) for part in client.top_k_stream(batches, k=3, model=model)]
        print(f"as a stream: {len(counts)} answers to {sum(counts)} queries")


async def ask_at_once(target: str, queries: list[str], model: str | None) -> None:
    """Each query in a call of its own, all under way at the same time."""
    async with AsyncClient(target, timeout_s=5) as client:
        calls = [client.top_k([query], k=1, model=model) for query in queries]
        versions = {result.version for result in await asyncio.gather(*calls)}
    print(f"asyncio: {len(queries)} calls at once, answered by version {versions}")


def show(queries: list[str], result: TopKResult) -> None:
    """A line for each query."""
    for query, hits in zip(queries, result, strict=True):
        found = ", ".join(f"{hit.text or hit.key} {hit.score:.2f}" for hit in hits)
        print(f"  {query}: {found or 'nothing'}")


if __name__ == "__main__":
    main()
