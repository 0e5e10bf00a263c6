"""A session on a real cluster: its volumes, pods, webhook, and the project's own command line against its Kubeflow.

Everything that a session makes lies in folders of its own on the two claims, so that sessions do not see one another.
The cluster is the one that KFP_ENDPOINT and KUBECONFIG name, the image the one that EVERGREEN_IMAGE names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import itertools
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config, stream, watch

REPOSITORY = Path(__file__).resolve().parents[2]
NAMESPACE = os.environ.get("KFP_RUNS_NAMESPACE", "kubeflow")
CLAIMS = ("data", "registry")
USER = 10001


class Missing(Exception):
    """What a session needs and the environment does not have."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command of the project ended."""

    exit_code: int
    document: dict[str, Any]
    said: str


class Rig:
    """The cluster, for one session."""

    def __init__(self, folder: Path, *, beam: Mapping[str, Any] | None = None, volumes: Sequence[Any] = ()) -> None:
        needed = [name for name in ("KFP_ENDPOINT", "KUBECONFIG", "EVERGREEN_IMAGE") if not os.environ.get(name)]
        if needed:
            raise Missing(f"{', '.join(needed)}: `make test-cluster` sets them for a cluster of its own")
        config.load_kube_config()
        self.core = client.CoreV1Api()
        self.image = os.environ["EVERGREEN_IMAGE"]
        self.session = f"session-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.webhook = Webhook(address_for(client.Configuration.get_default_copy().host))
        self.core.create_namespaced_secret(
            NAMESPACE,
            client.V1Secret(metadata={"name": self.session}, string_data={"url": self.webhook.url}),
        )
        self.config_file, self.environment_file = self._files(beam, volumes)

    def close(self) -> None:
        """Takes away what only this session needed; data and models stay on their claims."""
        self.core.delete_namespaced_secret(self.session, NAMESPACE)
        self.webhook.close()

    # --- the project's own commands ----------------------------------------------------------------------------------

    def compiled(self) -> Path:
        """Compiles the session's pipeline; returns the file."""
        path = self.folder / "pipeline.yaml"
        self.command(
            "compile",
            *("--config", str(self.config_file), "--environment", str(self.environment_file)),
            *("--output", str(path), "--no-backend"),
        )
        return path

    def command(self, *words: str, exit_code: int = 0) -> Ended:
        """Runs `kubeflow_runner.py`, and sees to it that it ends with `exit_code`."""
        process = self.begin(*words)
        out, said = process.communicate()
        assert process.returncode == exit_code, f"{' '.join(words)} ended with {process.returncode}:\n{out}\n{said}"
        return Ended(process.returncode, json.loads(out) if "--json" in words else {}, said)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Starts `kubeflow_runner.py`."""
        return subprocess.Popen(
            [sys.executable, "kubeflow_runner.py", *words],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, package: Path, *parameters: str) -> str:
        """Starts a run; returns its id."""
        words = [word for parameter in parameters for word in ("--param", parameter)]
        ended = self.command(
            "run", "--package", str(package), "--service-account", "pipeline-runner", "--no-wait", "--json", *words
        )
        return str(ended.document["run"]["run_id"])

    def end(self, run_id: str, *, state: str = "SUCCEEDED") -> dict[str, Any]:
        """Waits for the end of a run and returns it."""
        words = ("status", run_id, "--wait", "--timeout", "20m", "--json")
        ended = self.command(*words, exit_code=0 if state == "SUCCEEDED" else 1)
        run: dict[str, Any] = ended.document["run"]
        assert run["state"] == state, run
        return run

    # --- pods --------------------------------------------------------------------------------------------------------

    def python(self, code: str, *arguments: str) -> str:
        """Runs Python in a pod of the image, with both claims mounted; returns what it printed."""
        name = f"{self.session}-{uuid.uuid4().hex[:6]}"
        mounts = [{"name": claim, "mountPath": f"/mnt/{claim}"} for claim in CLAIMS]
        body = {
            "metadata": {"name": name, "labels": {"evergreen/session": self.session}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "main",
                        "image": self.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-c", code, *arguments],
                        "env": [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "3"}],
                        "volumeMounts": mounts,
                        "securityContext": {
                            "runAsNonRoot": True,
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                    }
                ],
                "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in CLAIMS],
            },
        }
        self.core.create_namespaced_pod(NAMESPACE, body)
        try:
            pod = self._pod_when(
                lambda pod: pod.status.phase in ("Succeeded", "Failed"), field_selector=f"metadata.name={name}"
            )
            # The client reads a log that happens to be JSON as an object.
            answer = self.core.read_namespaced_pod_log(name, NAMESPACE, _preload_content=False)
            log = answer.data.decode()
            assert pod.status.phase == "Succeeded", log
            return str(log)
        finally:
            self.core.delete_namespaced_pod(name, NAMESPACE)

    def pods_of(self, run_id: str, node: str | None = None) -> list[Any]:
        """Returns the pods that worked on a node of a run; without a node all of the run, KFP's drivers among them."""
        listed = self.core.list_namespaced_pod(NAMESPACE, label_selector=f"pipeline/runid={run_id}")
        return [pod for pod in listed.items if node is None or _works_on(pod, node)]

    def working_pod(self, run_id: str, node: str) -> Any:
        """Waits until a node's container is at work and Argo has seen it, and returns its pod.

        A pod that goes before Argo has seen it at work is simply made again; later it counts as an attempt.
        """
        pod = self._pod_when(
            lambda pod: _works_on(pod, node) and _is_at_work(pod), label_selector=f"pipeline/runid={run_id}"
        )
        workflow = pod.metadata.labels["workflows.argoproj.io/workflow"]
        node_id = pod.metadata.annotations["workflows.argoproj.io/node-id"]
        for event in watch.Watch().stream(
            client.CustomObjectsApi().list_namespaced_custom_object,
            *("argoproj.io", "v1alpha1", NAMESPACE, "workflows"),
            field_selector=f"metadata.name={workflow}",
            timeout_seconds=120,
        ):
            nodes = event["object"].get("status", {}).get("nodes", {})
            if nodes.get(node_id, {}).get("phase") == "Running":
                return pod
        raise AssertionError(f"Argo does not see {node} at work")

    def delete_pod(self, pod: Any, *, force: bool = False) -> str:
        """Deletes a pod as somebody with kubectl would, or at once, as where its machine is lost; returns its uid."""
        grace = {"grace_period_seconds": 0} if force else {}
        self.core.delete_namespaced_pod(pod.metadata.name, NAMESPACE, **grace)
        return str(pod.metadata.uid)

    def kill_process(self, pod: Any) -> str:
        """Kills the node's process, as a machine short of memory would; returns its command."""
        code = (
            "import os, signal\n"
            "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
            "    words = open(f'/proc/{pid}/cmdline').read().split('\\0')\n"
            "    if 'components.entrypoint' in words and words[0].endswith('python'):\n"
            "        print(*words[:3]); os.kill(int(pid), signal.SIGKILL)\n"
        )
        return str(
            stream.stream(
                self.core.connect_get_namespaced_pod_exec,
                pod.metadata.name,
                NAMESPACE,
                container="main",
                command=["python", "-c", code],
                stdout=True,
                stderr=True,
            )
        )

    def _pod_when(self, holds: Any, **selector: str) -> Any:
        for event in watch.Watch().stream(self.core.list_namespaced_pod, NAMESPACE, timeout_seconds=600, **selector):
            if event["type"] != "DELETED" and holds(event["object"]):
                return event["object"]
        raise AssertionError(f"no such pod came within ten minutes: {selector}")

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def registry(self) -> str:
        """The session's registry, as the pods see it."""
        return f"/mnt/registry/{self.session}"

    @property
    def data(self) -> str:
        """The session's data, as the pods see them."""
        return f"/mnt/data/{self.session}"

    def _files(self, beam: Mapping[str, Any] | None, volumes: Sequence[Any]) -> tuple[Path, Path]:
        problem = yaml.safe_load((REPOSITORY / "configs" / "humidity.yaml").read_text(encoding="utf-8"))
        problem["data"] |= {"path": "span-{SPAN}/v-{VERSION}/*.csv", "window": 3}
        # A third of a day's rows: the noise of the test split is larger than what the real bound leaves to it.
        problem["training"]["epochs"] = 20
        problem["evaluation"]["bounds"] = {"rmse": {"max": 1.6}}
        path = REPOSITORY / "configs" / "environments" / "cluster.yaml"
        environment = yaml.safe_load(path.read_text(encoding="utf-8"))
        environment["registry"] = self.registry
        environment["beam"] = beam or environment["beam"]
        cluster = environment["kubeflow"]
        cluster["volumes"] += volumes
        cluster |= {"image": self.image, "data_root": self.data}
        cluster["defaults"]["retry"] = {"attempts": 2, "wait": 5, "factor": 1}
        cluster["notify"]["webhook"] = {"url": {"secret": self.session, "key": "url"}}
        files = self.folder / "humidity.yaml", self.folder / "cluster.yaml"
        for file, document in zip(files, (problem, environment), strict=True):
            file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return files


