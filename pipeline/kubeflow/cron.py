"""Cron expressions as Kubeflow's scheduler reads them, said back in words with their next times in UTC.

Kubeflow parses with robfig/cron 1.2, which is not what crontab does in two places that bite:

- five fields given to it are seconds, minutes, hours, day, month: `0 6 * * *`, six o'clock to everybody else, would
  run at minute six of every hour. `parse` takes five fields for what everybody means and always hands six on;
- the days of the week are 0 (Sunday) to 6; Quartz's 1 to 7 is accepted and means other days.

    schedule = parse("0 6 * * MON-FRI")
    schedule.expression          # "0 0 6 * * MON-FRI"
    schedule.describe()          # "at 06:00, on Monday to Friday"
    schedule.upcoming(now, 3)    # the next three times in UTC

The scheduler's own time zone is UTC unless the cluster sets CRON_SCHEDULE_TIMEZONE.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Sequence

from evergreen.errors import BadInput, Problem

_SEARCH = datetime.timedelta(days=5 * 366)
"""Kubeflow's scheduler looks five years ahead and then gives up."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NICKNAMES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What one place of an expression may hold."""

    name: str
    low: int
    high: int
    names: Sequence[str] = ()
    """Words for the values from `low` on, of which the first three letters are written."""

    def value(self, text: str) -> int | None:
        """Returns the number that a word or digits stand for, or none."""
        if text.isascii() and text.isdigit():
            return int(text)
        words = [name[:3].lower() for name in self.names]
        return self.low + words.index(text.lower()) if text.lower() in words else None


_KINDS = (
    _Kind("second", 0, 59),
    _Kind("minute", 0, 59),
    _Kind("hour", 0, 23),
    _Kind("day of the month", 1, 31),
    _Kind("month", 1, 12, _MONTHS),
    _Kind("day of the week", 0, 6, _DAYS),
)


@dataclasses.dataclass(frozen=True)
class _Field:
    """One place of an expression, read."""

    values: tuple[int, ...]
    star: bool
    """Written with `*` or `?` (with a step or without), which decides how the two kinds of day combine."""
    kind: _Kind

    @property
    def every(self) -> bool:
        """Whether it holds all values."""
        return len(self.values) == self.kind.high - self.kind.low + 1

    @property
    def step(self) -> int | None:
        """Returns n where the values are every n-th from 0 and come round evenly, so that "every n" is true."""
        size = self.kind.high + 1
        if self.kind.low or len(self.values) < 2 or self.values[0]:
            return None
        step = self.values[1]
        return step if size % step == 0 and self.values == tuple(range(0, size, step)) else None

    @property
    def single(self) -> int | None:
        """Returns the one value, or none where there are several."""
        return self.values[0] if len(self.values) == 1 else None


@dataclasses.dataclass(frozen=True)
class Cron:
    """A schedule; make one with `parse`."""

    expression: str
    """Six fields, seconds first: what Kubeflow gets."""
    fields: tuple[_Field, ...] = dataclasses.field(repr=False)

    def next_after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """Returns the first time after `moment`, in UTC; none where there is none within five years.

        Args:
            moment: a time with a time zone.
        """
        start = moment.astimezone(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(seconds=1)
        for offset in range(_SEARCH.days):
            date = start.date() + datetime.timedelta(days=offset)
            if not self._has_day(date):
                continue
            time = self._first_time(start.time() if offset == 0 else datetime.time.min)
            if time is not None:
                return datetime.datetime.combine(date, time, tzinfo=datetime.timezone.utc)
        return None

    def upcoming(self, moment: datetime.datetime, count: int) -> list[datetime.datetime]:
        """Returns the next `count` times after `moment`, in UTC."""
        found = [moment]
        while len(found) <= count and (following := self.next_after(found[-1])) is not None:
            found.append(following)
        return found[1:]

    def describe(self) -> str:
        """Says in words when it runs."""
        time, days = self._time_words(), self._day_words()
        if not days and "every" not in time:
            days = "every day"
        return ", ".join(filter(None, (time, days, self._month_words())))

    def _has_day(self, date: datetime.date) -> bool:
        _, _, _, day, month, weekday = self.fields
        if date.month not in month.values:
            return False
        by_month, by_week = date.day in day.values, date.isoweekday() % 7 in weekday.values
        return (by_month and by_week) if day.star or weekday.star else (by_month or by_week)

    def _first_time(self, earliest: datetime.time) -> datetime.time | None:
        second, minute, hour = (field.values for field in self.fields[:3])
        times = (datetime.time(h, m, s) for h in hour if h >= earliest.hour for m in minute for s in second)
        return next((time for time in times if time >= earliest), None)

    def _time_words(self) -> str:
        second, minute, hour = self.fields[:3]
        if second.single is not None and len(minute.values) * len(hour.values) <= 6:
            times = [datetime.time(h, m, second.single) for h in hour.values for m in minute.values]
            return "at " + _and(f"{time:%H:%M:%S}" if second.single else f"{time:%H:%M}" for time in times)
        parts: list[str] = []
        if second.single != 0:
            parts.append(_rate(second))
        if not (minute.every and parts):
            parts.append(_rate(minute))
        if not hour.every:
            parts.append(_rate(hour) if hour.step else f"in {_counted('hour', hour)}")
        elif parts[-1].startswith("at minute"):
            parts[-1] += " of every hour"
        return ", ".join(parts)

    def _day_words(self) -> str:
        _, _, _, day, _, weekday = self.fields
        by_month = "" if day.every else f"on {_counted('day', day)} of the month"
        by_week = "" if weekday.every else f"on {_runs(weekday, _DAYS)}"
        if not (by_month and by_week):
            return by_month or by_week
        return f"{by_month}, only when that is {by_week}" if day.star or weekday.star else f"{by_month} or {by_week}"

    def _month_words(self) -> str:
        month = self.fields[4]
        return "" if month.every else f"in {_runs(month, _MONTHS)}"


def parse(expression: str, *, where: str = "--cron") -> Cron:
    """Reads an expression of five fields (minute first) or six (second first), or a word such as `@daily`.

    Args:
        expression: the fields: numbers, `*`, `?`, ranges, lists, steps, and English names of months and days.
        where: what the problems call the place that it comes from.

    Raises:
        BadInput: with every field that Kubeflow's scheduler would not take, or when it would never run.
    """
    text = _NICKNAMES.get(expression.strip().lower(), expression)
    parts = text.split()
    if len(parts) not in (5, 6):
        raise BadInput([_count_problem(expression, len(parts), where)])
    if len(parts) == 5:
        parts = ["0", *parts]
    problems: list[Problem] = []
    fields: list[_Field] = []
    for part, kind in zip(parts, _KINDS, strict=True):
        try:
            fields.append(_read(part, kind))
        except ValueError as error:
            problems.append(_field_problem(expression, kind, str(error), where))
    if problems:
        raise BadInput(problems)
    cron = Cron(expression=" ".join(parts), fields=tuple(fields))
    if cron.next_after(datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)) is None:
        raise BadInput(
            [
                Problem(
                    where=where,
                    found=f"{expression!r}, which never comes",
                    expected="days that exist in the months that are given",
                    action="Correct the day of the month or the month.",
                )
            ]
        )
    return cron


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(text: str, kind: _Kind) -> _Field:
    values: set[int] = set()
    star = False
    for part in text.split(","):
        found, starred = _read_range(part, kind)
        values.update(found)
        star = star or starred
    return _Field(values=tuple(sorted(values)), star=star, kind=kind)


