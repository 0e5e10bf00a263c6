"""The way to Kubeflow Pipelines' API: every fault becomes one clear error, and nothing is ever created twice.

    endpoint = find_endpoint(Access(endpoint="http://127.0.0.1:8888"), environ=os.environ)
    api = connect(endpoint)
    api.ask("list the runs", api.runs.list_runs, page_size=10)

It works over the API layer of kfp's SDK (`kfp_server_api`), not over `kfp.Client`: that one prints, waits 25 seconds in
its constructor where no server answers, keeps a file in the user's home, has no time limit on a request, and follows
the redirect to a login page as if it were an answer. The import costs half a second and happens in `connect`.

What can be repaired by whoever typed the command (address, token, rights, an old Kubeflow) is a `BadInput`;
`Unreachable` and `ServerFault` are worth a retry and have had theirs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from evergreen.errors import BadInput, EvergreenError, Problem

_ATTEMPTS = 5
_FIRST_ATTEMPTS = 3
_TIMEOUT = (10, 60)
"""Seconds to connect, and to wait for an answer."""
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_API = "/apis/v2beta1/healthz"
_OLD_API = "/apis/v1beta1/healthz"
_POD_TOKENS = (
    Path("/var/run/secrets/kubeflow/pipelines/token"),
    Path("/var/run/secrets/kubernetes.io/serviceaccount/token"),
)
_HOW_TO_REACH = "Give --endpoint or KFP_ENDPOINT; `kubectl port-forward -n kubeflow svc/ml-pipeline 8888` makes http://127.0.0.1:8888."

T = TypeVar("T")


class Unreachable(EvergreenError):
    """Nobody answered at the endpoint, again and again."""


class ServerFault(EvergreenError):
    """Kubeflow answered that it cannot at the moment, again and again."""


class NotFound(BadInput):
    """Kubeflow does not have what was asked for."""


class Conflict(BadInput):
    """Kubeflow has something else by that name."""


class Clock(Protocol):
    """What time it is, and how to wait; tests bring their own."""

    def now(self) -> datetime.datetime:
        """Returns the time, in UTC."""

    def sleep(self, seconds: float) -> None:
        """Waits."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime.datetime:
        """Returns the time, in UTC."""
        return datetime.datetime.now(datetime.timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """What the command line says of the way to Kubeflow; what is none comes from elsewhere."""

    endpoint: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    ui: str | None = None
    """The address of the user interface, where it is not the endpoint."""
    namespace: str | None = None
    """The user's namespace of a multi-user Kubeflow."""
    kubeconfig: str | None = None
    context: str | None = None
    install_namespace: str = "kubeflow"
    """Where Kubeflow itself runs; counts with a kubeconfig and inside the cluster."""
    ca_file: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where Kubeflow's API is and what opens it."""

    url: str
    ui: str
    source: str
    """Where the address comes from, for messages."""
    namespace: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    token_source: str = "no token"  # noqa: S105 - says that there is none
    token_file: Path | None = None
    """Read anew for every request: a pod's token changes."""
    kubeconfig: str | None = None
    """The file (or files) that the connection's address, certificates and token come from."""
    context: str | None = None
    install_namespace: str = "kubeflow"
    ca_file: str | None = None


def find_endpoint(access: Access, *, environ: Mapping[str, str]) -> Endpoint:
    """Finds the way to Kubeflow: from options, the environment, a kubeconfig, or from inside the cluster.

    Args:
        access: the options.
        environ: `KFP_ENDPOINT`, `KFP_TOKEN`, `KFP_UI`, `KFP_NAMESPACE` and `KUBECONFIG` are looked at. An option counts
            more than the environment, an address more than a kubeconfig.

    Raises:
        BadInput: when there is no way, or what is given cannot be used.
    """
    url = access.endpoint or environ.get("KFP_ENDPOINT")
    namespace = access.namespace or environ.get("KFP_NAMESPACE") or None
    ui = access.ui or environ.get("KFP_UI")
    if url and not access.kubeconfig:
        return _by_address(access, url, ui, namespace, environ)
    kubeconfig = access.kubeconfig or environ.get("KUBECONFIG") or _existing(Path.home() / ".kube" / "config")
    if kubeconfig:
        return Endpoint(
            url="",
            ui=(ui or "").rstrip("/"),
            source=f"kubeconfig {kubeconfig}",
            namespace=namespace,
            kubeconfig=kubeconfig,
            context=access.context,
            install_namespace=access.install_namespace,
        )
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return _inside_cluster(access, ui, namespace)
    raise BadInput(
        [
            Problem(
                where="--endpoint",
                found="no address of Kubeflow Pipelines: no option, no KFP_ENDPOINT, no kubeconfig",
                expected="one of them",
                action=_HOW_TO_REACH,
            )
        ]
    )


def _by_address(
    access: Access, url: str, ui: str | None, namespace: str | None, environ: Mapping[str, str]
) -> Endpoint:
    source = "--endpoint" if access.endpoint else "KFP_ENDPOINT"
    token, token_source = access.token, "--token"
    if not token and environ.get("KFP_TOKEN"):
        token, token_source = environ["KFP_TOKEN"], "KFP_TOKEN"
    problems = [*_address_problems(url, source), *_token_problems(token, token_source)]
    if access.ca_file and not Path(access.ca_file).is_file():
        problems.append(
            Problem(
                where="--ca-file",
                found=f"no file {access.ca_file}",
                expected="certificates in PEM form",
                action="Correct the path.",
            )
        )
    if problems:
        raise BadInput(problems)
    return Endpoint(
        url=url.rstrip("/"),
        ui=(ui or url).rstrip("/"),
        source=source,
        namespace=namespace,
        token=token.strip() if token else None,
        token_source=token_source if token else "no token",
        ca_file=access.ca_file,
    )


def _inside_cluster(access: Access, ui: str | None, namespace: str | None) -> Endpoint:
    url = f"http://ml-pipeline.{access.install_namespace}.svc.cluster.local:8888"
    token_file = next((path for path in _POD_TOKENS if path.is_file()), None)
    return Endpoint(
        url=url,
        ui=(ui or url).rstrip("/"),
        source="the cluster that this runs in",
        namespace=namespace,
        token_source=str(token_file or "no token"),
        token_file=token_file,
    )


def _address_problems(url: str, source: str) -> Iterator[Problem]:
    try:
        parts = urllib.parse.urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or re.search(r"\s", url):
        bare = re.fullmatch(r"[\w.-]+(:\d+)?(/.*)?", url)
        yield Problem(
            where=source,
            found=repr(url),
            expected="an address with its scheme, http:// or https://",
            action=f"Write http://{url} or https://{url}." if bare else _HOW_TO_REACH,
        )
    elif parts.username or parts.password:
        yield Problem(
            where=source,
            found="a user or password in the address",
            expected="an address without, for addresses are shown in logs",
            action="Put the token into KFP_TOKEN.",
        )


def _token_problems(token: str | None, source: str) -> Iterator[Problem]:
    # A line feed inside would end the header; one at the end is what `$(cat file)` and editors leave.
    if token and not re.fullmatch(r"[\x21-\x7e]+", token.strip()):
        yield Problem(
            where=source,
            found="a token with blanks, line feeds or letters that no token has",
            expected="the token alone, without `Bearer`",
            action="Copy it again.",
        )


def _existing(path: Path) -> str | None:
    return str(path) if path.is_file() else None


# --- the connection --------------------------------------------------------------------------------------------------


class Api:
    """An open way to Kubeflow; make one with `connect`."""

    def __init__(self, endpoint: Endpoint, *, client: Any, clock: Clock) -> None:
        """Wraps the SDK's API client."""
        import kfp_server_api

        self.endpoint = endpoint
        self.clock = clock
        self.client = client
        self.pipelines = kfp_server_api.PipelineServiceApi(client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(client)
        self.experiments = kfp_server_api.ExperimentServiceApi(client)
        self.runs = kfp_server_api.RunServiceApi(client)
        self.recurring = kfp_server_api.RecurringRunServiceApi(client)

    @property
    def namespace(self) -> str | None:
        """The user's namespace, where Kubeflow has several users."""
        return self.endpoint.namespace

    def ask(
        self, what: str, request: Callable[..., T], *arguments: Any, attempts: int = _ATTEMPTS, **options: Any
    ) -> T:
        """Makes a request that may be made twice: to read, to switch on or off.

        Args:
            what: what it is for, in the words of an error: "list the runs".
            request: a function of the SDK's API layer.
            *arguments: its arguments.
            attempts: after how many the fault is told.
            **options: its options.

        Raises:
            BadInput: when the request is refused for what it asks or for who asks.
            ServerFault: when Kubeflow cannot answer, after several attempts.
            Unreachable: when nobody answers, after several attempts.
        """
        return self._attempts(
            what, lambda: request(*arguments, _request_timeout=_TIMEOUT, **options), lambda: None, attempts
        )

    def create(
        self, what: str, request: Callable[..., T], *arguments: Any, existing: Callable[[], T | None], **options: Any
    ) -> T:
        """Makes a request that must not be made twice: after a lost answer it looks before it tries again.

        Args:
            what: what it is for, in the words of an error.
            request: a function of the SDK's API layer.
            *arguments: its arguments.
            existing: finds what the request makes, by a name that nothing else has.
            **options: its options.

        Raises:
            Conflict: when the name is taken.
            BadInput: when the request is refused otherwise.
            ServerFault: when Kubeflow cannot answer, after several attempts.
            Unreachable: when nobody answers, after several attempts.
        """
        return self._attempts(
            what, lambda: request(*arguments, _request_timeout=_TIMEOUT, **options), existing, _ATTEMPTS
        )

    def delete(self, what: str, request: Callable[..., Any], *arguments: Any) -> None:
        """Deletes; what is gone already (the answer to an earlier attempt was lost) counts as deleted.

        Raises:
            BadInput: when the request is refused.
            ServerFault: when Kubeflow cannot answer, after several attempts.
            Unreachable: when nobody answers, after several attempts.
        """
        with contextlib.suppress(NotFound):
            self.ask(what, request, *arguments)

    def _attempts(self, what: str, request: Callable[[], T], existing: Callable[[], T | None], attempts: int) -> T:
        for attempt in range(1, attempts + 1):
            try:
                return request()
            except Exception as error:
                fault = _fault(error)
                if fault is None:
                    raise
                told = tell(fault, what=what, endpoint=self.endpoint)
                if isinstance(told, BadInput):
                    raise told from None
                if attempt == attempts:
                    raise told from None
            self.clock.sleep(2.0 ** (attempt - 1))
            found = existing()
            if found is not None:
                return found
        raise AssertionError("every attempt returns or raises")


def connect(endpoint: Endpoint, *, clock: Clock | None = None) -> Api:
    """Opens the way and makes sure that a Kubeflow Pipelines of version 2 is at its end.

    Args:
        endpoint: from `find_endpoint`.
        clock: the machine's where left out.

    Raises:
        BadInput: when the address, the kubeconfig or the token is wrong, when something else answers, when Kubeflow is
            too old, or when it has several users and no namespace is given.
        ServerFault: when Kubeflow cannot answer, after several attempts.
        Unreachable: when nobody answers, after several attempts.
    """
    import kfp_server_api

    configuration = kfp_server_api.Configuration()
    endpoint = _configure(configuration, endpoint)
    client = kfp_server_api.ApiClient(configuration)
    # An answer is an answer: no silent repetitions, and no redirect is followed to a login page. The SDK has an option
    # for the first only, and urllib3 asks its own default about the second.
    connections = client.rest_client.pool_manager
    connections.request = functools.partial(connections.request, redirect=False, retries=False)
    api = Api(endpoint, client=client, clock=clock or SystemClock())
    health = _health(api)
    if health.get("multi_user") and not endpoint.namespace:
        raise BadInput(
            [
                Problem(
                    where="--namespace",
                    found="nothing",
                    expected=f"your namespace: the Kubeflow at {endpoint.url} has several users",
                    action="Give --namespace or KFP_NAMESPACE.",
                )
            ]
        )
    return api


def _configure(configuration: Any, endpoint: Endpoint) -> Endpoint:
    if endpoint.kubeconfig:
        return _configure_by_kubeconfig(configuration, endpoint)
    configuration.host = endpoint.url
    if endpoint.ca_file:
        configuration.ssl_ca_cert = endpoint.ca_file
    if endpoint.token:
        configuration.api_key["authorization"] = endpoint.token
        configuration.api_key_prefix["authorization"] = "Bearer"
    if endpoint.token_file:
        _read_token(endpoint.token_file, configuration)
        token_file = endpoint.token_file
        configuration.api_key_prefix["authorization"] = "Bearer"
        configuration.refresh_api_key_hook = lambda fresh: _read_token(token_file, fresh)
    return endpoint


def _read_token(path: Path, configuration: Any) -> None:
    configuration.api_key["authorization"] = path.read_text(encoding="ascii").strip()


def _configure_by_kubeconfig(configuration: Any, endpoint: Endpoint) -> Endpoint:
    from kubernetes import config

    try:
        config.load_kube_config(
            config_file=endpoint.kubeconfig, context=endpoint.context, client_configuration=configuration
        )
    except Exception as error:
        raise BadInput(
            [
                Problem(
                    where=endpoint.source,
                    found=_one_line(str(error)),
                    expected="a kubeconfig with a cluster, a user and a context",
                    action="`kubectl --kubeconfig FILE get pods` shows whether it works; --endpoint does without it.",
                )
            ]
        ) from error
    # Kubernetes' own API server hands the request on to Kubeflow's service.
    services = f"{configuration.host.rstrip('/')}/api/v1/namespaces/{endpoint.install_namespace}/services"
    configuration.host = f"{services}/ml-pipeline:http/proxy"
    return dataclasses.replace(
        endpoint,
        url=configuration.host,
        ui=endpoint.ui or f"{services}/ml-pipeline-ui:http/proxy",
        token_source=endpoint.source,
    )


def _health(api: Api) -> dict[str, Any]:
    """Returns what the server says of itself.

    Raises:
        BadInput: when it is no Kubeflow Pipelines of version 2.
    """
    try:
        return _get_json(api, _API)
    except NotFound:
        try:
            _get_json(api, _OLD_API)
        except EvergreenError:
            raise BadInput([_not_kubeflow(api.endpoint, "an answer that it has no such page")]) from None
    raise BadInput(
        [
            Problem(
                where=f"{api.endpoint.source} ({api.endpoint.url})",
                found="a Kubeflow Pipelines of version 1: it has no API v2beta1",
                expected="Kubeflow Pipelines 2.1 or newer",
                action="Upgrade Kubeflow Pipelines, or name another endpoint.",
            )
        ]
    )


def _get_json(api: Api, path: str) -> dict[str, Any]:
    response = api.ask(
        "ask whether Kubeflow Pipelines is there",
        api.client.call_api,
        path,
        "GET",
        auth_settings=["Bearer"],
        # A person waits for this one: a wrong address should show soon.
        attempts=_FIRST_ATTEMPTS,
        _preload_content=False,
        _return_http_data_only=True,
    )
    try:
        document = json.loads(response.data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BadInput([_not_kubeflow(api.endpoint, "an answer that is no JSON object")])
    return document


def _not_kubeflow(endpoint: Endpoint, found: str) -> Problem:
    return Problem(
        where=f"{endpoint.source} ({endpoint.url})",
        found=found,
        expected="the API of Kubeflow Pipelines",
        action="Correct the address; behind Kubeflow's own pages it ends in /pipeline. " + _HOW_TO_REACH,
    )


# --- faults ----------------------------------------------------------------------------------------------------------


def _fault(error: Exception) -> Exception | None:
    """Returns the fault of the request in what was raised; none where it is a fault of the program."""
    import kfp_server_api
    import urllib3.exceptions

    if isinstance(error, kfp_server_api.ApiException | urllib3.exceptions.HTTPError | OSError):
        return error
    # The SDK stumbles over a refusal without a text, or with one that is not UTF-8, while it reports it.
    beneath = error.__context__
    return beneath if isinstance(beneath, kfp_server_api.ApiException) else None


def tell(error: Exception, *, what: str, endpoint: Endpoint) -> EvergreenError:
    """Turns whatever a request raised into one clear error.

    Args:
        error: what was raised.
        what: what the request was for.
        endpoint: where it went.

    Returns:
        A `BadInput` where a repetition cannot help, else `Unreachable` or `ServerFault`.
    """
    status = getattr(error, "status", None)
    if isinstance(status, int) and status > 0:
        return _tell_status(status, _message(error), what=what, endpoint=endpoint)
    return _tell_connection(error, what=what, endpoint=endpoint)


def _tell_status(status: int, message: str, *, what: str, endpoint: Endpoint) -> EvergreenError:
    where = f"{endpoint.url} ({what})"
    said = f"status {status}{f': {message}' if message else ''}"
    if status in _TRANSIENT:
        action = "Try again later; `kubectl logs -n kubeflow deploy/ml-pipeline` tells what happened there."
        return ServerFault([Problem(where=where, found=said, expected="an answer", action=action)])
    if status == 401 or 300 <= status < 400:
        found = said if status == 401 else f"status {status}: the way to a login page"
        expected = f"a token that Kubeflow knows (used: {endpoint.token_source})"
        return BadInput(
            [Problem(where=where, found=found, expected=expected, action="Get a new token and put it into KFP_TOKEN.")]
        )
    if status == 403:
        expected = f"rights to {what}{f' in namespace {endpoint.namespace}' if endpoint.namespace else ''}"
        action = "Ask for the rights, or name your own namespace with --namespace. The token itself is accepted."
        return BadInput([Problem(where=where, found=said, expected=expected, action=action)])
    if status == 404:
        action = "Look at what there is: `kubeflow_runner.py runs`."
        return NotFound([Problem(where=where, found=said, expected="something that is there", action=action)])
    if status == 409:
        action = "Choose another name, or remove what has it."
        return Conflict([Problem(where=where, found=said, expected="a name that is free", action=action)])
    action = "Correct what the message names; `kubeflow_runner.py check` tells more of the pipeline."
    return BadInput([Problem(where=where, found=said, expected="a request that Kubeflow accepts", action=action)])


def _tell_connection(error: Exception, *, what: str, endpoint: Endpoint) -> EvergreenError:
    where = f"{endpoint.source} ({endpoint.url})"
    chain = list(_causes(error))
    text = " ".join(str(part) for part in chain)
    host = urllib.parse.urlsplit(endpoint.url).netloc
    if any(isinstance(part, ssl.SSLError) for part in chain) or "SSLError" in text or "CERTIFICATE" in text:
        action = "Name the certificates with --ca-file, or correct http:// or https://."
        return BadInput([Problem(where=where, found=_one_line(text), expected="a TLS connection", action=action)])
    if any(isinstance(part, socket.gaierror) for part in chain) or "resolve" in text:
        found = f"no machine by the name of {host}"
        return BadInput([Problem(where=where, found=found, expected="a name that is known", action=_HOW_TO_REACH)])
    if any(isinstance(part, ConnectionRefusedError) for part in chain) or "refused" in text:
        found = f"nobody listens at {host}: the connection was refused"
    elif "timed out" in text.lower() or any(isinstance(part, TimeoutError) for part in chain):
        found = f"no answer from {host} in time"
    else:
        found = f"the connection to {host} broke off: {_one_line(text)}"
    action = f"Kubeflow is not reachable (the token was not looked at). {_HOW_TO_REACH}"
    return Unreachable([Problem(where=where, found=found, expected=f"an answer, to {what}", action=action)])


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        part = queue.pop(0)
        if not isinstance(part, BaseException) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        queue += [part.__cause__, part.__context__, getattr(part, "reason", None), *part.args]


def _message(error: Exception) -> str:
    """Returns the sentence of an answer that refuses; Kubeflow's is JSON, a proxy's is anything."""
    body = getattr(error, "body", None)
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        text = str(document.get("message") or document.get("error_message") or document.get("error") or "")
    elif "<" in text:
        text = re.sub(r"<[^>]*>", " ", text)
    return _one_line(text or str(getattr(error, "reason", None) or ""))


def _one_line(text: str, length: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."