class Webhook:
    """A server that keeps what it is sent."""

    def __init__(self, address: str) -> None:
        received: queue.Queue[dict[str, Any]] = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._received = received
        self._others: list[dict[str, Any]] = []
        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.url = f"http://{address}:{self._server.server_port}/services/T0/B0"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def told_of(self, run_id: str) -> dict[str, Any]:
        """Returns what came of a run; waits for it."""
        while True:
            for post in self._others:
                if run_id in post["text"]:
                    return post
            self._others.append(self._received.get(timeout=120))

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


def _works_on(pod: Any, node: str) -> bool:
    containers = {container.name: container for container in pod.spec.containers}
    words = containers["main"].args or [] if "main" in containers else []
    return any(pair == ("--task", node) for pair in itertools.pairwise(words))


def _is_at_work(pod: Any) -> bool:
    states = {status.name: status.state for status in pod.status.container_statuses or []}
    return "main" in states and states["main"].running is not None and pod.metadata.deletion_timestamp is None


def address_for(host: str) -> str:
    """Returns this machine's address on the way to the cluster, at which its pods reach it."""
    parsed = urllib.parse.urlsplit(host)
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((parsed.hostname or "127.0.0.1", parsed.port or 443))
        return str(probe.getsockname()[0])


def outcome(post: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the titles and values of a notification."""
    fields: Sequence[Mapping[str, Any]] = post["attachments"][0]["fields"]
    return {field["title"]: field["value"] for field in fields}


@contextlib.contextmanager
def opened(folder: Path, **changes: Any) -> Iterator[Rig]:
    """Opens a session, whose environment has the `beam` and the further `volumes` that are given, and closes it."""
    rig = Rig(folder, **changes)
    try:
        yield rig
    finally:
        rig.close()
