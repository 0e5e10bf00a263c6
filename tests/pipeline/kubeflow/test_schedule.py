"""Schedules: one a name, replaced without a missed time and without a double, whatever call is killed where.

The scheduler of the small Kubeflow does what the real one does, on a clock of the test's; the requests are real.
"""

from __future__ import annotations

import datetime

import kfp_server_api
import pytest

from evergreen.errors import BadInput
from pipeline.kubeflow import cron
from pipeline.kubeflow.api import Access, ServerFault, connect, find_endpoint
from pipeline.kubeflow.client import Version
from pipeline.kubeflow.schedule import Plan, list_schedules, schedule, unschedule
from tests.pipeline.kubeflow.server import Fault, KubeflowServer, VirtualClock

HOUR = 3600


@pytest.fixture
def server():
    # The scheduler looks at 13 and 43 seconds past the minute: a run starts some time after it is due.
    with KubeflowServer(VirtualClock("2026-11-21T09:02:13+00:00")) as running:
        yield running


@pytest.fixture
def api(server):
    return connect(find_endpoint(Access(endpoint=server.url), environ={}), clock=server.clock)


def plan(expression="0 */10 * * * *", *, version="v1", **changes):
    what = Version(pipeline_id="p", version_id=version, pipeline="humidity", name=version, link="", new=True)
    when = {} if "interval_seconds" in changes else {"cron": cron.parse(expression)}
    return Plan(name="daily", version=what, experiment_name="humidity", **when, **changes)


def only(server):
    (item,) = server.recurring()
    return item


class Killed(BaseException):
    """The client's process ends here."""


@pytest.fixture
def kill(monkeypatch):
    """Returns a function that kills the client before or after its n-th request that changes something."""
    request = kfp_server_api.rest.RESTClientObject.request

    def arm(number, *, after):
        left = [number]

        def dying(self, method, *arguments, **options):
            if method != "GET":
                left[0] -= 1
                if left[0] == 0 and not after:
                    raise Killed
            answer = request(self, method, *arguments, **options)
            if method != "GET" and left[0] == 0:
                raise Killed
            return answer

        monkeypatch.setattr(kfp_server_api.rest.RESTClientObject, "request", dying)

    def disarm():
        monkeypatch.setattr(kfp_server_api.rest.RESTClientObject, "request", request)

    arm.disarm = disarm
    return arm


def test_a_schedule_is_made_as_asked_for_and_runs(server, api):
    outcome = schedule(
        api,
        plan(
            "0 12 * * *",
            parameters={"push": False},
            max_concurrency=2,
            catch_up=True,
            service_account="runner",
            pipeline_root="s3://b/r",
        ),
    )
    made = only(server)
    assert outcome.changed
    assert outcome.recurring_run_id == made["recurring_run_id"]
    assert made["display_name"] == "daily"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 12 * * *"}}
    assert (made["max_concurrency"], made["no_catchup"], made["status"]) == ("2", False, "ENABLED")
    assert made["service_account"] == "runner"
    assert made["runtime_config"] == {"parameters": {"push": False}, "pipeline_root": "s3://b/r"}
    assert made["pipeline_version_reference"] == {"pipeline_id": "p", "pipeline_version_id": "v1"}
    server.clock.advance(4 * HOUR)
    assert server.ran_at() == ["12:00:00"]


def test_the_same_again_changes_nothing(server, api):
    first = schedule(api, plan())
    before = list(server.changes())
    again = schedule(api, plan())
    assert (again.changed, again.recurring_run_id) == (False, first.recurring_run_id)
    assert server.changes() == before


def test_a_paused_schedule_goes_on(server, api):
    first = schedule(api, plan())
    api.recurring.disable_recurring_run(first.recurring_run_id)
    again = schedule(api, plan())
    assert (again.changed, again.recurring_run_id) == (True, first.recurring_run_id)
    assert only(server)["status"] == "ENABLED"


