"""Recurring runs on Kubeflow: one enabled schedule a name, replaced without a missed time and without a double.

    plan = Plan(name="humidity-daily", version=version, cron=parse("0 6 * * *"), ...)
    outcome = schedule(api, plan)
    unschedule(api, "humidity-daily")

Kubeflow cannot change a recurring run, and two things make a naive "delete and create" lose or repeat work: deleting a
recurring run kills the runs that it started (they are owned by it), and a new one counts from the moment it was made.
So a replacement

1. waits, with the old one at work, until none of its runs is under way and no scheduled time is near;
2. creates the new one disabled, its `start_time` the moment of the handover: it answers for every time after that;
3. disables the old one; 4. enables the new one; 5. deletes the old one.

At no point are two of them enabled, so nothing runs twice. A call that is killed leaves one of: the old at work (and a
disabled draft, which the next call deletes), both disabled (the next call enables the draft, or a new one with the
draft's start time, and what was due meanwhile runs then), or the new at work (the next call deletes the old).
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evergreen.errors import BadInput, Problem
from pipeline.kubeflow import cron as cron_module
from pipeline.kubeflow.api import Api, NotFound
from pipeline.kubeflow.client import FINAL, Version, equals, experiment, pages

SETTLE = datetime.timedelta(seconds=45)
"""After a scheduled time the scheduler may take this long to start the run: it looks every 30 seconds."""
LEAD = datetime.timedelta(seconds=5)
"""A handover this short before a scheduled time might not be over in time."""
_POLL_SECONDS = 10.0
_MARK = "evergreen"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to run and when."""

    name: str
    """The schedule's name: one schedule bears it."""
    version: Version
    experiment_name: str
    cron: cron_module.Cron | None = None
    interval_seconds: int | None = None
    """Either this or `cron`."""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_concurrency: int = 1
    """How many of its runs may be under way at once, 1 to 10."""
    catch_up: bool = False
    """Whether every time that was missed gets its run; otherwise the latest one does."""
    service_account: str | None = None
    pipeline_root: str | None = None

    def check(self) -> None:
        """Looks at what types cannot say.

        Raises:
            BadInput: with every problem.
        """
        problems: list[Problem] = []
        if (self.cron is None) == (self.interval_seconds is None):
            problems.append(
                Problem(
                    where="--cron, --interval",
                    found="both" if self.cron else "neither",
                    expected="one of them",
                    action='Give for example --cron "0 6 * * *" or --interval 6h.',
                )
            )
        if self.interval_seconds is not None and self.interval_seconds < 1:
            problems.append(
                Problem(
                    where="--interval",
                    found=f"{self.interval_seconds} s",
                    expected="at least one second",
                    action="Correct the interval.",
                )
            )
        if not 1 <= self.max_concurrency <= 10:
            problems.append(
                Problem(
                    where="--max-concurrency",
                    found=str(self.max_concurrency),
                    expected="1 to 10, Kubeflow's limits",
                    action="Correct the number.",
                )
            )
        if problems:
            raise BadInput(problems)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call of `schedule` or `unschedule` did."""

    recurring_run_id: str | None
    """The one that is at work now; none after `unschedule`."""
    changed: bool
    """Whether anything had to be done."""
    removed: Sequence[str] = ()
    """Ids of the recurring runs that are gone."""
    retired: Sequence[str] = ()
    """Ids of those that are disabled and still there, for deleting them would kill their runs under way."""
    link: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A schedule as Kubeflow has it."""

    recurring_run_id: str
    name: str
    enabled: bool
    cron: str | None
    interval_seconds: int | None
    start_time: datetime.datetime | None
    created_at: datetime.datetime | None
    max_concurrency: int
    catch_up: bool
    fingerprint: str | None
    """What `schedule` wrote into its description; none where something else made it."""
    replaces: frozenset[str]
    """Ids of those that it was made to replace."""

    def next_after(self, moment: datetime.datetime, last: datetime.datetime | None) -> datetime.datetime | None:
        """Returns its first time after `moment`.

        Args:
            moment: a time with a time zone.
            last: the scheduled time of its latest run, from which an interval counts.
        """
        if self.cron is not None:
            try:
                return cron_module.parse(self.cron).next_after(max(filter(None, (moment, self.start_time))))
            except BadInput:
                return None
        if not self.interval_seconds:
            return None
        base = last or self.start_time or self.created_at or moment
        step = datetime.timedelta(seconds=self.interval_seconds)
        missed = max(0, (moment - base) // step)
        return base + (missed + 1) * step


def schedule(
    api: Api,
    plan: Plan,
    *,
    drain_seconds: float = 3600.0,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Makes `plan` the one schedule of its name, whatever is there now.

    Args:
        api: the way to Kubeflow.
        plan: what is to run and when.
        drain_seconds: how long to wait for runs of the old schedule that are under way. When that is over the old one
            is disabled and left, for deleting it would kill them; the next call deletes it.
        say: is told what is waited for.

    Returns:
        What was done; `changed` is false where the very same schedule was at work already.

    Raises:
        BadInput: when the plan is wrong or Kubeflow refuses it; what was at work still is.
    """
    plan.check()
    experiment_id = experiment(api, plan.experiment_name)
    wanted = _fingerprint(plan, experiment_id)
    there = find(api, plan.name)
    kept = _same(api, there, wanted)
    if kept is not None:
        return _keep(api, kept, there, drain_seconds=drain_seconds, say=say)
    handover = _unfinished_handover(api, there)
    if handover is None:
        _wait_for_quiet(api, there, drain_seconds=drain_seconds, say=say)
    try:
        new_id = _replace(api, plan, there, wanted=wanted, experiment_id=experiment_id, handover=handover)
    except NotFound:
        # Another call that began later has deleted what this one was about to enable.
        return _superseded(api, plan.name)
    return _settled(api, plan.name, new_id, there, changed=True, drain_seconds=0, say=say)


def unschedule(
    api: Api, name: str, *, drain_seconds: float = 3600.0, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Removes every schedule of that name: disables at once, deletes when their runs have ended.

    Args:
        api: the way to Kubeflow.
        name: the schedule's name.
        drain_seconds: how long to wait for runs that are under way.
        say: is told what is waited for.

    Raises:
        BadInput: when there is none, with the names that there are.
    """
    there = find(api, name)
    if not there:
        names = sorted({item.name for item in list_schedules(api)})
        raise BadInput(
            [
                Problem(
                    where="schedule",
                    found=f"none by the name {name!r}",
                    expected=f"one of {', '.join(names)}" if names else "a schedule; there is none",
                    action="Correct the name.",
                )
            ]
        )
    for item in there:
        _set_enabled(api, item, enabled=False)
    removed, retired = _retire(api, there, drain_seconds=drain_seconds, say=say)
    return Outcome(recurring_run_id=None, changed=True, removed=removed, retired=retired)


def find(api: Api, name: str) -> list[Scheduled]:
    """Returns the recurring runs of that name, in the order in which they were made."""
    return [item for item in list_schedules(api, name=name) if item.name == name]


def list_schedules(api: Api, *, name: str | None = None) -> list[Scheduled]:
    """Returns the recurring runs that Kubeflow has, in the order in which they were made.

    Args:
        api: the way to Kubeflow.
        name: only those of this name.
    """
    options: dict[str, Any] = {"namespace": api.namespace} if api.namespace else {}
    if name is not None:
        options["filter"] = equals("display_name", name)
    answers = pages(
        api,
        "list the schedules",
        api.recurring.list_recurring_runs,
        "recurring_runs",
        sort_by="created_at asc",
        **options,
    )
    return [_scheduled(answer) for answer in answers]


# --- the parts of a replacement --------------------------------------------------------------------------------------


def _same(api: Api, there: Sequence[Scheduled], wanted: str) -> Scheduled | None:
    """Returns the one that is what is wanted already, enabled or left behind by a call that was killed or by a pause.

    A draft beside another that is still enabled is not taken: that one has been at work since the draft was made, and
    the draft would run its times again. Nor is one whose predecessor ran after the draft's start time.
    """
    at_work = [item for item in there if item.enabled]
    for item in reversed([item for item in there if item.fingerprint == wanted]):
        if item.enabled:
            return item
        before = [_last_time(api, other) for other in there if other.recurring_run_id in item.replaces]
        ran_after = any(time and item.start_time and time > item.start_time for time in before)
        if not at_work and not ran_after:
            return item
    return None


def _keep(
    api: Api, kept: Scheduled, there: Sequence[Scheduled], *, drain_seconds: float, say: Callable[[str], None]
) -> Outcome:
    others = [item for item in there if item is not kept]
    for item in others:
        _set_enabled(api, item, enabled=False)
    _set_enabled(api, kept, enabled=True)
    return _settled(
        api,
        kept.name,
        kept.recurring_run_id,
        others,
        changed=not kept.enabled or bool(others),
        drain_seconds=drain_seconds,
        say=say,
    )


def _settled(
    api: Api,
    name: str,
    mine: str,
    old: Sequence[Scheduled],
    *,
    changed: bool,
    drain_seconds: float,
    say: Callable[[str], None],
) -> Outcome:
    """Sees to it that of two calls at once the one stays whose schedule was made last, and deletes the others.

    Whoever enables last finds the other enabled, and both judge alike; so no lock is needed, which a killed call would
    leave behind.
    """
    there = find(api, name)
    ranked = sorted(there, key=lambda item: (item.created_at or api.clock.now(), item.recurring_run_id))
    ids = [item.recurring_run_id for item in ranked]
    if mine not in ids:
        return _superseded(api, name)
    at = ids.index(mine)
    if any(item.enabled for item in ranked[at + 1 :]):
        _set_enabled(api, ranked[at], enabled=False)
        _retire(api, [ranked[at]], drain_seconds=0, say=say)
        return _superseded(api, name)
    gone = {item.recurring_run_id for item in old}
    others = [
        item for item in there if item.recurring_run_id != mine and (item.enabled or item.recurring_run_id in gone)
    ]
    for item in others:
        _set_enabled(api, item, enabled=False)
    removed, retired = _retire(api, others, drain_seconds=drain_seconds, say=say)
    return Outcome(recurring_run_id=mine, changed=changed, removed=removed, retired=retired, link=_link(api, mine))


def _superseded(api: Api, name: str) -> Outcome:
    """Returns what is there where another call, made a moment later, has replaced this one's schedule already."""
    now = [item.recurring_run_id for item in find(api, name) if item.enabled]
    return Outcome(recurring_run_id=now[-1] if now else None, changed=False, link=_link(api, now[-1]) if now else "")


def _unfinished_handover(api: Api, there: Sequence[Scheduled]) -> datetime.datetime | None:
    """Returns since when nothing is at work, where a call was killed between disabling the old and enabling the new."""
    if any(item.enabled for item in there):
        return None
    ids = {item.recurring_run_id for item in there}
    starts = [item.start_time for item in there if item.start_time is not None and item.replaces & ids]
    if not starts:
        return None
    # A draft of an earlier call may be older than runs that were started since.
    return max(filter(None, (min(starts), *(_last_time(api, item) for item in there))))


def _wait_for_quiet(api: Api, there: Sequence[Scheduled], *, drain_seconds: float, say: Callable[[str], None]) -> None:
    """Waits until no run of the schedules at work is under way and none of their times is near."""
    at_work = [item for item in there if item.enabled]
    deadline = api.clock.now() + datetime.timedelta(seconds=drain_seconds)
    said: str | None = None
    while True:
        reason = next(filter(None, (_due(api, item) for item in at_work)), None)
        if reason is None and api.clock.now() < deadline:
            reason = next(filter(None, (_busy(api, item) for item in at_work)), None)
        if reason is None:
            return
        if reason != said:
            say(f"Waiting: {reason}.")
            said = reason
        api.clock.sleep(_POLL_SECONDS)


def _busy(api: Api, item: Scheduled) -> str | None:
    """Says which run of a schedule is under way, if one is."""
    under_way = _runs_under_way(api, item)
    return f"run {under_way[0]} of the old schedule is under way" if under_way else None


def _due(api: Api, item: Scheduled) -> str | None:
    """Says which time of a schedule is too near to replace it, if one is."""
    last = _last_time(api, item)
    now = api.clock.now()
    near = item.next_after(now - SETTLE, last)
    if near is not None and last is not None and last >= near:
        # Its run has been started.
        near = item.next_after(max(near, last), last)
    if near is None or near > now + LEAD:
        return None
    following = item.next_after(near, last)
    if following is not None and following - near <= SETTLE + LEAD:
        # Times follow each other so closely that there is no better moment.
        return None
    return f"the old schedule is due at {near:%H:%M:%S} UTC"


def _replace(
    api: Api,
    plan: Plan,
    there: Sequence[Scheduled],
    *,
    wanted: str,
    experiment_id: str,
    handover: datetime.datetime | None,
) -> str:
    """Creates the new schedule, disables those that are there, and enables the new one; returns its id."""
    at_work = [item for item in there if item.enabled]
    if not there:
        return _create(api, plan, wanted=wanted, experiment_id=experiment_id, start=None, replaces=(), enabled=True)
    start = handover or _start(api, plan, at_work)
    began = api.clock.now()
    new_id = _create(api, plan, wanted=wanted, experiment_id=experiment_id, start=start, replaces=there, enabled=False)
    for item in at_work:
        _set_enabled(api, item, enabled=False)
    ran = _ran_meanwhile(api, at_work, since=began)
    if ran is not None:
        draft = new_id
        new_id = _create(
            api, plan, wanted=wanted, experiment_id=experiment_id, start=ran, replaces=there, enabled=False
        )
        api.delete("delete a draft", api.recurring.delete_recurring_run, draft)
    api.ask("enable the new schedule", api.recurring.enable_recurring_run, new_id)
    return new_id


def _ran_meanwhile(api: Api, items: Sequence[Scheduled], *, since: datetime.datetime) -> datetime.datetime | None:
    """Returns the latest time that the old schedules ran while they were being disabled, in case Kubeflow was slow."""
    times = [time for item in items if item.cron and (time := item.next_after(since, None))]
    if not any(time <= api.clock.now() for time in times):
        return None
    # A run that was started just before shows up when the scheduler has reported it; all are disabled meanwhile.
    api.clock.sleep(SETTLE.total_seconds())
    return max((last for item in items if (last := _last_time(api, item)) and last > since), default=None)


def _start(api: Api, plan: Plan, at_work: Sequence[Scheduled]) -> datetime.datetime:
    """Returns the moment from which the new schedule answers.

    An interval that follows an interval goes on counting from the last run: replaced every day, a schedule of 24 hours
    would otherwise never come to its time. It is at the most one interval ago, so that a shorter interval does not
    catch up with times that never were.
    """
    now = api.clock.now()
    if plan.interval_seconds is None:
        return now
    lasts = [_last_time(api, item) or item.start_time for item in at_work if item.interval_seconds]
    last = max(filter(None, lasts), default=None)
    if last is None:
        last = max((item.created_at for item in at_work if item.interval_seconds and item.created_at), default=now)
    return max(last, now - datetime.timedelta(seconds=plan.interval_seconds))


def _retire(
    api: Api, items: Sequence[Scheduled], *, drain_seconds: float, say: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Deletes disabled schedules whose runs have ended; returns the ids of those deleted and of those left."""
    deadline = api.clock.now() + datetime.timedelta(seconds=drain_seconds)
    removed: list[str] = []
    left = list(items)
    said = False
    while left:
        for item in [item for item in left if not _runs_under_way(api, item)]:
            _delete(api, item)
            removed.append(item.recurring_run_id)
            left.remove(item)
        if not left or api.clock.now() >= deadline:
            break
        if not said:
            say("Waiting: runs of the old schedule are under way; deleting it would kill them.")
            said = True
        api.clock.sleep(_POLL_SECONDS)
    return removed, [item.recurring_run_id for item in left]


def _runs_under_way(api: Api, item: Scheduled) -> list[str]:
    """Returns the ids of the runs that it started and that have not ended."""
    return [str(run.run_id) for run in _runs_of(api, item) if str(run.state or "").upper() not in FINAL]


def _last_time(api: Api, item: Scheduled) -> datetime.datetime | None:
    """Returns the scheduled time of the latest run that it started."""
    return next((_time(run.scheduled_at) for run in _runs_of(api, item)), None)


def _runs_of(api: Api, item: Scheduled) -> list[Any]:
    """Returns the latest runs that it started, the newest first."""
    runs = pages(
        api,
        "look for the schedule's runs",
        api.runs.list_runs,
        "runs",
        sort_by="created_at desc",
        filter=equals("recurring_run_id", item.recurring_run_id),
        **_space(api),
    )
    # At most ten are under way at once; one that is older than two hundred others has been forgotten.
    return [run for run in itertools.islice(runs, 200) if run.recurring_run_id == item.recurring_run_id]


def _space(api: Api) -> dict[str, Any]:
    return {"namespace": api.namespace} if api.namespace else {}


# --- single requests -------------------------------------------------------------------------------------------------


def _create(
    api: Api,
    plan: Plan,
    *,
    wanted: str,
    experiment_id: str,
    start: datetime.datetime | None,
    replaces: Sequence[Scheduled],
    enabled: bool,
) -> str:
    import kfp_server_api

    # Kubeflow keeps whole seconds.
    start = start.replace(microsecond=0) if start else None
    if plan.cron is not None:
        trigger = kfp_server_api.V2beta1Trigger(
            cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=plan.cron.expression, start_time=start)
        )
    else:
        trigger = kfp_server_api.V2beta1Trigger(
            periodic_schedule=kfp_server_api.V2beta1PeriodicSchedule(
                interval_second=str(plan.interval_seconds), start_time=start
            )
        )
    ids = sorted(item.recurring_run_id for item in replaces)
    # Unlike the fingerprint it differs between two calls, so that a lost answer is told from an earlier call's draft.
    made = api.clock.now().isoformat()
    mark = {"by": _MARK, "fingerprint": wanted, "replaces": ids, "made": made}
    body = kfp_server_api.V2beta1RecurringRun(
        display_name=plan.name,
        description=json.dumps(mark),
        experiment_id=experiment_id,
        mode="ENABLE" if enabled else "DISABLE",
        trigger=trigger,
        max_concurrency=str(plan.max_concurrency),
        no_catchup=not plan.catch_up,
        namespace=api.namespace,
        service_account=plan.service_account,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=plan.version.pipeline_id, pipeline_version_id=plan.version.version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(
            parameters=dict(plan.parameters), pipeline_root=plan.pipeline_root
        ),
    )

    def existing() -> Any:
        answers = pages(
            api,
            "look for the schedule",
            api.recurring.list_recurring_runs,
            "recurring_runs",
            filter=equals("display_name", plan.name),
            **_space(api),
        )
        return next((answer for answer in answers if answer.description == body.description), None)

    answer = api.create(f"create schedule {plan.name}", api.recurring.create_recurring_run, body, existing=existing)
    return str(answer.recurring_run_id)


def _set_enabled(api: Api, item: Scheduled, *, enabled: bool) -> None:
    if item.enabled == enabled:
        return
    if enabled:
        api.ask(f"enable schedule {item.name}", api.recurring.enable_recurring_run, item.recurring_run_id)
        return
    try:
        api.ask(f"disable schedule {item.name}", api.recurring.disable_recurring_run, item.recurring_run_id)
    except NotFound:
        # Somebody deleted it meanwhile, which is as good.
        return


def _delete(api: Api, item: Scheduled) -> None:
    api.delete(f"delete schedule {item.name}", api.recurring.delete_recurring_run, item.recurring_run_id)


def _fingerprint(plan: Plan, experiment_id: str) -> str:
    """Returns a digest of all that makes two schedules the same."""
    content = {
        "experiment": experiment_id,
        "version": plan.version.version_id,
        "cron": plan.cron.expression if plan.cron else None,
        "interval": plan.interval_seconds,
        "parameters": dict(plan.parameters),
        "max_concurrency": plan.max_concurrency,
        "catch_up": plan.catch_up,
        "service_account": plan.service_account,
        "pipeline_root": plan.pipeline_root,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _scheduled(answer: Any) -> Scheduled:
    by_cron = answer.trigger.cron_schedule if answer.trigger else None
    by_interval = answer.trigger.periodic_schedule if answer.trigger else None
    mark = _mark(answer.description)
    trigger = by_cron or by_interval
    return Scheduled(
        recurring_run_id=answer.recurring_run_id,
        name=answer.display_name,
        # Some servers tell one, some the other, some both.
        enabled="ENABLE" in (answer.mode, (answer.status or "").removesuffix("D")),
        cron=by_cron.cron if by_cron else None,
        interval_seconds=int(by_interval.interval_second) if by_interval else None,
        start_time=_time(trigger.start_time) if trigger else None,
        created_at=_time(answer.created_at),
        max_concurrency=int(answer.max_concurrency or 1),
        catch_up=not answer.no_catchup,
        fingerprint=mark.get("fingerprint"),
        replaces=frozenset(mark.get("replaces", ())),
    )


def _mark(description: str | None) -> dict[str, Any]:
    try:
        mark = json.loads(description or "")
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) and mark.get("by") == _MARK else {}


def _time(value: Any) -> datetime.datetime | None:
    if not isinstance(value, datetime.datetime) or value.year <= 1970:
        return None
    return value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)


def _link(api: Api, recurring_run_id: str) -> str:
    return f"{api.endpoint.ui}/#/recurringrun/details/{recurring_run_id}"
