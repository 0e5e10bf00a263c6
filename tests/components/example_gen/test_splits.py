"""Splits by key and by time: nobody in two splits, no later row in an earlier split, the same row in the same split."""

from __future__ import annotations

from collections import Counter

import pytest

from evergreen.errors import BadInput
from tests.components.example_gen.test_executor import everything, quarantine, rows, run, summary, value, write


def columns_of(artifact, split, name):
    return [value(row, name)[0] for row in rows(artifact, split)]


def test_a_customer_is_never_in_two_splits(tmp_path):
    lines = [f"{customer},{order}\n" for order in range(6) for customer in range(300)]
    for name, part in (("0", lines[:900]), ("1", lines[900:])):
        write(tmp_path, f"{name}.csv", "customer,order\n" + "".join(part))
    artifact = run(tmp_path, tmp_path / "out", "*.csv", schema=None, split_by={"columns": ["customer"]})
    found = {split: Counter(columns_of(artifact, split, "customer")) for split in artifact.splits}
    assert sum(len(customers) for customers in found.values()) == 300
    assert all(set(customers.values()) == {6} for customers in found.values())
    assert len(found["train"]) / 300 == pytest.approx(0.8, abs=0.06)
    # Whatever else a customer does, and however the file is written.
    write(tmp_path, "new/x.csv", "order,customer\n" + "".join(f"{99 - c},{c}\n" for c in range(300)))
    again = run(tmp_path, tmp_path / "again", "new/x.csv", schema=None, split_by={"columns": ["customer"]})
    assert {split: set(columns_of(again, split, "customer")) for split in again.splits} == {
        split: set(customers) for split, customers in found.items()
    }


def test_rows_of_nobody_are_dealt_one_by_one(tmp_path):
    write(tmp_path, "x.csv", "customer,order\n" + "".join(f",{order}\n" for order in range(400)))
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=None, split_by={"columns": ["customer"]})
    assert summary(artifact)["rows"]["train"] / 400 == pytest.approx(0.8, abs=0.06)


def test_cutoffs_put_the_newest_rows_last(tmp_path):
    days = [f"2024-{1 + day // 28:02d}-{1 + day % 28:02d}" for day in range(12 * 28)]
    write(tmp_path, "x.csv", "day,n\n" + "".join(f"{day},{n}\n" for n, day in enumerate(days)) + "soon,1\n,2\n")
    cutoffs = {"eval": "2024-09-01", "test": "2024-11-15"}
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=None, split_by={"time": "day", "cutoffs": cutoffs})
    found = {split: {day.decode() for day in columns_of(artifact, split, "day")} for split in artifact.splits}
    assert max(found["train"]) == "2024-08-28"
    assert (min(found["eval"]), max(found["eval"])) == ("2024-09-01", "2024-11-14")
    assert min(found["test"]) == "2024-11-15"
    reason = "column day: no moment to split by"
    assert [(entry["line"], entry["reason"]) for entry in quarantine(artifact)] == [(338, reason), (339, reason)]


def test_without_cutoffs_every_span_gives_its_newest_rows(tmp_path):
    for span, start in ((1, 5000), (2, 1000)):
        body = "".join(f"{start + (7 * row) % 100},{span}\n" for row in range(100))
        write(tmp_path, f"{span}/x.csv", "at,n\n" + body)
    options = {"schema": None, "split_by": {"time": "at"}}
    both = run(tmp_path, tmp_path / "both", "{SPAN}/x.csv", **options)
    first = run(tmp_path, tmp_path / "first", "{SPAN}/x.csv", choice="1", **options)
    for start in (5000, 1000):
        parts = {split: [at - start for at in columns_of(both, split, "at") if 0 <= at - start < 100] for split in
                 both.splits}  # fmt: skip
        assert [sorted(parts[split]) for split in ("train", "eval", "test")] == [
            list(range(80)), list(range(80, 90)), list(range(90, 100))]  # fmt: skip
    for split in first.splits:
        assert set(rows(first, split)) <= set(rows(both, split)), "a span's rows stay where they are"


def test_rows_of_one_moment_stay_together(tmp_path):
    write(tmp_path, "x.csv", "at,n\n" + "".join(f"{row // 50},{row}\n" for row in range(500)))
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=None, split_by={"time": "at"})
    found = [set(columns_of(artifact, split, "at")) for split in ("train", "eval", "test")]
    assert found == [set(range(8)), {8}, {9}]
    assert sum(everything(artifact).values()) == 500


@pytest.mark.parametrize(
    ("split_by", "where", "found"),
    [
        ({"columns": ["customr"]}, "data.split_by.columns", "column 'customr', which there is not"),
        ({"time": "when"}, "data.split_by.time", "column 'when', which there is not"),
        ({"time": "at", "cutoffs": {"eval": "soon", "test": "9"}}, "data.split_by.cutoffs.eval", "'soon'"),
        ({"time": "at", "cutoffs": {"eval": "9", "test": "5"}}, "data.split_by.cutoffs", "9, 5"),
        ({"time": "at", "cutoffs": {"eval": "500", "test": "600"}}, "data.splits.eval", "no row in this split"),
    ],
)
def test_what_cannot_decide_is_told(tmp_path, split_by, where, found):
    write(tmp_path, "x.csv", "at,n\n" + "".join(f"{row},{row}\n" for row in range(100)))
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "out", "x.csv", schema=None, split_by=split_by)
    assert caught.value.problems[0].where == where
    assert found in caught.value.problems[0].found
