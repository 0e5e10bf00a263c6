"""The generator keeps its word: the noise floor, the 18 cells, the same bytes whoever writes them."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from datagen import Generator, humidity

SCHEMA = pathlib.Path(__file__).parents[2] / "schemas" / "humidity" / "schema.pbtxt"


def columns(table):
    return [table[name].to_numpy() for name in humidity.COLUMNS]


def test_the_module_is_a_generator():
    generator: Generator = humidity
    assert generator is humidity


def test_noise_is_the_documented_floor():
    beta1, beta2, weekday, hour, measured = columns(humidity.table(span=1, rows=200_000))
    residuals = measured - humidity.expected_humidity(beta1, beta2, weekday, hour)
    assert pytest.approx(1.416, abs=5e-4) == humidity.NOISE_FLOOR
    assert np.sqrt(np.mean(residuals**2)) == pytest.approx(humidity.NOISE_FLOOR, rel=0.01)


def test_without_the_cells_the_residuals_show_exactly_them():
    beta1, beta2, weekday, hour, measured = columns(humidity.table(span=1, rows=200_000))
    residuals = measured - (2 * beta1 + 20 - 0.5 * beta2 - 1.5)
    cell = weekday * 24 + hour
    means = np.bincount(cell, residuals) / np.bincount(cell)
    assert {divmod(index, 24) for index in np.flatnonzero(means > 4.0)} == humidity.BONUS_CELLS
    assert len(humidity.BONUS_CELLS) == 18
    assert pytest.approx(2.85, abs=0.005) == humidity.RMSE_WITHOUT_CROSS
    assert np.std(residuals) == pytest.approx(humidity.RMSE_WITHOUT_CROSS, rel=0.01)


def test_inputs_are_uniform_over_their_ranges():
    beta1, beta2, weekday, hour, _ = columns(humidity.table(span=3, rows=100_000))
    for beta in (beta1, beta2):
        counts, _ = np.histogram(beta, bins=10, range=(-5, 5))
        assert counts.sum() == 100_000
        assert counts == pytest.approx(np.full(10, 10_000), rel=0.05)
    assert np.bincount(weekday) == pytest.approx(np.full(7, 100_000 / 7), rel=0.05)
    assert np.bincount(hour) == pytest.approx(np.full(24, 100_000 / 24), rel=0.1)


@pytest.mark.parametrize("drift", [0.0, 1.0, -2.0])
def test_values_stay_within_the_curated_schema(drift):
    schema = text_format.Parse(SCHEMA.read_text(), schema_pb2.Schema())
    table = humidity.table(span=1, rows=200_000, drift=drift)
    assert {feature.name for feature in schema.feature} == set(humidity.COLUMNS)
    for feature in schema.feature:
        domain = feature.float_domain if feature.HasField("float_domain") else feature.int_domain
        values = table[feature.name].to_numpy()
        assert domain.min <= values.min() <= values.max() <= domain.max, feature.name
        assert feature.presence.min_fraction == 1.0
        assert [dim.size for dim in feature.shape.dim] == [1]


def test_drift_leans_where_its_sign_says():
    means = [humidity.table(span=1, rows=50_000, drift=d)["beta1"].to_numpy().mean() for d in (-1.0, 0.0, 1.0)]
    assert means == pytest.approx([-5 / 3, 0.0, 5 / 3], abs=0.1)


def test_a_span_is_the_same_whoever_writes_it(tmp_path):
    humidity.generate(tmp_path / "a", spans=3, rows=50)
    humidity.generate(tmp_path / "b", spans=2, rows=50)
    added = humidity.add_span(tmp_path / "b", rows=50)
    name = pathlib.Path("v-1") / humidity.FILE
    assert added.name == "span-3"
    assert (added / name).read_bytes() == (tmp_path / "a" / "span-3" / name).read_bytes()
    assert (tmp_path / "a" / "span-1" / name).read_bytes() != (added / name).read_bytes()


def test_the_seed_changes_the_data():
    assert humidity.table(span=1, rows=5, seed=1) != humidity.table(span=1, rows=5, seed=2)


def test_generate_keeps_what_is_there_and_leaves_nothing_half_done(tmp_path):
    first = humidity.generate(tmp_path, spans=2, rows=10)
    (first[0] / "v-1" / humidity.FILE).write_text("mine")
    assert humidity.generate(tmp_path, spans=3, rows=10)[:2] == first
    assert (first[0] / "v-1" / humidity.FILE).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["span-1", "span-2", "span-3"]


def test_add_span_counts_by_number_not_by_name(tmp_path):
    for number in (2, 10):
        (tmp_path / f"span-{number}").mkdir()
    assert humidity.add_span(tmp_path, rows=10).name == "span-11"


def test_a_file_has_a_header_and_one_line_a_row(tmp_path):
    (folder,) = humidity.generate(tmp_path, spans=1, rows=20)
    lines = (folder / "v-1" / humidity.FILE).read_text().splitlines()
    assert lines[0] == "beta1,beta2,weekday,hour,humidity"
    assert len(lines) == 21
    assert all(len(line.split(",")) == 5 for line in lines)


@pytest.mark.parametrize("fault", sorted(humidity.FAULTS))
def test_a_fault_strikes_the_last_span_only(tmp_path, fault):
    good = humidity.generate(tmp_path / "good", spans=2, rows=300)
    bad = humidity.generate(tmp_path / "bad", spans=2, rows=300, fault=fault)
    contents = [(folder / "v-1" / humidity.FILE).read_bytes() for folder in (*good, *bad)]
    assert contents[0] == contents[2]
    assert contents[1] != contents[3]


def test_an_unknown_fault_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"'typo'.*renamed_column"):
        humidity.add_span(tmp_path, fault="typo")
    assert list(tmp_path.iterdir()) == []
