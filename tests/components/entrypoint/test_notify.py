"""The exit step against real servers on the loopback interface."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import socket
import socketserver
import threading

import pytest

from components.entrypoint import notes, notify
from evergreen.errors import ExitCode

RUN = "0c2f4f3e-6c1e-4a5b-9d57-0d5f3c0f9a11"
FAILED = '{"error":{},"pipelineJobResourceName":"humidity-x7","pipelineTaskName":"tfx-dag","state":"FAILED"}'
COMPLETE = FAILED.replace("FAILED", "COMPLETE")
PROBLEM = {"where": "beta1", "found": "drift 0.7", "expected": "at most 0.3", "action": "Look at span 4."}


@pytest.fixture(autouse=True)
def _logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Server:
    """An HTTP server that keeps what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.posts: list[dict] = []
        self.statuses: list[int] = []
        self.document: dict = {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = server.statuses.pop(0) if server.statuses else 200
                if status == 200:
                    server.posts.append(body)
                self.send_response(status)
                self.end_headers()

            def do_GET(self):
                found = self.path == f"/apis/v2beta1/runs/{RUN}"
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(json.dumps(server.document).encode() if found else b"{}")

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server():
    started = Server()
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture
def left(tmp_path):
    return notes.Notes(str(tmp_path), RUN)


def run(tmp_path, monkeypatch, server, *more, status=FAILED) -> int:
    monkeypatch.setenv("HOOK", f"{server.url}/services/T0/B0/token")
    return notify.main(
        [
            *("--status", status, "--pipeline", "humidity", "--run_id", RUN, "--run_name", "nightly"),
            *("--notes", str(tmp_path), "--nodes", "ExampleValidator,Trainer", "--api", server.url),
            *("--webhook_env", "HOOK", "--page", "https://kubeflow.example", "--outputs", "minio://mlpipeline/v2"),
            *("--pause", "0", "--patience", "0"),
            *more,
        ]
    )


def test_a_refusal_is_told_with_node_reason_and_links(tmp_path, monkeypatch, server, left):
    left.begin("ExampleValidator", pod="p-0")
    left.end("ExampleValidator", exit_code=ExitCode.REFUSED, problems=[PROBLEM])
    left.begin("Champion", pod="c-0")
    assert run(tmp_path, monkeypatch, server) == 0
    (post,) = server.posts
    assert post["text"].splitlines()[0] == "humidity: run nightly FAILED at ExampleValidator"
    assert "beta1: found drift 0.7; expected at most 0.3. Look at span 4." in post["text"]
    assert f"https://kubeflow.example/#/runs/details/{RUN}" in post["text"]
    assert f"minio://mlpipeline/v2/humidity/{RUN}" in post["text"]
    fields = {field["title"]: field["value"] for field in post["attachments"][0]["fields"]}
    assert (fields["Outcome"], fields["Failed node"]) == ("FAILED", "ExampleValidator")
    assert left.all() == []


def test_a_node_that_could_leave_no_note_is_found_in_the_api(tmp_path, monkeypatch, server):
    server.document = {
        "run_details": {
            "task_details": [
                {"display_name": "tfx-dag", "state": "FAILED"},
                {"display_name": "Trainer-driver", "state": "SUCCEEDED"},
                {"display_name": "ExampleValidator", "state": "SUCCEEDED"},
                {"display_name": "Trainer", "state": "FAILED", "error": {"message": "OOMKilled (exit code 137)"}},
            ]
        }
    }
    assert run(tmp_path, monkeypatch, server) == 0
    assert "FAILED at Trainer\nTrainer: OOMKilled (exit code 137)" in server.posts[0]["text"]


def test_without_notes_and_api_the_outcome_is_still_told(tmp_path, monkeypatch, server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        api = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert run(tmp_path, monkeypatch, server, "--api", api) == 0
    assert server.posts[0]["text"].splitlines()[0] == "humidity: run nightly FAILED"


def test_a_killed_node_is_told_where_the_api_says_nothing(tmp_path, monkeypatch, server, left):
    left.begin("Trainer", pod="p-0")
    assert run(tmp_path, monkeypatch, server) == 0
    assert "Trainer: its last attempt was killed" in server.posts[0]["text"]


def test_success_is_told(tmp_path, monkeypatch, server):
    assert run(tmp_path, monkeypatch, server, status=COMPLETE) == 0
    assert server.posts[0]["text"].splitlines()[0] == "humidity: run nightly succeeded"
    assert server.posts[0]["attachments"][0]["color"] == "good"


def test_success_is_not_told_to_who_wants_failures_only(tmp_path, monkeypatch, server):
    assert run(tmp_path, monkeypatch, server, "--on", "failure", status=COMPLETE) == 0
    assert run(tmp_path, monkeypatch, server, "--on", "failure") == 0
    assert [post["text"].splitlines()[0] for post in server.posts] == ["humidity: run nightly FAILED"]


def test_a_webhook_that_stumbles_is_tried_again(tmp_path, monkeypatch, server):
    server.statuses = [500, 429]
    assert run(tmp_path, monkeypatch, server) == 0
    assert len(server.posts) == 1


def test_a_webhook_that_stays_down_is_a_fault_keeps_the_notes_and_does_not_leak(
    tmp_path, monkeypatch, server, left, capsys
):
    left.begin("Trainer", pod="p-0")
    left.end("Trainer", exit_code=ExitCode.FAULT, fault="OSError: disk full")
    server.statuses = [500] * 3
    assert run(tmp_path, monkeypatch, server) == ExitCode.FAULT
    assert left.read("Trainer").fault == "OSError: disk full"
    error = capsys.readouterr().err
    assert "HTTP 500" in error
    assert "services/T0" not in error


def test_where_the_report_of_a_refused_node_lies_is_told(tmp_path, monkeypatch, server, left):
    left.begin("ExampleValidator", pod="p-0")
    left.end("ExampleValidator", exit_code=ExitCode.REFUSED, problems=[PROBLEM], kept="/mnt/registry/.runs/r/x")
    assert run(tmp_path, monkeypatch, server) == 0
    assert "Its report: /mnt/registry/.runs/r/x" in server.posts[0]["text"]


def test_a_long_reason_is_cut(tmp_path, monkeypatch, server, left):
    left.begin("Trainer", pod="p-0")
    left.end("Trainer", exit_code=ExitCode.FAULT, fault="x" * 100_000)
    assert run(tmp_path, monkeypatch, server) == 0
    assert len(json.dumps(server.posts[0])) < 5_000


class _Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as a mail needs."""

    def handle(self):
        self._say("220 test")
        while line := self.rfile.readline():
            verb = line.split()[0].upper().decode() if line.split() else ""
            if verb == "DATA":
                self._say("354 go on")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text)
                self.server.mails.append(b"".join(lines).decode())
            self._say("250 ok" if verb != "QUIT" else "221 bye")

    def _say(self, words):
        with contextlib.suppress(OSError):
            self.wfile.write(f"{words}\r\n".encode())


def test_mail_arrives(tmp_path, monkeypatch, server):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp) as smtp:
        smtp.mails = []
        threading.Thread(target=smtp.serve_forever, args=(0.02,), daemon=True).start()
        host, port = smtp.server_address
        mail = (
            "--smtp",
            f"{host}:{port}",
            "--mail_from",
            "evergreen@x.example",
            "--mail_to",
            "a@x.example,b@x.example",
        )
        assert run(tmp_path, monkeypatch, server, *mail) == 0
        smtp.shutdown()
        (text,) = smtp.mails
    assert "Subject: humidity: run nightly FAILED" in text
    assert "To: a@x.example, b@x.example" in text
    assert len(server.posts) == 1
