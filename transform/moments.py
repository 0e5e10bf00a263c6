"""Moments out of texts and whole numbers, and their calendar parts, in TensorFlow's ops alone.

The proleptic Gregorian calendar of the years 1 to 9999, as Python's `datetime` has it; what is no moment of it (30
February, hour 24, a number of milliseconds read as seconds) is missing. All tensors have the shape [batch].
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from evergreen import settings
from transform import categories, columns, numbers

CATEGORIES: Mapping[str, int] = {
    "second": 60, "minute": 60, "hour": 24, "weekday": 7, "hour_of_week": 168, "day": 31, "day_of_year": 366,
    "week": 53, "month": 12, "quarter": 4, "weekend": 2,
}  # fmt: skip
"""The parts that are categories, counted from 0, and how many each has."""

_DAY = 86_400
_FIRST = -62_135_596_800
"""0001-01-01T00:00:00Z in seconds since 1970."""
_LAST = 253_402_300_799
"""9999-12-31T23:59:59Z in seconds since 1970."""
_MONTH_NAMES = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
]  # fmt: skip
_MONTHS = [name[:3] for name in _MONTH_NAMES]
_PATTERNS = {
    "Y": r"\d{4}",
    "y": r"\d\d",
    "m": r"1[0-2]|0[1-9]|[1-9]",
    "d": r"3[01]|[12]\d|0[1-9]|[1-9]",
    "j": r"36[0-6]|3[0-5]\d|[12]\d\d|0[1-9]\d|00[1-9]|[1-9]\d|0[1-9]|[1-9]",
    "H": r"2[0-3]|[01]\d|\d",
    "I": r"1[0-2]|0[1-9]|[1-9]",
    "M": r"[0-5]\d|\d",
    "S": r"[0-5]\d|\d",
    "f": r"\d{1,9}",
    "p": r"am|pm",
    "b": "|".join(_MONTHS),
    "B": "|".join(_MONTH_NAMES),
    "z": r"z|[+-]\d\d:?[0-5]\d",
}
"""What each directive of strptime matches, capitals or not."""
_ISO = (
    r"(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)"
    r"(?:[t ](?P<H>2[0-3]|[01]\d):(?P<M>[0-5]\d)(?::(?P<S>[0-5]\d)(?:[.,]\d{1,9})?)?\s*(?P<z>z|[+-]\d\d:?[0-5]\d)?)?"
)


_Number = Callable[[str, int], tf.Tensor]
"""Reads a directive's number, with what to take where it is absent."""


class Date(NamedTuple):
    """A day, int64 [batch] each."""

    year: tf.Tensor
    month: tf.Tensor
    day: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments [batch]."""

    seconds: tf.Tensor
    """Whole seconds since 1970-01-01T00:00:00Z, int64; 0 where there is none."""
    known: tf.Tensor
    """Whether there is one, bool."""

    @functools.cached_property
    def days(self) -> tf.Tensor:
        """Whole days since 1970-01-01."""
        return self.seconds // _DAY

    @functools.cached_property
    def date(self) -> Date:
        """The day in the calendar."""
        return date_of(self.days)


def calendar(feature: settings.Calendar, column: tf.Tensor) -> list[tf.Tensor | numbers.Unscaled]:
    """Makes the columns of the feature's parts, in the order of `settings.output_columns`; each [batch]."""
    moments = parse(column, feature.formats)
    moments = _within_calendar(moments.seconds + 60 * feature.utc_offset_minutes, moments.known)
    outputs: list[tf.Tensor | numbers.Unscaled] = []
    for part in feature.parts:
        values = part_of(moments, part)
        if part not in CATEGORIES:
            outputs.append(numbers.Unscaled(_or_nan(values, moments.known), "z_score"))
        elif feature.encoding == "cyclical":
            outputs += numbers.circle(_or_nan(values, moments.known), CATEGORIES[part])
        else:
            ids = tf.where(moments.known, values, tf.cast(columns.NO_CATEGORY, tf.int64))
            outputs.append(categories.sized(ids, CATEGORIES[part]))
    return outputs


