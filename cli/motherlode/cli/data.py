"""`motherlode data`: make data sets to train on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from motherlode.cli.output import print_json, print_line
from motherlode.trainer.data import Size, make_geonames

__all__ = ["app"]

app = App(name="data", help="Make data sets to train on.")


@app.command
def geonames(
    *,
    out: Path,
    size: Size = "cities15000",
    json_output: Annotated[bool, Parameter("--json", negative=())] = False,
) -> None:
    """Make a data set of place names: from any name, in any script, to the places that bear it.

    Writes train.jsonl.gz, test.jsonl.gz, labels.jsonl.gz and ATTRIBUTION.txt.
    The places are from GeoNames (CC BY 4.0).

    Args:
        out: Folder to write to, made if it is not there; its other files stay as they are.
        size: Smallest number of inhabitants of the places.
        json_output: Print one JSON document.
    """
    summary = make_geonames(size, out)
    if json_output:
        print_json({"folder": out, "size": size, **asdict(summary)})
        return
    print_line(
        f"{out}: {summary.num_train:,} training and {summary.num_test:,} test queries, "
        f"{summary.num_labels:,} labels"
    )
