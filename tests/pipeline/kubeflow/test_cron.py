"""Cron expressions: held against what Kubeflow's own parser answered, and said back in words."""

from __future__ import annotations

import datetime
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.errors import BadInput
from pipeline.kubeflow import cron

UTC = datetime.timezone.utc
NOW = datetime.datetime(2026, 11, 21, 9, 2, tzinfo=UTC)
# Answers of github.com/robfig/cron v1.2.0, the parser inside Kubeflow's API server and scheduler; null is a refusal.
ANSWERS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "robfig_cron.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a["next"] is not None], ids=lambda a: a["expression"])
def test_next_times_are_those_of_kubeflows_parser(answer):
    moment = datetime.datetime.fromisoformat(answer["from"].replace("Z", "+00:00"))
    times = cron.parse(answer["expression"]).upcoming(moment, 4)
    assert [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in times] == answer["next"]


@pytest.mark.parametrize("expression", sorted({a["expression"] for a in ANSWERS if a["next"] is None}))
def test_what_kubeflows_parser_refuses_is_refused(expression):
    with pytest.raises(BadInput):
        cron.parse(expression)


def test_five_fields_mean_what_crontab_means():
    schedule = cron.parse("0 6 * * *")
    assert schedule.expression == "0 0 6 * * *"
    assert schedule.next_after(NOW) == datetime.datetime(2026, 11, 22, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 6 * * *", "at 06:00, every day"),
        ("0 6 * * MON-FRI", "at 06:00, on Monday to Friday"),
        ("0 6,18 * * 6,0", "at 06:00 and 18:00, on Sunday and Saturday"),
        ("15 30 6 * * *", "at 06:30:15, every day"),
        ("*/15 * * * *", "every 15 minutes"),
        ("* * * * *", "every minute"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("5 * * * *", "at minute 5 of every hour"),
        # Seven does not divide sixty: "every 7 minutes" would be untrue at the full hour.
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("*/15 9-17 * * 1-5", "every 15 minutes, in hours 9 to 17, on Monday to Friday"),
        ("30 2 1,15 * *", "at 02:30, on days 1 and 15 of the month"),
        ("30 2 1 * MON", "at 02:30, on day 1 of the month or on Monday"),
        ("30 2 */15 * MON", "at 02:30, on days 1, 16 and 31 of the month, only when that is on Monday"),
        ("0 0 1 1,7 *", "at 00:00, on day 1 of the month, in January and July"),
        ("0 0 */2 * * *", "at minute 0, every 2 hours"),
        ("* 0 6 * * *", "every second, at minute 0, in hour 6"),
        ("0 5 1-9 * * *", "at minute 5, in hours 1 to 9, every day"),
        ("@weekly", "at 00:00, on Sunday"),
    ],
)
def test_words(expression, words):
    assert cron.parse(expression).describe() == words


def test_every_wrong_field_is_told_at_once():
    with pytest.raises(BadInput) as caught:
        cron.parse("61 25 0 foo 7")
    wrong = [problem.where.rsplit(", ", 1)[1] for problem in caught.value.problems]
    assert wrong == ["minute", "hour", "day of the month", "month", "day of the week"]
    assert "Sunday is 0" in caught.value.problems[-1].action


@pytest.mark.parametrize("expression", ["", "0 6 * *", "0 0 6 * * * 2027"])
def test_number_of_fields(expression):
    with pytest.raises(BadInput, match="five fields"):
        cron.parse(expression)


def test_a_day_that_never_comes():
    with pytest.raises(BadInput, match="never comes"):
        cron.parse("0 0 30 2 *")


def test_times_come_in_utc_whatever_the_zone_of_the_moment():
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    assert cron.parse("0 6 * * *").next_after(NOW.astimezone(zone)) == datetime.datetime(2026, 11, 22, 6, tzinfo=UTC)


numbers = st.integers(0, 23).map(str)
hours = st.one_of(st.just("*"), numbers, st.lists(numbers, min_size=1, max_size=4).map(",".join))


@given(minute=st.integers(0, 59), hour=hours, day=st.sampled_from(["*", "1-9", "31"]), week=st.sampled_from("*135"))
@settings(max_examples=60, deadline=None)
def test_nothing_is_left_out_and_nothing_added(minute, hour, day, week):
    """Ten days, minute by minute, against the definition."""
    schedule = cron.parse(f"{minute} {hour} {day} * {week}")
    wanted_hours = set(range(24)) if hour == "*" else {int(h) for h in hour.split(",")}
    days = {"*": set(range(1, 32)), "1-9": set(range(1, 10)), "31": {31}}[day]
    weekdays = set(range(7)) if week == "*" else {int(week)}

    def runs(at: datetime.datetime) -> bool:
        by_month, by_week = at.day in days, at.isoweekday() % 7 in weekdays
        on_day = (by_month and by_week) if "*" in (day, week) else (by_month or by_week)
        return on_day and at.hour in wanted_hours and at.minute == minute

    end = NOW + datetime.timedelta(days=10)
    expected = [at for at in (NOW + datetime.timedelta(minutes=m) for m in range(1, 14_401)) if runs(at)]
    found = list(itertools.takewhile(lambda at: at <= end, schedule.upcoming(NOW, len(expected) + 1)))
    assert found == expected
