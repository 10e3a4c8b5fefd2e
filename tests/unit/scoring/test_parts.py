from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motherlode.core.labels import LabelTable
from motherlode.core.topk import TopK
from motherlode.scoring import parts
from motherlode.scoring.parts import PartFormat, PartWriter, read_counts
from tests.support.scoring import run_record

RUN = run_record()
LABELS = LabelTable([f"k{i}" for i in range(9)], [f"label {i}" for i in range(9)], np.ones(9, int))


def hits(num_rows: int) -> TopK:
    counts = np.arange(num_rows, dtype=np.int64) % 4
    labels = np.concatenate([np.arange(n) + row % 6 for row, n in enumerate(counts)] or [[]])
    scores = np.linspace(1, 0, len(labels), dtype=np.float32)
    return TopK(labels.astype(np.int64), scores, counts)


def ids(num_rows: int) -> list[str]:
    return [f"q{row}" for row in range(num_rows)]


def part(batch_sizes: list[int], form: PartFormat | None = None) -> bytes:
    file = io.BytesIO()
    writer = PartWriter(file, form or PartFormat(RUN, LABELS))
    names, top, start = ids(sum(batch_sizes)), hits(sum(batch_sizes)), 0
    for size in batch_sizes:
        writer.write(names[start : start + size], top.rows(start, start + size))
        start += size
    writer.close()
    return file.getvalue()


def test_a_row_has_the_query_its_hits_and_the_bundle_that_gave_them() -> None:
    table = pq.read_table(io.BytesIO(part([4])))

    assert table.to_pylist()[2] == {
        "query_id": "q2",
        "labels": [2, 3],
        "label_keys": ["k2", "k3"],
        "label_texts": ["label 2", "label 3"],
        "scores": hits(4).row(2)[1].tolist(),
        "model": "tiny",
        "version": 1,
        "bundle_digest": "d1",
    }


def test_the_columns_have_the_documented_types() -> None:
    constant = pa.dictionary(pa.int32(), pa.string())
    assert pq.read_schema(io.BytesIO(part([1]))).remove_metadata() == pa.schema(
        [
            pa.field("query_id", pa.string(), nullable=False),
            pa.field("labels", pa.list_(pa.int64()), nullable=False),
            pa.field("label_keys", pa.list_(pa.string()), nullable=False),
            pa.field("label_texts", pa.list_(pa.string()), nullable=False),
            pa.field("scores", pa.list_(pa.float32()), nullable=False),
            pa.field("model", constant, nullable=False),
            pa.field("version", pa.int64(), nullable=False),
            pa.field("bundle_digest", constant, nullable=False),
        ]
    )


def test_labels_without_texts_give_no_column_of_texts() -> None:
    form = PartFormat(RUN, LabelTable(["a"] * 9, None, np.ones(9, int)))
    assert "label_texts" not in pq.read_schema(io.BytesIO(part([3], form))).names


@pytest.mark.parametrize("batch_sizes", [[1] * 50, [7] * 7 + [1], [49, 1], [3, 40, 0, 7]])
def test_the_bytes_of_a_part_do_not_depend_on_the_batches(
    batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 8)
    assert part(batch_sizes) == part([50])


def test_row_groups_have_a_bounded_number_of_rows_and_of_hits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "HITS_PER_GROUP", 30)
    footer = pq.read_metadata(io.BytesIO(part([25])))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [10, 10, 5]


def test_a_row_group_holds_at_least_one_row_however_large_k_is() -> None:
    assert PartFormat(run_record(k=10**9), LABELS).rows_per_group == 1


def test_a_part_without_rows_is_a_valid_file() -> None:
    table = pq.read_table(io.BytesIO(part([])))
    assert table.num_rows == 0
    assert "scores" in table.column_names


def test_the_footer_tells_how_many_rows_and_hits_a_part_has(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(part([8]))
    assert read_counts(path, RUN) == {
        "num_rows": 8,
        "num_hits": 12,
        "num_without_hits": 2,
        "num_fewer_than_k": 6,
    }


def test_a_part_of_another_run_is_not_taken_for_one_of_this_run(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(part([8]))
    assert read_counts(path, run_record(k=4)) is None


@pytest.mark.parametrize("length", [0, 3, 500, -1])
def test_a_truncated_part_is_not_taken_for_a_whole_one(tmp_path: Path, length: int) -> None:
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(part([8])[:length])
    assert read_counts(path, RUN) is None


def test_a_parquet_file_of_somebody_else_is_not_taken_for_a_part(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    assert read_counts(path, RUN) is None
