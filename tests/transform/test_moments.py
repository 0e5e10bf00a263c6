"""Moments and their parts, held against Python's own calendar."""
# ruff: noqa: DTZ001, DTZ007, DTZ901  the calendar knows no zones

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from transform import moments

EPOCH = datetime.datetime(1970, 1, 1)
EDGES = [
    datetime.datetime.min,
    datetime.datetime.max,
    *(datetime.datetime(year, month, day) for year in (1, 4, 1582, 1600, 1900, 1969, 1970, 2000, 2023, 2024, 9999)
      for month, day in ((1, 1), (2, 28), (3, 1), (12, 31))),
    *(datetime.datetime(year, 2, 29, 23, 59, 59) for year in (4, 1600, 1968, 2000, 2024, 9996)),
]  # fmt: skip
MOMENTS = st.lists(st.datetimes(), min_size=1, max_size=100)


def _seconds(moment: datetime.datetime) -> int:
    since = moment - EPOCH
    return since.days * 86_400 + since.seconds


def _expected(moment: datetime.datetime) -> dict[str, float]:
    days = moment.timetuple().tm_yday
    return {
        "second": moment.second, "minute": moment.minute, "hour": moment.hour, "weekday": moment.weekday(),
        "hour_of_week": moment.weekday() * 24 + moment.hour, "day": moment.day - 1, "day_of_year": days - 1,
        "week": moment.isocalendar()[1] - 1, "month": moment.month - 1, "quarter": (moment.month - 1) // 3,
        "weekend": int(moment.weekday() > 4), "year": moment.year,
    }  # fmt: skip


def _check(found: list[datetime.datetime], parsed: moments.Moments) -> None:
    assert parsed.known.numpy().all()
    assert parsed.seconds.numpy().tolist() == [_seconds(moment) for moment in found]
    expected = [_expected(moment) for moment in found]
    for part in expected[0]:
        assert moments.part_of(parsed, part).numpy().tolist() == [parts[part] for parts in expected], part
    np.testing.assert_allclose(moments.part_of(parsed, "days"), [_seconds(moment) / 86_400 for moment in found])


@settings(max_examples=30, deadline=None)
@given(MOMENTS)
def test_parts_are_those_of_pythons_calendar(found: list[datetime.datetime]) -> None:
    for unit, per_second in (("epoch_seconds", 1), ("epoch_millis", 1000)):
        counts = tf.constant([_seconds(moment) * per_second for moment in found], tf.int64)
        _check(found, moments.parse(counts, [unit]))


def test_parts_at_the_calendars_edges() -> None:
    _check(EDGES, moments.parse(tf.constant([_seconds(moment) for moment in EDGES], tf.int64), ["epoch_seconds"]))
    assert moments.parse(tf.constant([-1], tf.int64), ["epoch_millis"]).seconds.numpy() == -1  # the second before 1970


FORMATS = [
    "iso", "%Y-%m-%d %H:%M:%S", "%d.%m.%Y  %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d %b %Y %H%M%S", "%B %d, %Y %H:%M:%S",
    "%Y%m%d%H%M%S", "%Y %j %H:%M:%S.%f", "[%d/%b/%Y:%H:%M:%S]", "100%% %Y-%m-%dT%H:%M:%S",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMATS)
def test_texts_are_read_as_python_reads_them(text: str) -> None:
    random = np.random.default_rng(1)
    seconds = random.integers(_seconds(datetime.datetime(1000, 1, 1)), _seconds(datetime.datetime.max), 300)
    found = [EPOCH + datetime.timedelta(seconds=int(number)) for number in seconds]
    found += [moment.replace(microsecond=0) for moment in EDGES if moment.year >= 1000]
    written = [moment.isoformat() if text == "iso" else moment.strftime(text) for moment in found]
    _check(found, moments.parse(tf.constant(written), [text]))


def test_short_years_and_loose_digits_are_read_as_python_reads_them() -> None:
    for text, written in (
        ("%d/%m/%y", ["1/2/68", "01/02/69", "31/12/99", "29/2/00"]), ("%H:%M", ["7:5", "23:59"]),
        ("%b %Y", ["JAN 2024", "dec 1999"]), ("%Y", ["2024"]), ("%d.%m.%Y", [" 1.2.2024 "]),
    ):  # fmt: skip
        expected = [datetime.datetime.strptime(value.strip(), text) for value in written]
        if "%y" not in text.lower():
            expected = [moment.replace(year=1970) for moment in expected]
        _check(expected, moments.parse(tf.constant(written), [text]))


def test_an_offset_is_taken_off() -> None:
    written = ["2024-03-01T00:30:00+01:00", "2024-02-29 18:00:00 -0530", "2024-02-29T23:30Z", "2024-02-29T23:30"]
    parsed = moments.parse(tf.constant(written), ["iso"])
    _check([datetime.datetime(2024, 2, 29, 23, 30)] * 4, parsed)
    parsed = moments.parse(tf.constant(["01/03/2024 00:30 +0100"]), ["%d/%m/%Y %H:%M %z"])
    _check([datetime.datetime(2024, 2, 29, 23, 30)], parsed)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("iso", ["", "  ", "2024-02-30", "2023-02-29", "2024-13-01", "2024-01-01T24:00:00", "0000-01-01", "1.1.2024"]),
        ("iso", ["2024-01-01x", "x2024-01-01", "2024-01-01T10", "2024-1-1", "2024-01-01T10:00:60", "2024-01-01\n1"]),
        ("%Y-%j", ["2023-366", "2024-000", "2024-367"]),
        ("%d %b %Y", ["31 apr 2024", "1 foo 2024", "29 feb 1900"]),
        ("epoch_seconds", ["", "ten", "1.5", "999999999999999999999999", "253402300800", "-62135596801"]),
    ],
)  # fmt: skip
def test_what_is_no_moment_is_missing(text: str, written: list[str]) -> None:
    parsed = moments.parse(tf.constant(written), [text])
    assert parsed.known.numpy().tolist() == [False] * len(written)
    assert parsed.seconds.numpy().tolist() == [0] * len(written)


def test_numbers_beyond_the_calendar_are_missing() -> None:
    numbers = [int(tf.int64.min), int(tf.int64.max), 1_700_000_000_000, 1_700_000_000]
    assert moments.parse(tf.constant(numbers, tf.int64), ["epoch_seconds"]).known.numpy().tolist() == [0, 0, 0, 1]


def test_the_first_format_that_fits_counts() -> None:
    written = ["03.04.2024", "2024-04-03", "1712102400", "04/03/2024", "never"]
    parsed = moments.parse(tf.constant(written), ["%d.%m.%Y", "iso", "epoch_seconds", "%m/%d/%Y", "%d/%m/%Y"])
    assert parsed.known.numpy().tolist() == [True] * 4 + [False]
    assert set(parsed.seconds.numpy()[:4].tolist()) == {_seconds(datetime.datetime(2024, 4, 3))}


def test_a_large_batch_in_a_graph() -> None:
    """What Transform traces is what runs eagerly here."""

    @tf.function
    def parse(column: Any) -> Any:
        parsed = moments.parse(column, ["%d.%m.%Y", "iso"])
        return moments.part_of(parsed, "week"), parsed.known

    week, known = parse(tf.constant(["2021-01-03", "04.01.2021", "?"] * 10_000))
    assert week.numpy()[:2].tolist() == [52, 0]
    assert int(known.numpy().sum()) == 20_000
