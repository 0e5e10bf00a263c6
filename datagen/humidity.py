"""The built-in problem `humidity`: a packing machine's two sensors and clock, with a noise floor that is known exactly.

    humidity = 2 * beta1 + 20 + N(0, 1) - 0.5 * beta2 - 1.5 + N(0, 1)  [+ N(8, 0.2) in the 18 cells of BONUS_CELLS]

`beta1` and `beta2` are uniform in [-5, 5], `weekday` in 0-6 and `hour` in 0-23. No model comes below `NOISE_FLOOR`; one
without the cross of weekday and hour stays at `RMSE_WITHOUT_CROSS`. A span's bytes depend on seed, number and options
only.

    generate(pathlib.Path("data/humidity"))                        # spans 1 to 7
    add_span(pathlib.Path("data/humidity"), fault="wrong_delimiter")  # span 8, broken on purpose
"""

from __future__ import annotations

import gzip
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datagen import writing

COLUMNS = ("beta1", "beta2", "weekday", "hour", "humidity")
"""In the order of the files."""
BONUS_CELLS = frozenset(
    [(weekday, hour) for weekday in (0, 1, 2) for hour in (18, 19, 20, 21)]
    + [(weekday, hour) for weekday in (4, 5) for hour in (14, 15, 16)]
)
"""The 18 pairs (weekday, hour) in which the machine adds `BONUS_MEAN` of humidity."""
BONUS_MEAN = 8.0
BONUS_DEVIATION = 0.2
_CELLS = 7 * 24
_BONUS_SHARE = len(BONUS_CELLS) / _CELLS
NOISE_FLOOR = (2.0 + _BONUS_SHARE * BONUS_DEVIATION**2) ** 0.5
"""The best possible RMSE: 1.416."""
RMSE_WITHOUT_CROSS = (NOISE_FLOOR**2 + BONUS_MEAN**2 * _BONUS_SHARE * (1.0 - _BONUS_SHARE)) ** 0.5
"""The best possible RMSE of a model that cannot see the cells: 2.85."""
SEED = 20240229
FILE = "humidity.csv"


def generate(
    root: pathlib.Path,
    *,
    spans: int = 7,
    rows: int = 20_000,
    seed: int = SEED,
    drift: float = 0.0,
    fault: str | None = None,
) -> list[pathlib.Path]:
    """Writes spans 1 to `spans` below `root` where they are missing.

    Args:
        root: the folder that holds the spans; made if missing.
        spans: how many spans there shall be.
        rows: rows of each span.
        seed: what the spans' own seeds are derived from.
        drift: see `table`; applies to all spans written.
        fault: one of `FAULTS`; strikes the last span only, if it is written.

    Returns:
        The folders of all spans 1 to `spans`, in order.

    Raises:
        ValueError: `fault` is not one of `FAULTS`.
    """
    content = _content(rows=rows, seed=seed, drift=drift, fault=fault)
    return writing.generate(root, content, spans=spans, file=FILE)


def add_span(
    root: pathlib.Path,
    *,
    rows: int = 20_000,
    seed: int = SEED,
    drift: float = 0.0,
    fault: str | None = None,
) -> pathlib.Path:
    """Writes the span after the highest one below `root`.

    Args:
        root: the folder that holds the spans; made if missing.
        rows: rows of the span.
        seed: what the span's own seed is derived from; the same as for the spans before.
        drift: see `table`.
        fault: one of `FAULTS`, or `None` for a good span.

    Returns:
        The folder of the new span.

    Raises:
        ValueError: `fault` is not one of `FAULTS`.
    """
    return writing.add_span(root, _content(rows=rows, seed=seed, drift=drift, fault=fault), file=FILE)


def table(*, span: int, rows: int, seed: int = SEED, drift: float = 0.0) -> pa.Table:
    """Draws the rows of one span.

    Args:
        span: the span's number; every span has its own stream of random numbers.
        rows: how many.
        seed: the common seed.
        drift: how far the two voltages lean towards +5 (negative: -5). 0 is uniform; they stay within [-5, 5], so that
            drift breaks no schema. 1 gives a density that grows linearly.

    Returns:
        `COLUMNS`; the voltages and humidity float64 with six decimals, weekday and hour int64.
    """
    random = np.random.default_rng([seed, span])
    beta1, beta2 = _lean(random.uniform(size=(2, rows)), drift)
    weekday = random.integers(0, 7, rows)
    hour = random.integers(0, 24, rows)
    noise = random.normal(size=(2, rows)).sum(axis=0) + in_bonus_cell(weekday, hour) * random.normal(
        0.0, BONUS_DEVIATION, rows
    )
    humidity = expected_humidity(beta1, beta2, weekday, hour) + noise
    columns = (beta1.round(6), beta2.round(6), weekday, hour, humidity.round(6))
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