@pytest.mark.parametrize(
    "change",
    [
        {"version": "v2"},
        {"expression": "0 */5 * * * *"},
        {"parameters": {"push": False}},
        {"max_concurrency": 3},
        {"catch_up": True},
        {"service_account": "other"},
        {"pipeline_root": "s3://other"},
        {"interval_seconds": 600},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_change_replaces_and_one_remains(server, api, change):
    first = schedule(api, plan())
    second = schedule(api, plan(**change))
    assert second.removed == [first.recurring_run_id]
    assert only(server)["recurring_run_id"] == second.recurring_run_id
    assert only(server)["status"] == "ENABLED"


def test_other_names_are_left_alone(server, api):
    schedule(api, plan())
    other = Plan(name="weekly", version=plan().version, experiment_name="humidity", cron=cron.parse("@weekly"))
    schedule(api, other)
    schedule(api, plan(version="v2"))
    assert sorted(item["display_name"] for item in server.recurring()) == ["daily", "weekly"]
    unschedule(api, "daily")
    assert only(server)["display_name"] == "weekly"


# --- no gap, no double -----------------------------------------------------------------------------------------------

TICKS = ["09:10:00", "09:20:00", "09:30:00", "09:40:00", "09:50:00"]
AN_HOUR = datetime.datetime(2026, 11, 21, 9, 55, tzinfo=datetime.timezone.utc)


def to_the_end(server):
    server.clock.advance((AN_HOUR - server.clock.moment).total_seconds())


@pytest.mark.parametrize("seconds", [*range(430, 540, 3)])
def test_replaced_at_any_moment_around_a_time(server, api, seconds):
    """The schedule is due at 09:10:00, which is after 467 seconds."""
    schedule(api, plan())
    server.clock.advance(seconds)
    schedule(api, plan(version="v2"))
    to_the_end(server)
    assert server.ran_at() == TICKS
    assert server.enabled_at_once == 1


@pytest.mark.parametrize("catch_up", [False, True])
@pytest.mark.parametrize("latency", [9.0, 17.0, 31.0])
@pytest.mark.parametrize("seconds", [*range(280, 460, 12)])
def test_replaced_by_a_slow_server_while_a_time_passes(server, api, seconds, latency, catch_up):
    schedule(api, plan(catch_up=catch_up))
    server.clock.advance(seconds)
    server.latency = latency
    schedule(api, plan(version="v2", catch_up=catch_up))
    server.latency = 0.0
    to_the_end(server)
    assert server.ran_at() == TICKS
    assert server.enabled_at_once == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("pause", [1, 600], ids=["at once", "ten minutes later"])
@pytest.mark.parametrize("second_try", ["v2", "v3"])
def test_killed_anywhere_the_next_call_repairs(server, api, kill, number, after, pause, second_try):
    """A replacement makes four changes: create the new, disable the old, enable the new, delete the old."""
    schedule(api, plan())
    server.clock.advance(240)
    kill(number, after=after)
    with pytest.raises(Killed):
        schedule(api, plan(version="v2"))
    kill.disarm()
    assert len([item for item in server.recurring() if item["status"] == "ENABLED"]) <= 1
    server.clock.advance(pause)
    schedule(api, plan(version=second_try))
    made = only(server)
    assert made["status"] == "ENABLED"
    assert made["pipeline_version_reference"]["pipeline_version_id"] == second_try
    to_the_end(server)
    assert server.ran_at() == TICKS
    assert server.enabled_at_once == 1


def test_killed_again_and_again(server, api, kill):
    schedule(api, plan())
    server.clock.advance(100)
    for number, version in [(3, "v2"), (2, "v3"), (1, "v2"), (3, "v4"), (2, "v1")]:
        kill(number, after=True)
        with pytest.raises(Killed):
            schedule(api, plan(version=version))
        kill.disarm()
        server.clock.advance(60)
    schedule(api, plan(version="v5"))
    assert only(server)["pipeline_version_reference"]["pipeline_version_id"] == "v5"
    to_the_end(server)
    assert server.ran_at() == TICKS
    assert server.enabled_at_once == 1


def test_killed_while_drafting_and_again_much_later(server, api, kill):
    """The first draft's start time is older than runs that the old schedule started since."""
    schedule(api, plan(catch_up=True))
    server.clock.advance(100)
    for number, version in [(1, "v2"), (2, "v3")]:
        kill(number, after=True)
        with pytest.raises(Killed):
            schedule(api, plan(version=version, catch_up=True))
        kill.disarm()
        server.clock.advance(1000)
    schedule(api, plan(version="v4", catch_up=True))
    assert only(server)["pipeline_version_reference"]["pipeline_version_id"] == "v4"
    to_the_end(server)
    # What came due while all were off runs too.
    assert server.ran_at() == TICKS
    assert server.enabled_at_once == 1


def test_an_earlier_draft_is_not_taken_for_the_one_whose_answer_was_lost(server, api, kill):
    schedule(api, plan())
    kill(1, after=True)
    with pytest.raises(Killed):
        schedule(api, plan(version="v2"))
    kill.disarm()
    server.clock.advance(1000)
    server.faults = [Fault("POST /recurringruns")]
    schedule(api, plan(version="v2"))
    to_the_end(server)
    assert server.ran_at() == TICKS


@pytest.mark.parametrize("lost", ["POST /recurringruns", "POST /recurringruns/", "DELETE"])
def test_a_lost_answer_makes_no_second_schedule(server, api, lost):
    schedule(api, plan())
    server.clock.advance(120)
    server.faults = [Fault(lost, after=True)]
    schedule(api, plan(version="v2"))
    assert only(server)["status"] == "ENABLED"
    to_the_end(server)
    assert server.ran_at() == TICKS


def test_a_refused_replacement_leaves_the_old_at_work(server, api):
    first = schedule(api, plan())
    server.faults = [Fault("POST /recurringruns", status=400, body=b'{"message": "bad parameter"}')]
    with pytest.raises(BadInput, match="bad parameter"):
        schedule(api, plan(version="v2"))
    assert only(server)["recurring_run_id"] == first.recurring_run_id
    assert only(server)["status"] == "ENABLED"


def test_a_server_that_fails_in_the_middle_is_made_good_by_the_next_call(server, api):
    schedule(api, plan())
    server.clock.advance(100)
    server.faults = [Fault("POST /recurringruns/", times=-1, status=503)]
    with pytest.raises(ServerFault):
        schedule(api, plan(version="v2"))
    server.faults = []
    server.clock.advance(500)
    schedule(api, plan(version="v2"))
    assert only(server)["pipeline_version_reference"]["pipeline_version_id"] == "v2"
    to_the_end(server)
    assert server.ran_at() == TICKS
    assert server.enabled_at_once == 1


def test_doubles_that_something_else_made_are_ended(server, api):
    for _ in range(2):
        api.recurring.create_recurring_run(
            kfp_server_api.V2beta1RecurringRun(
                display_name="daily",
                mode="ENABLE",
                experiment_id="e",
                max_concurrency="1",
                trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron="@daily")),
            )
        )
    outcome = schedule(api, plan())
    assert len(outcome.removed) == 2
    assert only(server)["recurring_run_id"] == outcome.recurring_run_id


