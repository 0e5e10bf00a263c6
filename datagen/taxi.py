"""A table like Chicago's taxi trips, for benchmarks: 18 columns of every kind that slows a pipeline down.

Floats with holes, integers, strings of few and of very many values, a timestamp; the tip depends on the fare, the way
of paying and the hour, so that a model has something to learn. The bytes depend on rows, seed and part only: a part is
one file, and parts can be written apart.

    write(pathlib.Path("data/taxi"), rows=300_000, file_format="csv", parts=2)
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from datagen.writing import write_csv

COLUMNS = (
    "trip_id",
    "taxi_id",
    "company",
    "payment_type",
    "trip_start_timestamp",
    "trip_start_month",
    "trip_start_day",
    "trip_start_hour",
    "trip_seconds",
    "trip_miles",
    "pickup_community_area",
    "dropoff_community_area",
    "pickup_latitude",
    "pickup_longitude",
    "dropoff_latitude",
    "dropoff_longitude",
    "fare",
    "tips",
)
"""In the order of the files."""
LABEL = "tips"
TAXIS = 50_000
"""Values of `taxi_id`, the most frequent ones far more frequent than the others."""
TRIPS = 200_000
"""Values of `trip_id`: so many that no vocabulary keeps them all."""
COMPANIES = 60
PAYMENT_TYPES = ("Credit Card", "Cash", "Mobile", "Prcard", "Unknown", "No Charge", "Dispute")
_PAYMENT_SHARES = (0.42, 0.40, 0.10, 0.04, 0.025, 0.01, 0.005)
_FIRST_SECOND = 1_356_998_400
"""The beginning of 2013."""
_SECONDS = 4 * 365 * 24 * 3600
SEED = 20130101
Format = Literal["csv", "parquet"]


def table(*, rows: int, seed: int = SEED, part: int = 0) -> pa.Table:
    """Draws the rows of one part.

    Args:
        rows: how many.
        seed: the common seed.
        part: the part's number; each has its own stream of random numbers.

    Returns:
        `COLUMNS`: strings, int64 and float64; holes are nulls.
    """
    random = np.random.default_rng([seed, part])
    second = random.integers(0, _SECONDS, rows) // 900 * 900
    moment = (second + _FIRST_SECOND).astype("datetime64[s]")
    hour = second % 86_400 // 3_600
    payment = random.choice(len(PAYMENT_TYPES), rows, p=_PAYMENT_SHARES)
    miles = random.gamma(1.2, 3.0, rows).round(2)
    seconds = (miles * random.normal(200, 30, rows).clip(60) + random.exponential(120, rows)).astype(np.int64)
    fare = (3.25 + 2.25 * miles + seconds / 36 * 0.25 * random.uniform(0.2, 0.6, rows)).round(2)
    share = np.where(payment == 0, 0.22, np.where(payment == 2, 0.15, 0.0)) * np.where((hour < 5) | (hour > 20), 1.2, 1)
    tips = (fare * share * random.gamma(8, 1 / 8, rows)).round(2)
    pickup, dropoff = _areas(random, rows), _areas(random, rows)
    columns: dict[str, Any] = {
        "trip_id": _names("trip-%012x", random.integers(0, TRIPS, rows) * 0x9E3779B1 % 2**44, rows),
        "taxi_id": _names("%032x", _skewed(random, TAXIS, rows) * 0x9E3779B97F4A7C15 % 2**63, rows),
        "company": _holes(random, _labels([f"Company {n:02d}" for n in range(COMPANIES)], random, rows), 0.3),
        "payment_type": pa.array(PAYMENT_TYPES).take(pa.array(payment)),
        "trip_start_timestamp": second + _FIRST_SECOND,
        "trip_start_month": moment.astype("datetime64[M]").astype(np.int64) % 12 + 1,
        "trip_start_day": (second // 86_400 + 2) % 7 + 1,
        "trip_start_hour": hour,
        "trip_seconds": _holes(random, pa.array(seconds), 0.01),
        "trip_miles": miles,
        "pickup_community_area": _holes(random, pa.array(pickup), 0.1),
        "dropoff_community_area": _holes(random, pa.array(dropoff), 0.15),
        "pickup_latitude": _holes(random, _degrees(random, 41.6, pickup * 0.005), 0.1),
        "pickup_longitude": _holes(random, _degrees(random, -87.9, pickup * 0.004), 0.1),
        "dropoff_latitude": _holes(random, _degrees(random, 41.6, dropoff * 0.005), 0.15),
        "dropoff_longitude": _holes(random, _degrees(random, -87.9, dropoff * 0.004), 0.15),
        "fare": _holes(random, pa.array(fare), 0.02),
        "tips": tips,
    }
    return pa.table({name: columns[name] for name in COLUMNS})


def write(
    root: pathlib.Path, *, rows: int, file_format: Format = "csv", parts: int = 1, seed: int = SEED
) -> list[pathlib.Path]:
    """Writes span 1 as `parts` files, each of them unless it is there already.

    Args:
        root: gets `span-1/v-1/part-*`.
        rows: rows of all parts together.
        file_format: CSV with a header, or Parquet (compressed with Snappy).
        parts: how many files; one part's rows at a time are in memory.
        seed: what the parts' seeds are derived from.

    Returns:
        The files.
    """
    folder = root / "span-1" / "v-1"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for part in range(parts):
        file = folder / f"part-{part:05d}.{file_format}"
        if not file.exists():
            part_rows = rows * (part + 1) // parts - rows * part // parts
            temporary = folder / f".{file.name}.tmp"
            data = table(rows=part_rows, seed=seed, part=part)
            (parquet.write_table if file_format == "parquet" else _write_csv)(data, temporary)
            temporary.rename(file)
        files.append(file)
    return files


def _write_csv(data: pa.Table, file: pathlib.Path) -> None:
    with file.open("wb") as stream:
        write_csv(data, stream)


def _areas(random: np.random.Generator, rows: int) -> npt.NDArray[np.int64]:
    """Draws community areas 1 to 77, the ones near 1 more often."""
    return _skewed(random, 77, rows) + 1


def _skewed(random: np.random.Generator, size: int, rows: int) -> npt.NDArray[np.int64]:
    """Draws numbers in [0, size), low ones more often."""
    drawn: npt.NDArray[np.int64] = (size * random.uniform(size=rows) ** 2.5).astype(np.int64)
    return drawn


def _degrees(random: np.random.Generator, origin: float, offset: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array((origin + offset + random.normal(0, 0.002, len(offset))).round(6))


def _names(pattern: str, numbers: npt.NDArray[np.int64], rows: int) -> pa.Array:
    """Writes numbers as text; the format runs once a distinct number."""
    distinct, indices = np.unique(numbers.astype(np.uint64), return_inverse=True)
    names = pa.array([pattern % number for number in distinct.tolist()])
    return names.take(pa.array(indices.reshape(rows)))


def _labels(labels: Sequence[str], random: np.random.Generator, rows: int) -> pa.Array:
    return pa.array(labels).take(pa.array(_skewed(random, len(labels), rows)))


def _holes(random: np.random.Generator, values: pa.Array, share: float) -> pa.Array:
    """Leaves a share of the values out."""
    return pa.compute.if_else(pa.array(random.uniform(size=len(values)) >= share), values, None)


def main(arguments: Sequence[str]) -> int:
    """Writes a table from the command line."""
    parser = argparse.ArgumentParser(prog="python -m datagen.taxi", description="Writes a table like taxi trips.")
    parser.add_argument("root", type=pathlib.Path, help="the folder that gets span-1/v-1/part-*")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of all parts (default: 300000)")
    parser.add_argument("--parts", type=int, default=1, help="files (default: 1)")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="default: csv")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    for file in write(
        options.root, rows=options.rows, file_format=options.format, parts=options.parts, seed=options.seed
    ):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
