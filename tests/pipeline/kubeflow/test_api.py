"""The way to Kubeflow: each fault gives one clear error, nothing is created twice, tokens stay secret."""

from __future__ import annotations

import base64
import socket

import kfp_server_api
import pytest
import yaml

from evergreen.errors import BadInput, ExitCode
from pipeline.kubeflow.api import Access, Conflict, Endpoint, NotFound, ServerFault, Unreachable, connect, find_endpoint
from tests.pipeline.kubeflow.server import Fault, KubeflowServer, VirtualClock

TOKEN = "s3cr3t-t0ken"


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def server(clock):
    with KubeflowServer(clock) as running:
        yield running


def connected(server, **access):
    endpoint = find_endpoint(Access(endpoint=server.url, **access), environ={})
    return connect(endpoint, clock=server.clock)


def problem(caught):
    (only,) = caught.value.problems
    return only


# --- where Kubeflow is -----------------------------------------------------------------------------------------------


def test_options_count_more_than_the_environment_and_an_address_more_than_a_kubeconfig():
    environ = {"KFP_ENDPOINT": "https://b.example/pipeline/", "KFP_TOKEN": "t2", "KUBECONFIG": "/nowhere"}
    by_option = find_endpoint(Access(endpoint="http://a.example:8888", token="t1"), environ=environ)
    assert (by_option.url, by_option.token, by_option.source) == ("http://a.example:8888", "t1", "--endpoint")
    by_environment = find_endpoint(Access(), environ=environ)
    assert by_environment.url == by_environment.ui == "https://b.example/pipeline"
    assert (by_environment.token, by_environment.token_source) == ("t2", "KFP_TOKEN")
    assert find_endpoint(Access(kubeconfig="/some/file"), environ=environ).kubeconfig == "/some/file"


def test_inside_a_cluster_the_service_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    found = find_endpoint(Access(install_namespace="kfp"), environ={"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert found.url == "http://ml-pipeline.kfp.svc.cluster.local:8888"


def test_nothing_given_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    with pytest.raises(BadInput, match="KFP_ENDPOINT"):
        find_endpoint(Access(), environ={})


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("127.0.0.1:8888", "Write http://127.0.0.1:8888 or https"),
        ("ftp://a.example", "http:// or https://"),
        ("http://", "http:// or https://"),
        ("http://a.example:port", "http:// or https://"),
        ("http://user:pass@a.example", "KFP_TOKEN"),
    ],
)
def test_an_address_that_is_none(endpoint, words):
    with pytest.raises(BadInput, match=words) as caught:
        find_endpoint(Access(endpoint=endpoint), environ={})
    assert problem(caught).where == "--endpoint"


def test_a_token_that_is_none_is_told_with_every_other_problem():
    with pytest.raises(BadInput) as caught:
        find_endpoint(Access(endpoint="a.example", token="Bearer abc", ca_file="/no/such.pem"), environ={})
    assert [item.where for item in caught.value.problems] == ["--endpoint", "--token", "--ca-file"]


def test_the_line_feed_that_a_file_leaves_is_no_part_of_the_token():
    assert find_endpoint(Access(endpoint="http://a.example", token="abc\n"), environ={}).token == "abc"


# --- who answers -----------------------------------------------------------------------------------------------------


def test_the_token_goes_with_every_request(server):
    server.token = TOKEN
    api = connected(server, token=TOKEN)
    assert api.ask("list the runs", api.runs.list_runs).total_size == 0
    assert server.authorizations == [f"Bearer {TOKEN}"] * 2