# --- runs under way --------------------------------------------------------------------------------------------------


def test_runs_under_way_are_waited_for_and_not_killed(server, api):
    server.run_seconds = 200
    schedule(api, plan())
    server.clock.advance(500)
    said = []
    schedule(api, plan(version="v2"), say=said.append)
    assert len(said) == 1
    assert "under way" in said[0]
    assert server.killed == []
    assert only(server)["pipeline_version_reference"]["pipeline_version_id"] == "v2"
    to_the_end(server)
    assert server.ran_at() == TICKS


def test_runs_that_take_too_long_are_left_and_the_next_call_tidies_up(server, api):
    server.run_seconds = 3000
    first = schedule(api, plan())
    server.clock.advance(600)
    outcome = schedule(api, plan(version="v2"), drain_seconds=60)
    assert outcome.retired == [first.recurring_run_id]
    assert sorted(item["status"] for item in server.recurring()) == ["DISABLED", "ENABLED"]
    server.run_seconds = 0
    server.clock.advance(3000)
    assert schedule(api, plan(version="v2")).removed == [first.recurring_run_id]
    assert only(server)["recurring_run_id"] == outcome.recurring_run_id
    assert server.killed == []
    assert server.enabled_at_once == 1


def test_unschedule_stops_at_once_and_kills_nothing(server, api):
    server.run_seconds = 900
    schedule(api, plan())
    server.clock.advance(600)
    unschedule(api, "daily")
    assert server.recurring() == []
    assert server.killed == []
    assert server.ran_at() == ["09:10:00"]


