"""The taxi-like table: what it promises, and that its bytes depend on nothing but rows, seed and part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from datagen import taxi


def test_it_has_every_kind_of_column() -> None:
    table = taxi.table(rows=20_000)
    assert tuple(table.column_names) == taxi.COLUMNS
    assert len(taxi.COLUMNS) == 18
    kinds = {str(field.type) for field in table.schema}
    assert kinds == {"string", "int64", "double"}
    holes = {name: table[name].null_count / 20_000 for name in taxi.COLUMNS}
    assert 0.08 < holes["pickup_latitude"] < 0.12
    assert 0.28 < holes["company"] < 0.32
    assert holes["tips"] == holes["trip_id"] == 0
    assert len(table["payment_type"].unique()) == len(taxi.PAYMENT_TYPES)
    assert len(table["trip_id"].unique()) > 18_000
    assert 5_000 < len(table["taxi_id"].unique()) < 16_000


def test_the_tip_can_be_learnt() -> None:
    table = taxi.table(rows=20_000).drop_null()
    kinds = np.array(table["payment_type"].to_pylist())
    card = kinds == "Credit Card"
    tips, fare = table["tips"].to_numpy(), table["fare"].to_numpy()
    assert np.corrcoef(tips[card], fare[card])[0, 1] > 0.7
    assert tips[card].mean() > 2
    assert not tips[kinds == "Cash"].any()


def test_parts_are_of_their_own_and_the_same_again(tmp_path: Path) -> None:
    first = taxi.write(tmp_path / "a", rows=1001, parts=3)
    again = taxi.write(tmp_path / "b", rows=1001, parts=3)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
    tables = [arrow_csv.read_csv(file) for file in first]
    assert sum(table.num_rows for table in tables) == 1001
    assert len({table["trip_start_timestamp"][0].as_py() for table in tables}) == 3


def test_csv_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    (csv_file,) = taxi.write(tmp_path / "csv", rows=500)
    (parquet_file,) = taxi.write(tmp_path / "parquet", rows=500, file_format="parquet")
    rows = parquet.read_table(parquet_file)
    assert rows.equals(taxi.table(rows=500))
    read = arrow_csv.read_csv(csv_file, convert_options=arrow_csv.ConvertOptions(strings_can_be_null=True))
    for name in ("fare", "pickup_community_area", "trip_start_timestamp"):
        np.testing.assert_allclose(read[name].to_numpy(), rows[name].to_numpy())
    assert read["company"].to_pylist() == rows["company"].to_pylist()
