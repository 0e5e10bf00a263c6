"""The exit step: runs after every run, however it ended, and tells people the outcome, the failed node and the reason.

Kubeflow Pipelines hands an exit step neither the failed node nor the reason. Both come from the notes that the failing
node left beside the registry; for a node that could leave none (killed, out of memory, no image) from Kubeflow's API.

    python -m components.entrypoint.notify --status '{"state": "FAILED"}' --run_id ... --webhook_env NOTIFY_WEBHOOK
"""

from __future__ import annotations

import argparse
import dataclasses
import email.message
import json
import logging
import os
import smtplib
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from components.entrypoint import logs, notes
from evergreen.errors import ExitCode

_log = logging.getLogger("evergreen.notify")

_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - where Kubeflow mounts a projected token
_TIMEOUT = 15.0
"""Seconds for one answer of a server."""
_LONGEST_REASON = 1500
"""Characters of a reason; what is longer is in the log."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A node that failed, and why."""

    node: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    pipeline: str
    run_id: str
    run_name: str
    succeeded: bool
    failures: Sequence[Failure] = ()
    link: str = ""
    """The run in Kubeflow's pages, where outputs and logs lie."""
    outputs: str = ""
    """The folder of the run's outputs."""

    def headline(self) -> str:
        """Returns the outcome in one line."""
        how = "succeeded" if self.succeeded else "FAILED"
        where = f" at {', '.join(failure.node for failure in self.failures)}" if self.failures else ""
        return f"{self.pipeline}: run {self.run_name or self.run_id} {how}{where}"

    def text(self) -> str:
        """Returns the whole message."""
        lines = [self.headline()]
        lines.extend(f"{failure.node}: {failure.reason}" for failure in self.failures)
        lines.append(f"Run: {self.link or self.run_id}")
        if self.outputs:
            lines.append(f"Outputs: {self.outputs}")
        return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Tells the outcome of a run.

    Args:
        arguments: the container's arguments.

    Returns:
        0 when everybody who is to be told was told, or there was nobody to tell; else 1.
    """
    options = _parser().parse_args(arguments)
    logs.configure({"task": "notify", "run": options.run_id})
    left = notes.Notes(options.notes, options.run_id) if options.notes else None
    outcome = _outcome(options, left)
    _log.info("%s", outcome.text())
    told = _tell(outcome, options)
    if told and left and left.all():
        left.clear()
    return int(ExitCode.OK if told else ExitCode.FAULT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m components.entrypoint.notify", allow_abbrev=False)
    parser.add_argument("--status", required=True, help="the final status that Kubeflow gives, JSON")
    parser.add_argument("--pipeline", required=True, help="the pipeline's name")
    parser.add_argument("--run_id", required=True, help="the run's id")
    parser.add_argument("--run_name", default="", help="the run's name")
    parser.add_argument("--nodes", default="", help="the nodes' ids, with commas between")
    parser.add_argument("--notes", default="", help="where the nodes leave their notes")
    parser.add_argument("--api", default="", help="Kubeflow Pipelines' API inside the cluster")
    parser.add_argument("--page", default="", help="Kubeflow's pages, for the link to the run")
    parser.add_argument("--outputs", default="", help="the root of the runs' outputs")
    parser.add_argument("--on", choices=("always", "failure"), default="always", help="which runs are told of")
    parser.add_argument("--webhook_env", default="", help="the variable that holds the webhook's URL")
    parser.add_argument("--smtp", default="", help="host:port of the mail server")
    parser.add_argument("--mail_from", default="", help="the sender")
    parser.add_argument("--mail_to", default="", help="the receivers, with commas between")
    parser.add_argument("--smtp_user_env", default="", help="the variable that holds the user")
    parser.add_argument("--smtp_password_env", default="", help="the variable that holds the password")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds before the second attempt to tell somebody")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for the API to know of a failure")
    return parser


# --- what happened ---------------------------------------------------------------------------------------------------


def _outcome(options: argparse.Namespace, left: notes.Notes | None) -> Outcome:
    succeeded = _state(options.status) in ("COMPLETE", "SUCCEEDED", "CACHED")
    failures = [] if succeeded else _failures(options, left)
    page = options.page.rstrip("/")
    outputs = options.outputs.rstrip("/")
    return Outcome(
        pipeline=options.pipeline,
        run_id=options.run_id,
        run_name=options.run_name,
        succeeded=succeeded,
        failures=failures,
        link=f"{page}/#/runs/details/{options.run_id}" if page else "",
        outputs=f"{outputs}/{options.pipeline}/{options.run_id}" if outputs else "",
    )


def _state(status: str) -> str:
    try:
        return str(json.loads(status).get("state", ""))
    except (ValueError, AttributeError):
        return status


def _failures(options: argparse.Namespace, left: notes.Notes | None) -> list[Failure]:
    found = left.all() if left else []
    ended = [note for note in found if note.exit_code is not None]
    if ended:
        return [Failure(node=note.task, reason=_reason(note)) for note in ended]
    nodes = [node for node in options.nodes.split(",") if node]
    if options.api and (known := failures_in_api(options.api, options.run_id, nodes=nodes, patience=options.patience)):
        return known
    # When the exit step runs no node is at work any more: what began and never ended was killed.
    return [Failure(node=note.task, reason="its last attempt was killed: see its pod's events") for note in found]


def _reason(note: notes.Note) -> str:
    told = [f"{p['where']}: found {p['found']}; expected {p['expected']}. {p['action']}" for p in note.problems]
    reason = ("\n".join(told) or note.fault or "without a word")[:_LONGEST_REASON]
    return f"{reason}\nIts report: {note.kept}" if note.kept else reason


def failures_in_api(api: str, run_id: str, *, nodes: Sequence[str], patience: float) -> list[Failure]:
    """Returns the failed nodes that Kubeflow Pipelines knows of.

    Args:
        api: the root of its API.
        run_id: the run.
        nodes: the ids of the pipeline's nodes; Kubeflow's tasks for drivers and sub-DAGs are none.
        patience: seconds to ask again, for the API learns of a failure a little later than the exit step.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            found = list(_failed(_get(f"{api.rstrip('/')}/apis/v2beta1/runs/{run_id}"), nodes))
        except (OSError, ValueError) as error:
            _log.warning("Kubeflow's API does not answer: %s", error)
            found = []
        if found or time.monotonic() >= deadline:
            return found
        time.sleep(2.0)