def test_a_kubeconfig_leads_through_kubernetes_to_the_service(server, tmp_path):
    server.token = TOKEN
    file = tmp_path / "config"
    file.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": server.url}}],
                "users": [{"name": "u", "user": {"token": TOKEN}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    api = connect(find_endpoint(Access(), environ={"KUBECONFIG": str(file)}), clock=server.clock)
    assert api.endpoint.url.endswith("/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy")
    assert api.endpoint.ui.endswith("/api/v1/namespaces/kubeflow/services/ml-pipeline-ui:http/proxy")
    assert server.authorizations == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("content", ["", "- a list", "clusters: []\ncurrent-context: x"])
def test_a_kubeconfig_that_is_none(content, tmp_path):
    file = tmp_path / "config"
    file.write_text(content)
    with pytest.raises(BadInput, match="kubeconfig"):
        connect(find_endpoint(Access(kubeconfig=str(file)), environ={}))


def test_a_token_file_is_read_anew_for_every_request(server, tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    endpoint = Endpoint(url=server.url, ui=server.url, source="test", token_file=file)
    api = connect(endpoint, clock=server.clock)
    file.write_text("two\n")
    api.ask("list the runs", api.runs.list_runs)
    assert server.authorizations == ["Bearer one", "Bearer two"]


def test_old_kubeflow_is_told(clock):
    with KubeflowServer(clock, version=1) as server, pytest.raises(BadInput, match="version 1") as caught:
        connected(server)
    assert "Upgrade" in problem(caught).action


def test_something_else_at_the_address(server):
    server.faults = [Fault("GET", times=-1, status=404)]
    with pytest.raises(BadInput, match="no such page"):
        connected(server)
    server.faults = [Fault("GET", times=-1, status=200, body=b"<html>Welcome</html>")]
    with pytest.raises(BadInput, match="no JSON object"):
        connected(server)


def test_several_users_need_a_namespace(clock):
    with KubeflowServer(clock, multi_user=True) as server:
        with pytest.raises(BadInput, match="several users"):
            connected(server)
        assert connected(server, namespace="ada").namespace == "ada"


# --- faults ----------------------------------------------------------------------------------------------------------


def test_nobody_listens(clock):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match="refused") as caught:
            connect(find_endpoint(Access(endpoint=url, token=TOKEN), environ={}), clock=clock)
    assert caught.value.exit_code is ExitCode.FAULT
    assert "token was not looked at" in problem(caught).action
    # Two pauses between three attempts; nobody really waited.
    assert len(clock.waits) == 2


def test_a_wrong_token_is_told_at_once_and_from_unreachable(server):
    server.token = TOKEN
    with pytest.raises(BadInput) as caught:
        connected(server, token="wr0ng")
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert not isinstance(caught.value, Unreachable)
    assert "a token that Kubeflow knows (used: --token)" in str(caught.value)
    assert len(server.requests) == 1
    assert server.clock.waits == []


def test_a_redirect_to_a_login_page_is_a_wrong_token(server):
    server.faults = [Fault("GET", status=302, headers={"Location": f"{server.url}/dex/auth"})]
    with pytest.raises(BadInput, match="login page"):
        connected(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (403, BadInput, "rights to list the runs"),
        (404, NotFound, "something that is there"),
        (409, Conflict, "a name that is free"),
        (400, BadInput, "parameter note is not optional"),
    ],
)
def test_what_is_refused_is_refused_once_with_what_the_server_says(server, status, kind, words):
    api = connected(server)
    server.faults = [Fault("GET /runs", status=status, body=b'{"message": "parameter note is not optional"}')]
    with pytest.raises(kind, match=words) as caught:
        api.ask("list the runs", api.runs.list_runs)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert "parameter note is not optional" in problem(caught).found
    assert server.requests.count("GET /runs") == 1


@pytest.mark.parametrize("fault", [Fault("GET /runs", times=2, status=503), Fault("GET /runs", times=2)])
def test_a_passing_fault_is_got_over(server, fault):
    api = connected(server)
    server.faults = [fault]
    assert api.ask("list the runs", api.runs.list_runs).total_size == 0
    assert server.requests.count("GET /runs") == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_lasting_fault_of_the_server(server, status):
    api = connected(server)
    page = b"<html><h1>upstream is away</h1></html>"
    server.faults = [Fault("GET /runs", times=-1, status=status, body=page)]
    with pytest.raises(ServerFault, match=f"status {status}: upstream is away") as caught:
        api.ask("list the runs", api.runs.list_runs)
    assert caught.value.exit_code is ExitCode.FAULT
    assert server.requests.count("GET /runs") == 5
    # Each pause is longer than the one before.
    assert len(server.clock.waits) == 4
    assert server.clock.waits == sorted(set(server.clock.waits))


def test_a_refusal_that_is_no_text(server):
    api = connected(server)
    server.faults = [Fault("GET /runs", status=403, body=b"\xff\xfe\x00")]
    with pytest.raises(BadInput, match="rights to list the runs"):
        api.ask("list the runs", api.runs.list_runs)


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_network(server):
    api = connected(server)
    with pytest.raises(TypeError):
        api.ask("list the runs", lambda _request_timeout: len(None))
    assert server.clock.waits == []


def test_connections_that_always_break_off(server):
    api = connected(server)
    server.faults = [Fault("GET /runs", times=-1)]
    with pytest.raises(Unreachable, match="broke off"):
        api.ask("list the runs", api.runs.list_runs)


def test_plain_http_where_tls_was_asked_for(server):
    with pytest.raises(BadInput, match="a TLS connection"):
        connect(find_endpoint(Access(endpoint=server.url.replace("http", "https")), environ={}), clock=server.clock)


def test_deleting_what_a_lost_answer_deleted_is_no_error(server):
    api = connected(server)
    made = api.recurring.create_recurring_run(
        kfp_server_api.V2beta1RecurringRun(display_name="a", mode="ENABLE", experiment_id="e")
    )
    server.faults = [Fault("DELETE", after=True)]
    api.delete("delete a", api.recurring.delete_recurring_run, made.recurring_run_id)
    assert server.recurring() == []
    assert len([line for line in server.requests if line.startswith("DELETE")]) == 2


def test_no_message_shows_the_token(server):
    endpoint = find_endpoint(Access(endpoint=server.url, token=TOKEN), environ={})
    api = connect(endpoint, clock=server.clock)
    shown = [repr(endpoint), repr(Access(token=TOKEN))]
    for status in (0, 400, 401, 403, 404, 409, 500):
        server.faults = [Fault("GET /runs", times=-1, status=status)]
        with pytest.raises((BadInput, ServerFault, Unreachable)) as caught:
            api.ask("list the runs", api.runs.list_runs)
        shown.append(str(caught.value))
    secrets = (TOKEN, base64.b64encode(TOKEN.encode()).decode())
    assert not [text for text in shown for secret in secrets if secret in text]