def _read_range(text: str, kind: _Kind) -> tuple[range, bool]:
    span, slash, step_text = text.partition("/")
    low_text, hyphen, high_text = span.partition("-")
    star = span in ("*", "?")
    if star:
        low, high = kind.low, kind.high
    else:
        low = _number(low_text, kind)
        # `5/10` is "from 5 on, every 10th".
        high = _number(high_text, kind) if hyphen else kind.high if slash else low
    if low > high:
        raise ValueError(f"{text!r}, a range that ends before it starts")
    step = int(step_text) if step_text.isascii() and step_text.isdigit() else 0
    if slash and step < 1:
        raise ValueError(f"{text!r}, a step that is no positive number")
    return range(low, high + 1, step or 1), star


def _number(text: str, kind: _Kind) -> int:
    value = kind.value(text)
    if value is None:
        raise ValueError(repr(text) if text else "nothing")
    if not kind.low <= value <= kind.high:
        raise ValueError(f"{value}, which is outside of {kind.low} to {kind.high}")
    return value


def _count_problem(expression: str, count: int, where: str) -> Problem:
    return Problem(
        where=where,
        found=f"{expression!r} with {count} field{'' if count == 1 else 's'}",
        expected="five fields (minute, hour, day of the month, month, day of the week), or six with the second first",
        action='For every day at six write "0 6 * * *" (quoted, so that the shell leaves the stars alone).',
    )


def _field_problem(expression: str, kind: _Kind, found: str, where: str) -> Problem:
    names = f" or {kind.names[0][:3].upper()} to {kind.names[-1][:3].upper()}" if kind.names else ""
    sunday = " Sunday is 0." if kind.names is _DAYS else ""
    return Problem(
        where=f"{where} {expression!r}, {kind.name}",
        found=found,
        expected=f"{kind.low} to {kind.high}{names}, a range (a-b), a list (a,b), a step (*/n) or *",
        action=f"Correct the field.{sunday}",
    )


# --- words -----------------------------------------------------------------------------------------------------------


def _rate(field: _Field) -> str:
    """Says a second, minute or hour as a rate where it is one, else as a list."""
    name = field.kind.name
    if field.every:
        return f"every {name}"
    if field.step:
        return f"every {field.step} {name}s"
    return f"at {_counted(name, field)}"


def _counted(name: str, field: _Field) -> str:
    return f"{name}{'' if field.single is not None else 's'} {_runs(field)}"


def _runs(field: _Field, names: Sequence[str] = ()) -> str:
    """Lists values, three or more in a row as `a to b`."""

    def word(value: int) -> str:
        return names[value - field.kind.low] if names else str(value)

    words: list[str] = []
    for run in _in_a_row(field.values):
        words += [f"{word(run[0])} to {word(run[-1])}"] if len(run) > 2 else [word(value) for value in run]
    return _and(words)


def _in_a_row(values: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for value in values:
        if run and value != run[-1] + 1:
            yield run
            run = []
        run.append(value)
    if run:
        yield run


def _and(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
