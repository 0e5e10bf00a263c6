"""A small Kubeflow Pipelines on loopback: its v2beta1 JSON API over real HTTP, its scheduler on a clock of the test's.

The scheduler does what Kubeflow's does (read in its source): it looks every 30 seconds, runs at most `max_concurrency`
at once, counts from the last run, else from `start_time`, else from when the schedule was made, and, where it is to
catch up, runs every time that was missed, else the latest one. Deleting a schedule kills the runs that it owns.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import threading
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

from pipeline.kubeflow import cron

UTC = datetime.timezone.utc
LOOK = datetime.timedelta(seconds=30)
PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"


class VirtualClock:
    """A clock that stands still until somebody waits."""

    def __init__(self, start: str = "2026-11-21T09:02:00+00:00") -> None:
        self.moment = datetime.datetime.fromisoformat(start)
        self.waits: list[float] = []
        self.on_advance: list[Any] = []

    def now(self) -> datetime.datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.moment += datetime.timedelta(seconds=seconds)
        for listener in self.on_advance:
            listener(self.moment)


@dataclasses.dataclass
class Fault:
    """What goes wrong with the next requests whose method and path begin so."""

    match: str
    times: int = 1
    status: int = 0
    """An answer with this status; 0 breaks the connection off."""
    after: bool = False
    """Whether the request is carried out first, so that only its answer is lost."""
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


class KubeflowServer:
    """The server; `with KubeflowServer(clock) as server` runs it at `server.url`."""

    def __init__(self, clock: VirtualClock, *, version: int = 2, multi_user: bool = False, page: int = 100) -> None:
        self.clock = clock
        self.version, self.multi_user, self.page = version, multi_user, page
        self.token: str | None = None
        self.latency = 0.0
        self.run_seconds = 0.0
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []
        self.tables: dict[str, dict[str, dict[str, Any]]] = {
            name: {} for name in ("pipelines", "versions", "experiments", "runs", "recurringruns")
        }
        self.killed: list[str] = []
        self.enabled_at_once = 0
        self.looked = clock.moment
        self.lock = threading.RLock()
        clock.on_advance.append(self.advance)

    def __enter__(self) -> KubeflowServer:
        handler = type("Handler", (_Handler,), {"server_state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def changes(self) -> list[str]:
        """Returns the requests that changed something."""
        return [line for line in self.requests if not line.startswith("GET")]

    def recurring(self) -> list[dict[str, Any]]:
        return list(self.tables["recurringruns"].values())

    def ran_at(self) -> list[str]:
        """Returns the scheduled times that schedules ran, as HH:MM:SS."""
        runs = [run for run in self.tables["runs"].values() if run.get("recurring_run_id")]
        return sorted(run["scheduled_at"][11:19] for run in runs)

    # --- the scheduler ---------------------------------------------------------------------------------------------

    def advance(self, moment: datetime.datetime) -> None:
        with self.lock:
            while self.looked + LOOK <= moment:
                self.looked += LOOK
                self._look(self.looked)

    def _look(self, now: datetime.datetime) -> None:
        for run in self.tables["runs"].values():
            ends = run.get("_ends")
            if run["state"] == "RUNNING" and ends and ends <= now:
                run.update(state="SUCCEEDED", finished_at=_stamp(ends))
        enabled = [item for item in self.recurring() if item["status"] == "ENABLED"]
        self.enabled_at_once = max(self.enabled_at_once, len(enabled))
        for item in enabled:
            while (due := self._due(item, now)) is not None:
                item["_last"] = due
                self._start(item, due, now)

    def _due(self, item: dict[str, Any], now: datetime.datetime) -> datetime.datetime | None:
        active = [
            run
            for run in self.tables["runs"].values()
            if run.get("recurring_run_id") == item["recurring_run_id"] and run["state"] == "RUNNING"
        ]
        if len(active) >= int(item["max_concurrency"]):
            return None
        by_cron, by_interval = item["trigger"].get("cron_schedule"), item["trigger"].get("periodic_schedule")
        start = _parsed((by_cron or by_interval).get("start_time"))
        base = item.get("_last") or start or _parsed(item["created_at"])
        if by_cron:
            schedule = cron.parse(by_cron["cron"])
            due = schedule.next_after(max(filter(None, (base, start))))
            while item["no_catchup"] and due and (later := schedule.next_after(due)) and later <= now:
                due = later
        else:
            step = datetime.timedelta(seconds=int(by_interval["interval_second"]))
            due = start if start and start > base else base + step
            if item["no_catchup"] and now >= due + step:
                due = now
        return due if due and due <= now else None

    def _start(self, item: dict[str, Any], due: datetime.datetime, now: datetime.datetime) -> None:
        identity = str(uuid.uuid4())
        self.tables["runs"][identity] = {
            "run_id": identity,
            "display_name": f"{item['display_name']}-{identity[:4]}",
            "experiment_id": item["experiment_id"],
            "recurring_run_id": item["recurring_run_id"],
            "state": "RUNNING" if self.run_seconds else "SUCCEEDED",
            "created_at": _stamp(now),
            "scheduled_at": _stamp(due),
            "finished_at": _stamp(now),
            "_ends": now + datetime.timedelta(seconds=self.run_seconds),
        }

    # --- the API ---------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, kind: str) -> tuple[int, Any]:
        with self.lock:
            if path == "/apis/v1beta1/healthz":
                return 200, {"commit_sha": "1.8.5", "multi_user": self.multi_user}
            if self.version < 2 or not path.startswith("/apis/v2beta1/"):
                return _error(404, "Not Found")
            parts = path.removeprefix("/apis/v2beta1/").split("/")
            if parts == ["healthz"]:
                return 200, {"multi_user": self.multi_user}
            if parts[-1] == "upload_version":
                return self._upload(query, body, kind)
            if len(parts) >= 3 and parts[2] == "versions":
                return self._versions(parts, query)
            return self._collection(method, parts, query, body)

    def _upload(self, query: dict[str, str], body: bytes, kind: str) -> tuple[int, Any]:
        boundary = kind.partition("boundary=")[2].encode()
        part = body.split(b"--" + boundary)[1]
        spec = next(yaml.safe_load_all(part.partition(b"\r\n\r\n")[2].rpartition(b"\r\n")[0]))
        versions = self.tables["versions"].values()
        if any(v["display_name"] == query["name"] and v["pipeline_id"] == query["pipelineid"] for v in versions):
            return _error(409, f"Already exist error: The name {query['name']} already exist.")
        identity = str(uuid.uuid4())
        self.tables["versions"][identity] = {
            "pipeline_version_id": identity,
            "pipeline_id": query["pipelineid"],
            "display_name": query["name"],
            "description": query.get("description", ""),
            "created_at": _stamp(self.clock.moment),
            "pipeline_spec": spec,
        }
        return 200, self.tables["versions"][identity]

    def _versions(self, parts: list[str], query: dict[str, str]) -> tuple[int, Any]:
        mine = [item for item in self.tables["versions"].values() if item["pipeline_id"] == parts[1]]
        if len(parts) == 3:
            return 200, self._listed("pipeline_versions", mine, query)
        found = next((item for item in mine if item["pipeline_version_id"] == parts[3]), None)
        return (200, found) if found else _error(404, "PipelineVersion not found")

    def _collection(self, method: str, parts: list[str], query: dict[str, str], body: bytes) -> tuple[int, Any]:
        name = parts[0]
        table = self.tables[name]
        if len(parts) == 1 and method == "GET":
            key = "recurringRuns" if name == "recurringruns" else name
            return 200, self._listed(key, list(table.values()), query)
        if len(parts) == 1:
            return self._create(name, json.loads(body))
        identity, _, verb = parts[1].partition(":")
        if identity not in table:
            return _error(404, f"ResourceNotFoundError: {name} {identity} not found.")
        if method == "DELETE":
            del table[identity]
            for run in self.tables["runs"].values():
                if run.get("recurring_run_id") == identity and run["state"] == "RUNNING":
                    self.killed.append(run["run_id"])
            return 200, {}
        if verb:
            table[identity].update(mode=verb.upper(), status=f"{verb.upper()}D")
            return 200, {}
        return 200, table[identity]

    def _listed(self, key: str, items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        first = 0
        if query.get("page_token"):
            # The real server compares order and filter with those in the token, not always with success.
            assert not query.get("sort_by")
            assert not query.get("filter")
            token = json.loads(query["page_token"])
            first = token.pop("first")
            query = {**query, **token}
        # The real server decodes the filter once more than HTTP does.
        wanted = json.loads(urllib.parse.unquote_plus(query.get("filter") or "{}"))
        for predicate in wanted.get("predicates", ()):
            assert predicate["operation"] == "EQUALS"
            items = [item for item in items if item.get(predicate["key"]) == predicate["stringValue"]]
        if query.get("experiment_id"):
            items = [item for item in items if item["experiment_id"] == query["experiment_id"]]
        if query.get("sort_by"):
            field, _, order = query["sort_by"].partition(" ")
            items = sorted(items, key=lambda item: item[field], reverse=order == "desc")
        size = min(self.page, int(query.get("page_size") or 10))
        rest = {"first": first + size, "sort_by": query.get("sort_by", ""), "filter": query.get("filter", "")}
        token = json.dumps(rest) if first + size < len(items) else ""
        return {key: items[first : first + size], "next_page_token": token, "total_size": len(items)}

    def _create(self, name: str, item: dict[str, Any]) -> tuple[int, Any]:
        table = self.tables[name]
        if name in ("pipelines", "experiments") and any(
            other["display_name"] == item["display_name"] for other in table.values()
        ):
            return _error(409, f"Already exist error: {item['display_name']} exists.")
        identity = str(uuid.uuid4())
        item = {**item, f"{name.rstrip('s').replace('recurringrun', 'recurring_run')}_id": identity}
        item["created_at"] = _stamp(self.clock.moment)
        if name == "runs":
            item.update(state="PENDING", scheduled_at=item["created_at"])
        if name == "recurringruns":
            item["status"] = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[item["mode"]]
            item.setdefault("no_catchup", False)
        table[identity] = item
        return 200, item


class _Handler(BaseHTTPRequestHandler):
    server_state: KubeflowServer
    protocol_version = "HTTP/1.1"
    # Head and body go out together; apart, each answer would wait 40 ms for the head to be acknowledged.
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        """Keeps quiet."""

    def _serve(self) -> None:
        state = self.server_state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path).removeprefix(PROXY)
        query = dict(urllib.parse.parse_qsl(parts.query))
        line = f"{self.command} {path.removeprefix('/apis/v2beta1')}"
        with state.lock:
            state.requests.append(line)
            state.authorizations.append(self.headers.get("Authorization"))
            fault = next((fault for fault in state.faults if line.startswith(fault.match)), None)
            if fault is not None:
                fault.times -= 1
                if not fault.times:
                    state.faults.remove(fault)
        if fault is None or fault.after:
            if state.token is not None and self.headers.get("Authorization") != f"Bearer {state.token}":
                status, document = _error(401, "Unauthenticated: the request has no valid identity")
            else:
                status, document = state.answer(self.command, path, query, body, self.headers.get("Content-Type", ""))
            if state.latency:
                state.clock.advance(state.latency)
        if fault is not None and not fault.status:
            self.close_connection = True
            return
        if fault is not None:
            self._send(fault.status, fault.body, fault.headers)
            return
        shown = json.dumps(document, default=str).encode()
        self._send(status, shown, {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _error(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": message, "code": status, "message": message, "details": []}


def _stamp(moment: datetime.datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