def test_unschedule_of_what_is_not_there_names_what_is(api):
    schedule(api, plan())
    with pytest.raises(BadInput, match="one of daily"):
        unschedule(api, "dayly")


# --- intervals -------------------------------------------------------------------------------------------------------


def test_an_interval_that_is_replaced_often_still_comes_to_its_time(server, api):
    schedule(api, plan(interval_seconds=HOUR))
    for version in range(9):
        server.clock.advance(1000)
        schedule(api, plan(version=f"w{version}", interval_seconds=HOUR))
    assert server.ran_at() == ["10:02:13", "11:02:13"]


def test_a_shorter_interval_does_not_catch_up_with_times_that_never_were(server, api):
    schedule(api, plan(interval_seconds=24 * HOUR, catch_up=True))
    server.clock.advance(10 * HOUR)
    schedule(api, plan(interval_seconds=600, catch_up=True))
    server.clock.advance(30)
    assert len(server.ran_at()) <= 1
    server.clock.advance(HOUR)
    assert 6 <= len(server.ran_at()) <= 7


# --- bad plans -------------------------------------------------------------------------------------------------------


def test_every_mistake_of_a_plan_is_told_before_anything_is_asked(server, api):
    before = len(server.requests)
    bad = Plan(name="daily", version=plan().version, experiment_name="e", max_concurrency=11)
    with pytest.raises(BadInput) as caught:
        schedule(api, bad)
    assert [problem.where for problem in caught.value.problems] == ["--cron, --interval", "--max-concurrency"]
    assert len(server.requests) == before


def test_many_schedules_are_listed_page_by_page():
    with KubeflowServer(VirtualClock(), page=2) as server:
        api = connect(find_endpoint(Access(endpoint=server.url), environ={}), clock=server.clock)
        for number in range(5):
            what = Plan(name=f"s{number}", version=plan().version, experiment_name="e", cron=cron.parse("0 6 * * *"))
            schedule(api, what)
        assert [item.name for item in list_schedules(api)] == [f"s{n}" for n in range(5)]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("request_number", range(1, 7))
def test_two_calls_at_once_leave_one_schedule_wherever_they_cross(server, api, monkeypatch, there, request_number):
    if there:
        schedule(api, plan())
    request = kfp_server_api.rest.RESTClientObject.request
    left = [request_number]

    def crossing(self, method, *arguments, **options):
        if method != "GET":
            left[0] -= 1
            if left[0] == 0:
                # The other person's whole call takes place before this request.
                schedule(api, plan("0 0 8 * * *"))
        return request(self, method, *arguments, **options)

    monkeypatch.setattr(kfp_server_api.rest.RESTClientObject, "request", crossing)
    schedule(api, plan("0 0 7 * * *"))
    assert only(server)["status"] == "ENABLED"
    assert only(server)["trigger"]["cron_schedule"]["cron"] in ("0 0 7 * * *", "0 0 8 * * *")