def parse(column: tf.Tensor, formats: list[str]) -> Moments:
    """Reads moments; the first format that fits a value counts.

    Args:
        column: string or int64 [batch].
        formats: Of `settings.Calendar`; for int64 only the epochs.
    """
    seconds = tf.zeros(tf.shape(column), tf.int64)
    known = tf.zeros(tf.shape(column), tf.bool)
    for text in formats:
        found = _of_epoch(column, settings.EPOCHS[text]) if text in settings.EPOCHS else _of_text(column, text)
        seconds = tf.where(known, seconds, found.seconds)
        known = known | found.known
    return Moments(seconds, known)


def part_of(moments: Moments, part: str) -> tf.Tensor:
    """Takes one part of moments: int64 counted from 0 (`year`: as it is), float64 for `days`."""
    seconds = moments.seconds
    if part == "days":
        return tf.cast(seconds, tf.float64) / _DAY
    days, second = moments.days, tf.math.floormod(seconds, _DAY)
    hour, weekday = second // 3600, tf.math.floormod(days + 3, 7)  # 1970 began on a Thursday
    # Made on demand: Transform traces every operation several times.
    parts: dict[str, Callable[[], tf.Tensor]] = {
        "second": lambda: tf.math.floormod(second, 60),
        "minute": lambda: tf.math.floormod(second // 60, 60),
        "hour": lambda: hour,
        "weekday": lambda: weekday,
        "hour_of_week": lambda: weekday * 24 + hour,
        "weekend": lambda: tf.cast(weekday >= 5, tf.int64),
        # An ISO week belongs to the year of its Thursday.
        "week": lambda: _day_of_year(days - weekday + 3, date_of(days - weekday + 3)) // 7,
        "day": lambda: moments.date.day - 1,
        "day_of_year": lambda: _day_of_year(days, moments.date),
        "month": lambda: moments.date.month - 1,
        "quarter": lambda: (moments.date.month - 1) // 3,
        "year": lambda: moments.date.year,
    }
    return parts[part]()


def _day_of_year(days: tf.Tensor, date: Date) -> tf.Tensor:
    return days - _days_of(Date(date.year, *_first_of_january(days)))


def date_of(days: tf.Tensor) -> Date:
    """Finds the date of a number of days since 1970-01-01, in years that begin in March: leap days come last."""
    shifted = days + 719_468
    era = shifted // 146_097
    day_of_era = shifted - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = tf.where(month_from_march < 10, month_from_march + 3, month_from_march - 9)
    year = year_of_era + era * 400 + tf.cast(month <= 2, tf.int64)
    return Date(year, month, day)


def _days_of(date: Date) -> tf.Tensor:
    """Counts the days from 1970-01-01 to a date, the inverse of `date_of`."""
    year = date.year - tf.cast(date.month <= 2, tf.int64)
    era = year // 400
    year_of_era = year - era * 400
    month_from_march = tf.where(date.month > 2, date.month - 3, date.month + 9)
    day_of_year = (153 * month_from_march + 2) // 5 + date.day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def _first_of_january(like: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.ones_like(like), tf.ones_like(like)


def _within_calendar(seconds: tf.Tensor, known: tf.Tensor) -> Moments:
    known = known & (seconds >= _FIRST) & (seconds <= _LAST)
    return Moments(tf.where(known, seconds, tf.zeros_like(seconds)), known)


def _or_nan(values: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    return tf.where(known, tf.cast(values, tf.float64), tf.constant(float("nan"), tf.float64))


# --- reading ---------------------------------------------------------------------------------------------------------


def _of_epoch(column: tf.Tensor, unit: int) -> Moments:
    if column.dtype == tf.string:
        text = tf.strings.strip(column)
        known = tf.strings.regex_full_match(text, r"[+-]?\d{1,18}")
        count = _whole(text, known)
    else:
        known = columns.is_present(column)
        count = column
    return _within_calendar(count // unit, known)


def _of_text(column: tf.Tensor, text: str) -> Moments:
    template, directives = _template(text)
    values = tf.strings.strip(column)
    known = tf.strings.regex_full_match(values, _capturing(template, None))
    fields = {
        directive: tf.where(known, _group(values, _capturing(template, directive)), "") for directive in directives
    }

    def number(directive: str, default: int) -> tf.Tensor:
        if directive not in fields:
            return tf.fill(tf.shape(values), tf.constant(default, tf.int64))
        return _whole(fields[directive], fields[directive] != "", default)

    date, real = _date(fields, number)
    days = _days_of(date)
    if "j" in fields:
        days = _days_of(Date(date.year, *_first_of_january(days))) + number("j", 1) - 1
        real = real & tf.equal(date_of(days).year, date.year)
    seconds = days * _DAY + _hour(fields, number) * 3600 + number("M", 0) * 60 + number("S", 0)
    if "z" in fields:
        seconds -= _offset(fields["z"])
    return _within_calendar(seconds, known & real)


def _template(text: str) -> tuple[str, list[str]]:
    """Turns a format into a regular expression with a named group for each directive."""
    if text == "iso":
        return _ISO, ["Y", "m", "d", "H", "M", "S", "z"]
    parts = re.findall(r"%%|%.|\s+|[^%\s]+", text)
    pattern = "".join(
        r"\s+"
        if part.isspace()
        else f"(?P<{part[1]}>{_PATTERNS[part[1]]})"
        if part[0] == "%" and part != "%%"
        else re.escape(part.replace("%%", "%"))
        for part in parts
    )
    return pattern, [part[1] for part in parts if part[0] == "%" and part != "%%" and part[1] != "f"]


def _capturing(template: str, directive: str | None) -> str:
    """Makes the one group a capturing one, and no other."""
    return "(?i)^" + re.sub(r"\(\?P<(\w)>", lambda match: "(" if match[1] == directive else "(?:", template) + "$"


def _group(values: tf.Tensor, pattern: str) -> tf.Tensor:
    return tf.strings.regex_replace(values, pattern, r"\1", replace_global=False)


def _whole(text: tf.Tensor, known: tf.Tensor, default: int = 0) -> tf.Tensor:
    return tf.strings.to_number(tf.where(known, text, str(default)), tf.int64)


def _date(fields: Mapping[str, tf.Tensor], number: _Number) -> tuple[Date, tf.Tensor]:
    """Puts a date together and tells whether there is such a day."""
    year = number("Y", 1970)
    if "y" in fields:
        short = number("y", 70)
        year = short + tf.where(short < 69, tf.cast(2000, tf.int64), tf.cast(1900, tf.int64))
    month = number("m", 1)
    for directive in set("bB") & fields.keys():
        month = _month(fields[directive])
    date = Date(year, month, number("d", 1))
    legal = (date.month >= 1) & (date.month <= 12) & (date.day >= 1) & (date.year >= 1)
    again = date_of(_days_of(date))
    return date, legal & tf.equal(again.month, date.month) & tf.equal(again.day, date.day)


def _month(name: tf.Tensor) -> tf.Tensor:
    short = tf.strings.substr(tf.strings.lower(name), 0, 3)
    return tf.add_n([tf.cast(tf.equal(short, month), tf.int64) * place for place, month in enumerate(_MONTHS, start=1)])


def _hour(fields: Mapping[str, tf.Tensor], number: _Number) -> tf.Tensor:
    if "I" not in fields:
        return number("H", 0)
    hour = tf.math.floormod(number("I", 12), 12)
    if "p" not in fields:
        return hour
    return hour + tf.cast(tf.equal(tf.strings.lower(fields["p"]), "pm"), tf.int64) * 12


def _offset(text: tf.Tensor) -> tf.Tensor:
    """Reads an offset such as +05:30 in seconds; Z and none are 0."""
    named = tf.strings.regex_full_match(text, r"[+-].*")
    digits = tf.where(named, tf.strings.regex_replace(text, ":", ""), "+0000")
    seconds = (
        _whole(tf.strings.substr(digits, 1, 2), named) * 3600 + _whole(tf.strings.substr(digits, 3, 2), named) * 60
    )
    return tf.where(tf.equal(tf.strings.substr(digits, 0, 1), "-"), -seconds, seconds)
