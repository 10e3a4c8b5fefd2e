from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.core.errors import ConfigError
from motherlode.scoring import ScoringRequest
from motherlode.scoring.records import InputRecord, PartRecord, SuccessRecord
from tests.support.scoring import run_record


@pytest.mark.parametrize(
    "changed",
    [
        {"k": 4},
        {"model": "other"},
        {"version": 2},
        {"bundle_digest": "d2"},
        {"rows_per_part": 21},
        {"input": InputRecord(name="queries.jsonl", size_bytes=10, sha256="5f")},
    ],
)
def test_each_setting_that_decides_the_parts_changes_the_digest_of_the_run(
    changed: dict[str, object],
) -> None:
    assert run_record(**changed).digest != run_record().digest


def test_a_renamed_input_and_another_alias_of_the_version_are_the_same_run() -> None:
    renamed = InputRecord(name="moved.jsonl", size_bytes=10, sha256="5e")
    assert run_record(input=renamed, requested_version="stable").digest == run_record().digest


def test_the_record_of_success_sums_its_parts() -> None:
    part = PartRecord(
        name="p",
        num_rows=5,
        num_hits=9,
        num_without_hits=1,
        num_fewer_than_k=2,
        size_bytes=8,
        sha256="0",
    )
    success = SuccessRecord.of(run_record(), [part, part])
    assert (success.num_rows, success.num_hits) == (10, 18)
    assert (success.num_without_hits, success.num_fewer_than_k) == (2, 4)


@pytest.mark.parametrize("field", ["k", "rows_per_part", "batch_size"])
def test_a_number_below_one_is_refused_by_its_name(tmp_path: Path, field: str) -> None:
    paths = dict.fromkeys(("repository", "input", "output"), tmp_path)
    with pytest.raises(ConfigError, match=rf"^{field}: expected at least 1, got 0$"):
        ScoringRequest(**paths, model="tiny", **({"k": 1, "rows_per_part": 1} | {field: 0}))