def in_bonus_cell(weekday: npt.NDArray[np.int64], hour: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tells for each row whether it lies in one of `BONUS_CELLS`; all arrays of shape [rows]."""
    cells = np.zeros((7, 24), dtype=np.bool_)
    cells[tuple(np.array(sorted(BONUS_CELLS)).T)] = True
    inside: npt.NDArray[np.bool_] = cells[weekday, hour]
    return inside


def expected_humidity(
    beta1: npt.NDArray[np.float64],
    beta2: npt.NDArray[np.float64],
    weekday: npt.NDArray[np.int64],
    hour: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Computes the humidity without noise, which is what a perfect model predicts; all arrays of shape [rows]."""
    bonus = BONUS_MEAN * in_bonus_cell(weekday, hour)
    expected: npt.NDArray[np.float64] = 2.0 * beta1 + 20.0 - 0.5 * beta2 - 1.5 + bonus
    return expected


def _lean(uniform: npt.NDArray[np.float64], drift: float) -> npt.NDArray[np.float64]:
    """Maps numbers uniform in [0, 1) to voltages in [-5, 5]."""
    leaned = uniform ** (1.0 / (1.0 + abs(drift)))
    return 10.0 * (leaned if drift >= 0 else 1.0 - leaned) - 5.0


def _content(*, rows: int, seed: int, drift: float, fault: str | None) -> Callable[[int, bool], bytes]:
    writing.check_fault(fault, FAULTS)

    def content(span: int, newest: bool) -> bytes:
        data = table(span=span, rows=rows, seed=seed, drift=drift)
        return FAULTS[fault](data) if fault and newest else writing.csv_bytes(data)

    return content


# --- faults ----------------------------------------------------------------------------------------------------------


def _replaced(data: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return data.set_column(data.column_names.index(column), column, values)


def _null_column(data: pa.Table) -> bytes:
    return writing.csv_bytes(_replaced(data, "beta2", pa.nulls(data.num_rows, pa.float64())))


def _text_in_numbers(data: pa.Table) -> bytes:
    words = np.where(data["beta1"].to_numpy() < 0, "low", "high")
    return writing.csv_bytes(_replaced(data, "beta1", pa.array(words)))


def _renamed_column(data: pa.Table) -> bytes:
    return writing.csv_bytes(
        data.rename_columns(["humidty" if name == "humidity" else name for name in data.column_names])
    )


def _missing_column(data: pa.Table) -> bytes:
    return writing.csv_bytes(data.drop(["beta2"]))


def _extra_column(data: pa.Table) -> bytes:
    return writing.csv_bytes(data.append_column("operator", pa.array(["anna"] * data.num_rows)))


def _duplicate_column(data: pa.Table) -> bytes:
    return writing.csv_bytes(data.rename_columns(["beta1" if name == "beta2" else name for name in data.column_names]))


def _out_of_range(data: pa.Table) -> bytes:
    beta1 = data["beta1"].to_numpy().copy()
    beta1[::100] *= 100.0
    return writing.csv_bytes(_replaced(data, "beta1", pa.array(beta1)))


def _malformed(data: pa.Table, *, every: int | None) -> bytes:
    """Cuts the last field off physical line 3 (`every` is None) or off every so-many-th data line."""
    lines = writing.csv_bytes(data).splitlines()
    for index in [2] if every is None else range(1, len(lines), every):
        lines[index] = lines[index].rpartition(b",")[0]
    return b"\n".join(lines) + b"\n"


def _invalid_utf8(data: pa.Table) -> bytes:
    lines = writing.csv_bytes(data).splitlines()
    lines[2] = lines[2].replace(b",", b"\xff,", 1)
    return b"\n".join(lines) + b"\n"


def _truncated_gzip(data: pa.Table) -> bytes:
    packed = gzip.compress(writing.csv_bytes(data), mtime=0)
    return packed[: len(packed) * 2 // 3]


def _binary(data: pa.Table) -> bytes:
    return np.random.default_rng(data.num_rows).bytes(4096)


FAULTS: Mapping[str, Callable[[pa.Table], bytes]] = {
    "binary": _binary,
    "duplicate_column": _duplicate_column,
    "empty": lambda _: b"",
    "extra_column": _extra_column,
    "header_only": lambda data: writing.csv_bytes(data.slice(0, 0)),
    "invalid_utf8": _invalid_utf8,
    "malformed_line": lambda data: _malformed(data, every=None),
    "malformed_many": lambda data: _malformed(data, every=10),
    "missing_column": _missing_column,
    "no_header": lambda data: writing.csv_bytes(data, header=False),
    "null_column": _null_column,
    "out_of_range": _out_of_range,
    "renamed_column": _renamed_column,
    "text_in_numbers": _text_in_numbers,
    "truncated_gzip": _truncated_gzip,
    "utf16": lambda data: writing.csv_bytes(data).decode().encode("utf-16"),
    "wrong_delimiter": lambda data: writing.csv_bytes(data).replace(b",", b";"),
}
"""Name of each corruption and the bytes it makes of a span. The file keeps its name whatever it holds, compressed bytes
included, so that whatever pattern finds a good span finds the bad one. `malformed_line` and `invalid_utf8` spoil
physical line 3 only, which goes to quarantine; `out_of_range` is well-formed and breaks the schema's domain."""