def _failed(run: dict[str, Any], nodes: Sequence[str]) -> Iterable[Failure]:
    for task in run.get("run_details", {}).get("task_details", []):
        name = task.get("display_name", "")
        if task.get("state") in ("FAILED", "ERROR") and name in nodes:
            message = (task.get("error") or {}).get("message", "")
            yield Failure(node=name, reason=message or "its container ended without a word: see its log and events")


def _get(url: str) -> dict[str, Any]:
    request = urllib.request.Request(url)  # noqa: S310 - the cluster's own API, http or https
    if os.path.exists(_TOKEN):
        with open(_TOKEN, encoding="utf-8") as file:
            request.add_header("Authorization", f"Bearer {file.read().strip()}")
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - as above
        document = json.load(answer)
    return dict(document)


# --- telling ---------------------------------------------------------------------------------------------------------


def _tell(outcome: Outcome, options: argparse.Namespace) -> bool:
    if outcome.succeeded and options.on == "failure":
        return True
    ways: list[tuple[str, Callable[[], None]]] = []
    if options.webhook_env:
        ways.append(("webhook", lambda: post(os.environ[options.webhook_env], outcome)))
    if options.smtp:
        ways.append(("mail", lambda: _mail(outcome, options)))
    told = [_tried(name, way, pause=options.pause) for name, way in ways]
    return all(told)


def _tried(name: str, way: Callable[[], None], *, pause: float, attempts: int = 3) -> bool:
    for attempt in range(attempts):
        try:
            way()
        except (OSError, KeyError, ValueError, smtplib.SMTPException) as error:
            # The URL of a webhook is a secret: the type tells enough where the message might repeat it.
            told = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else type(error).__name__
            _log.warning("%s: %s", name, told)
            if attempt + 1 < attempts:
                time.sleep(pause * 2.0**attempt)
        else:
            _log.info("told by %s", name)
            return True
    _log.error("Nobody was told by %s.", name)
    return False


def post(url: str, outcome: Outcome) -> None:
    """Sends the outcome to a webhook, in the form that Slack's incoming webhooks take."""
    fields = [
        {"title": "Outcome", "value": "SUCCEEDED" if outcome.succeeded else "FAILED", "short": True},
        {"title": "Run", "value": outcome.run_id, "short": True},
    ]
    for failure in outcome.failures:
        fields.append({"title": "Failed node", "value": failure.node, "short": True})
        fields.append({"title": "Reason", "value": failure.reason, "short": False})
    color = "good" if outcome.succeeded else "danger"
    body = {"text": outcome.text(), "attachments": [{"color": color, "fields": fields}]}
    request = urllib.request.Request(  # noqa: S310 - the URL is the user's own
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310 - as above
        pass


def _mail(outcome: Outcome, options: argparse.Namespace) -> None:
    message = email.message.EmailMessage()
    message["Subject"] = outcome.headline()
    message["From"] = options.mail_from
    message["To"] = ", ".join(options.mail_to.split(","))
    message.set_content(outcome.text())
    host, _, port = options.smtp.partition(":")
    with smtplib.SMTP(host, int(port or 25), timeout=_TIMEOUT) as server:
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls()
            server.ehlo()
        if options.smtp_user_env:
            server.login(os.environ[options.smtp_user_env], os.environ[options.smtp_password_env])
        server.send_message(message)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
