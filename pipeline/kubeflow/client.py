"""What a person does with a compiled pipeline on Kubeflow: upload, run, watch, list; the same call twice does it once.

    api = api.connect(api.find_endpoint(Access(), environ=os.environ))
    package = read_package(Path("pipeline.yaml"))
    version = upload(api, package)
    run = start(api, version, experiment="humidity", parameters=package.arguments({"push": "false"}))
    run = watch(api, run.run_id, package.nodes, display=display)

A version is named by the digest of its content, so an unchanged pipeline is uploaded once. A run gets a name that
nothing else has: after a lost answer the client finds out whether Kubeflow started it, instead of starting another.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.entrypoint import parameters
from evergreen.errors import BadInput, EvergreenError, Problem
from pipeline.display import Display, State
from pipeline.kubeflow.api import Api, Conflict

_PAGE = 100
_DIGEST = "sha256:"
_LOOKS_AFTER_THE_END = 6
"""How often a run that ended is looked at again while a node seems to run: Kubeflow reports the last one later."""
FINAL = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR"})
"""The states of a run that has ended."""


# --- the compiled pipeline -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Package:
    """A compiled pipeline: the YAML file that `compile` writes."""

    path: Path
    name: str
    digest: str
    """sha256 of the file's bytes, in hexadecimal."""
    nodes: Sequence[str]
    """The nodes in an order in which they can run, those of inner DAGs included."""
    parameters: Mapping[str, Mapping[str, Any]]
    """Of each runtime parameter: `parameterType`, `defaultValue`, `isOptional`, as the specification has them."""
    pipeline_root: str | None = None
    """Where the specification wants the outputs. Kubeflow itself does not read it there: each run has to say it."""

    def arguments(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Turns the command line's words into values of the parameters' types.

        Args:
            given: name and text of each parameter.

        Returns:
            The values as Kubeflow takes them.

        Raises:
            BadInput: with every unknown name, every value of a wrong type and every missing parameter.
        """
        problems: list[Problem] = []
        values: dict[str, Any] = {}
        for name, text in given.items():
            if name not in self.parameters:
                problems.append(_unknown_parameter(name, self.parameters))
                continue
            kind = str(self.parameters[name].get("parameterType", "STRING"))
            try:
                values[name] = _value(text, kind)
            except ValueError:
                problems.append(
                    Problem(
                        where=f"--param {name}",
                        found=repr(text),
                        expected=f"a value of type {kind}",
                        action="Correct the value.",
                    )
                )
        problems.extend(parameters.problems(self._of_ours(values), where="--param {}"))
        for name, parameter in self.parameters.items():
            if name not in given and "defaultValue" not in parameter and not parameter.get("isOptional"):
                problems.append(
                    Problem(
                        where=f"--param {name}",
                        found="nothing",
                        expected="a value: the parameter has no default",
                        action=f"Give --param {name}=VALUE.",
                    )
                )
        if problems:
            raise BadInput(problems)
        return values

    def _of_ours(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of the parameters that our compiler wrote; another pipeline's may have the same names."""
        told = {parameter.name: parameter.description for parameter in parameters.PARAMETERS}
        return {
            name: value
            for name, value in values.items()
            if self.parameters[name].get("description") == told.get(name, "")
        }


def read_package(path: Path) -> Package:
    """Reads a compiled pipeline; what is not one never reaches Kubeflow (2.16 hangs on a file that is no YAML).

    Raises:
        BadInput: when the file is missing or is no compiled pipeline.
    """
    try:
        content = path.read_bytes()
        documents = [document for document in yaml.safe_load_all(content.decode("utf-8")) if document is not None]
    except FileNotFoundError:
        raise BadInput([_bad_package(path, "no such file")]) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput([_bad_package(path, " ".join(str(error).split()))]) from error
    spec = documents[0] if documents else None
    name = _at(spec, "pipelineInfo", "name")
    if not isinstance(name, str) or not isinstance(_at(spec, "root", "dag", "tasks"), dict) or len(documents) > 2:
        raise BadInput([_bad_package(path, "a file that is no pipeline specification")])
    assert isinstance(spec, dict)
    return Package(
        path=path,
        name=name,
        digest=hashlib.sha256(content).hexdigest(),
        nodes=nodes_of(spec),
        parameters=_at(spec, "root", "inputDefinitions", "parameters") or {},
        pipeline_root=spec.get("defaultPipelineRoot"),
    )


def nodes_of(spec: Mapping[str, Any]) -> list[str]:
    """Returns the nodes of a specification in an order in which they can run.

    Args:
        spec: a pipeline specification as the YAML or Kubeflow's answer has it.
    """
    spec = spec.get("pipeline_spec", spec)
    return list(_nodes(_at(spec, "root", "dag", "tasks") or {}, spec.get("components", {})))


def _nodes(tasks: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    left = {name: set(_producers(task)) & set(tasks) for name, task in tasks.items()}
    while left:
        # A circle cannot be ordered; it is shown as it stands.
        ready = [name for name, producers in left.items() if not producers & set(left)] or list(left)
        for name in ready:
            del left[name]
            inner = _at(components, _at(tasks[name], "componentRef", "name") or "", "dag", "tasks")
            yield from _nodes(inner, components) if inner else [name]


def _producers(task: Mapping[str, Any]) -> Iterator[str]:
    yield from task.get("dependentTasks", ())
    inputs = task.get("inputs") or {}
    for source in (*(inputs.get("artifacts") or {}).values(), *(inputs.get("parameters") or {}).values()):
        for key in ("taskOutputArtifact", "taskOutputParameter"):
            if producer := _at(source, key, "producerTask"):
                yield producer


def _at(document: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def _value(text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    if kind == "NUMBER_INTEGER":
        return int(text)
    if kind == "NUMBER_DOUBLE":
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number
    if kind == "BOOLEAN":
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    value = json.loads(text)
    if not isinstance(value, {"LIST": list, "STRUCT": dict}.get(kind, object)):
        raise ValueError(text)
    return value


def _unknown_parameter(name: str, known: Iterable[str]) -> Problem:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return Problem(
        where=f"--param {name}",
        found="a parameter that the pipeline does not have",
        expected=f"one of {', '.join(names)}" if names else "none: the pipeline has no parameters",
        action=f"Did you mean {close[0]!r}?" if close else "Correct the name.",
    )


def _bad_package(path: Path, found: str) -> Problem:
    return Problem(
        where=str(path),
        found=found,
        expected="the YAML that `kubeflow_runner.py compile` writes",
        action="Compile the pipeline again.",
    )


# --- versions and experiments ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """An uploaded version of a pipeline."""

    pipeline_id: str
    version_id: str
    pipeline: str
    name: str
    link: str
    new: bool
    """Whether this call uploaded it."""


def upload(api: Api, package: Package, *, version: str | None = None) -> Version:
    """Uploads a pipeline as a named version, once: the same content under the same name is taken as it lies there.

    Args:
        api: the way to Kubeflow.
        package: the pipeline.
        version: the version's name; the first twelve digits of the content's digest where left out.

    Raises:
        Conflict: when the name belongs to a version with other content.
        BadInput: when Kubeflow refuses the pipeline.
    """
    pipeline_id = _pipeline(api, package.name)
    name = version or package.digest[:12]
    found = _find_version(api, pipeline_id, name)
    new = found is None
    if found is None:
        found = api.create(
            f"upload version {name} of pipeline {package.name}",
            api.uploads.upload_pipeline_version,
            str(package.path),
            name=name,
            pipelineid=pipeline_id,
            description=_DIGEST + package.digest,
            existing=lambda: _find_version(api, pipeline_id, name),
        )
    elif version and (found.description or "") != _DIGEST + package.digest:
        raise Conflict(
            [
                Problem(
                    where=f"--version {version}",
                    found=f"a version of pipeline {package.name} by this name with other content",
                    expected="a new name for new content",
                    action="Choose another name, or leave it out: it is made from the content then.",
                )
            ]
        )
    return Version(
        pipeline_id=pipeline_id,
        version_id=found.pipeline_version_id,
        pipeline=package.name,
        name=name,
        link=f"{api.endpoint.ui}/#/pipelines/details/{pipeline_id}/version/{found.pipeline_version_id}",
        new=new,
    )


def experiment(api: Api, name: str) -> str:
    """Returns the id of the experiment `name`, which is made where there is none."""
    import kfp_server_api

    def find() -> Any:
        return _named(api, "look for the experiment", api.experiments.list_experiments, "experiments", name)

    found = find() or _created(
        api,
        f"create experiment {name}",
        api.experiments.create_experiment,
        kfp_server_api.V2beta1Experiment(display_name=name, namespace=api.namespace),
        find,
    )
    return str(found.experiment_id)


def _pipeline(api: Api, name: str) -> str:
    import kfp_server_api

    def find() -> Any:
        return _named(api, "look for the pipeline", api.pipelines.list_pipelines, "pipelines", name)

    found = find() or _created(
        api,
        f"create pipeline {name}",
        api.pipelines.create_pipeline,
        kfp_server_api.V2beta1Pipeline(display_name=name, namespace=api.namespace),
        find,
    )
    return str(found.pipeline_id)


def _created(api: Api, what: str, request: Any, body: Any, find: Any) -> Any:
    try:
        return api.create(what, request, body, existing=find)
    except Conflict:
        # Somebody else made it between our look and our request.
        found = find()
        if found is None:
            raise
        return found


def _find_version(api: Api, pipeline_id: str, name: str) -> Any:
    return next(
        (
            version
            for version in pages(
                api,
                "look for the version",
                api.pipelines.list_pipeline_versions,
                "pipeline_versions",
                pipeline_id=pipeline_id,
                filter=equals("display_name", name),
            )
            if version.display_name == name
        ),
        None,
    )


def _named(api: Api, what: str, request: Any, field: str, name: str) -> Any:
    options = {"namespace": api.namespace} if api.namespace else {}
    found = pages(api, what, request, field, filter=equals("display_name", name), **options)
    return next((item for item in found if item.display_name == name), None)


def equals(key: str, value: str) -> str:
    """Returns a filter of Kubeflow's API."""
    text = json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})
    # The server decodes the query twice; JSON has a way to write the two letters that this would change.
    return text.replace("%", "\\u0025").replace("+", "\\u002b")


def pages(api: Api, what: str, request: Any, field: str, **options: Any) -> Iterator[Any]:
    """Yields all that a listing has, page by page.

    Args:
        api: the way to Kubeflow.
        what: what it is for, in the words of an error.
        request: the listing function of the SDK's API layer.
        field: the answer's attribute that holds the items.
        **options: options of the function.
    """
    answer = api.ask(what, request, page_size=_PAGE, **options)
    # The token knows order and filter; given once more, the server compares them and finds its own reading different.
    following = {name: value for name, value in options.items() if name not in ("sort_by", "filter")}
    while True:
        yield from getattr(answer, field) or ()
        if not answer.next_page_token:
            return
        answer = api.ask(what, request, page_size=_PAGE, page_token=answer.next_page_token, **following)


# --- runs ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """What has become of one node of a run."""

    name: str
    state: State
    seconds: float | None = None
    """How long it took; none while it is not finished."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run as Kubeflow tells of it."""

    run_id: str
    name: str
    state: str
    """PENDING, RUNNING, SUCCEEDED, FAILED, CANCELED ..."""
    created_at: datetime.datetime | None
    finished_at: datetime.datetime | None
    scheduled_at: datetime.datetime | None
    recurring_run_id: str | None
    """The schedule that started it, if one did."""
    experiment_id: str | None
    link: str
    error: str
    nodes: Sequence[Node] = ()

    @property
    def ended(self) -> bool:
        """Whether it has come to an end."""
        return self.state in FINAL

    @property
    def seconds(self) -> float | None:
        """How long it took; none while it goes on."""
        if not self.ended or self.created_at is None or self.finished_at is None:
            return None
        return max(0.0, (self.finished_at - self.created_at).total_seconds())

    def failed(self) -> list[str]:
        """Returns the nodes that failed."""
        return [node.name for node in self.nodes if node.state is State.FAILED]


def start(
    api: Api,
    version: Version,
    *,
    experiment_name: str,
    parameters: Mapping[str, Any],
    name: str | None = None,
    service_account: str | None = None,
    pipeline_root: str | None = None,
) -> Run:
    """Starts one run of a version.

    Args:
        api: the way to Kubeflow.
        version: from `upload`.
        experiment_name: the experiment that the run belongs to; made where there is none.
        parameters: values of the pipeline's parameters, from `Package.arguments`.
        name: the beginning of the run's name; the pipeline's name where left out.
        service_account: the Kubernetes service account of its pods.
        pipeline_root: where its artifacts go; what the pipeline says where left out.

    Raises:
        BadInput: when Kubeflow refuses the run.
    """
    import kfp_server_api

    # The last part makes the name one that only this call has given.
    full_name = f"{name or version.pipeline} {api.clock.now():%Y-%m-%d %H:%M:%S} {uuid.uuid4().hex[:8]}"
    experiment_id = experiment(api, experiment_name)
    body = kfp_server_api.V2beta1Run(
        display_name=full_name,
        experiment_id=experiment_id,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(parameters), pipeline_root=pipeline_root),
        service_account=service_account,
    )

    def existing() -> Any:
        found = pages(
            api,
            "look for the run",
            api.runs.list_runs,
            "runs",
            experiment_id=experiment_id,
            filter=equals("display_name", full_name),
        )
        return next((run for run in found if run.display_name == full_name), None)

    answer = api.create(f"start a run of {version.pipeline}", api.runs.create_run, body, existing=existing)
    return _run(api, answer, ())


def get_run(api: Api, run_id: str, nodes: Sequence[str] | None = None) -> Run:
    """Returns a run with the state of its nodes.

    Args:
        api: the way to Kubeflow.
        run_id: the run.
        nodes: its nodes; where left out they are read from the pipeline that Kubeflow keeps with the run.

    Raises:
        NotFound: when there is no such run.
    """
    answer = api.ask(f"look at run {run_id}", api.runs.get_run, run_id)
    return _run(api, answer, _nodes_of_run(api, answer) if nodes is None else nodes)


def list_runs(api: Api, *, limit: int = 20, experiment_name: str | None = None) -> list[Run]:
    """Returns the latest runs, the newest first.

    Args:
        api: the way to Kubeflow.
        limit: how many at the most.
        experiment_name: only those of this experiment.

    Raises:
        BadInput: when there is no such experiment.
    """
    options: dict[str, Any] = {}
    if experiment_name is not None:
        options["experiment_id"] = _existing_experiment(api, experiment_name)
    elif api.namespace:
        options["namespace"] = api.namespace
    found: list[Run] = []
    for answer in pages(api, "list the runs", api.runs.list_runs, "runs", sort_by="created_at desc", **options):
        found.append(_run(api, answer, ()))
        if len(found) >= limit:
            break
    return found


def watch(
    api: Api,
    run_id: str,
    nodes: Sequence[str] | None,
    *,
    display: Display,
    poll_seconds: float = 5.0,
    timeout_seconds: float | None = None,
) -> Run:
    """Shows a run's nodes until the run has ended.

    Args:
        api: the way to Kubeflow.
        run_id: the run.
        nodes: its nodes, as for `get_run`.
        display: where the nodes are shown.
        poll_seconds: time between two looks.
        timeout_seconds: when to give up waiting; the run goes on then.

    Returns:
        The run after its end, whatever the end.

    Raises:
        WaitedTooLong: when the time is over.
    """
    shown: dict[str, State] = {}
    started = api.clock.now()
    looks_left = _LOOKS_AFTER_THE_END
    while True:
        run = get_run(api, run_id, nodes)
        nodes = [node.name for node in run.nodes]
        for node in run.nodes:
            _show(node, shown.get(node.name, State.WAITING), display)
            shown[node.name] = node.state
        if run.ended:
            if looks_left == 0 or all(node.state is not State.RUNNING for node in run.nodes):
                return run
            looks_left -= 1
        elif timeout_seconds is not None and (api.clock.now() - started).total_seconds() >= timeout_seconds:
            raise WaitedTooLong(
                [
                    Problem(
                        where=f"run {run_id}",
                        found=f"state {run.state} after {timeout_seconds:g} s",
                        expected="its end",
                        action=f"The run goes on: `kubeflow_runner.py status {run_id}` shows it.",
                    )
                ]
            )
        api.clock.sleep(poll_seconds)


class WaitedTooLong(EvergreenError):
    """The run goes on; the wait for it ended."""


def _show(node: Node, before: State, display: Display) -> None:
    if node.state is before or node.state is State.WAITING:
        return
    if before is State.WAITING and node.state in (State.RUNNING, State.DONE, State.FAILED):
        display.begin(node.name)
    if node.state is not State.RUNNING:
        display.end(node.name, node.state, seconds=node.seconds)


def _existing_experiment(api: Api, name: str) -> str:
    options = {"namespace": api.namespace} if api.namespace else {}
    names: list[str] = []
    for item in pages(api, "list the experiments", api.experiments.list_experiments, "experiments", **options):
        if item.display_name == name:
            return str(item.experiment_id)
        names.append(item.display_name)
    raise BadInput(
        [
            Problem(
                where="--experiment",
                found=f"{name!r}, which Kubeflow does not have",
                expected=f"one of {', '.join(sorted(names))}" if names else "an experiment; there is none yet",
                action="Correct the name.",
            )
        ]
    )


def _nodes_of_run(api: Api, answer: Any) -> list[str]:
    spec = answer.pipeline_spec
    reference = answer.pipeline_version_reference
    if not spec and reference is not None and reference.pipeline_version_id:
        version = api.ask(
            "read the run's pipeline",
            api.pipelines.get_pipeline_version,
            reference.pipeline_id,
            reference.pipeline_version_id,
        )
        spec = version.pipeline_spec
    return nodes_of(spec) if isinstance(spec, Mapping) else []


def _run(api: Api, answer: Any, nodes: Sequence[str]) -> Run:
    details = (answer.run_details.task_details if answer.run_details else None) or ()
    return Run(
        run_id=answer.run_id,
        name=answer.display_name,
        state=str(answer.state or "PENDING").upper(),
        created_at=_moment(answer.created_at),
        finished_at=_moment(answer.finished_at),
        scheduled_at=_moment(answer.scheduled_at),
        recurring_run_id=answer.recurring_run_id or None,
        experiment_id=answer.experiment_id or None,
        link=f"{api.endpoint.ui}/#/runs/details/{answer.run_id}",
        error=(answer.error.message or "") if answer.error else "",
        nodes=[_node(name, details) for name in nodes],
    )


_STATES = {
    "SUCCEEDED": State.DONE,
    "FAILED": State.FAILED,
    "CANCELED": State.FAILED,
    "CANCELING": State.RUNNING,
    "RUNNING": State.RUNNING,
    "PAUSED": State.WAITING,
}


def _node(name: str, details: Iterable[Any]) -> Node:
    """Puts a node's state together from its task and from its driver, the pod that decides about the cache."""
    tasks = {detail.display_name: detail for detail in details if detail.display_name in (name, f"{name}-driver")}
    task, driver = tasks.get(name), tasks.get(f"{name}-driver")
    task_state, driver_state = _state(task), _state(driver)
    if driver_state == "FAILED":
        return Node(name=name, state=State.FAILED)
    if task_state == "SKIPPED":
        # The driver found the outputs of an earlier run, or the node never had its turn.
        return Node(name=name, state=State.CACHED if driver_state == "SUCCEEDED" else State.SKIPPED)
    if task_state in ("", "PENDING", "RUNTIME_STATE_UNSPECIFIED"):
        return Node(name=name, state=State.RUNNING if driver_state in ("RUNNING", "SUCCEEDED") else State.WAITING)
    state = _STATES.get(task_state, State.WAITING)
    if task is None or state not in (State.DONE, State.FAILED):
        return Node(name=name, state=state)
    began, ended = _moment(task.start_time), _moment(task.end_time)
    seconds = max(0.0, (ended - began).total_seconds()) if began and ended else None
    return Node(name=name, state=state, seconds=seconds)


def _state(detail: Any) -> str:
    return str(detail.state or "").upper() if detail is not None else ""


def _moment(value: Any) -> datetime.datetime | None:
    """Returns a time, or none: Kubeflow writes the year 1970 where there is no time yet."""
    if not isinstance(value, datetime.datetime) or value.year <= 1970:
        return None
    return value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
