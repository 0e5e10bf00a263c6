"""The manifests of `deploy/`: strict YAML, rendered by Kustomize itself, each kind by its schema, names that hold."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

from tests.deploy import manifests
from tests.deploy.manifests import DEPLOY

FILES = sorted(DEPLOY.rglob("*.yaml"))
FOLDERS = sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml"))
ENTRIES = [
    "storage",
    "serving/base",
    "serving/overlays/canary",
    "serving/overlays/blue-green",
    "kserve",
    "training/base",
    "training/overlays/gpu",
    "monitoring",
]
"""What a person applies."""
CONFIGS = sorted(DEPLOY.rglob("models.config"))


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Returns the objects of every entry, and of the base with its registry in a bucket."""
    command = manifests.kustomize()
    if command is None:
        pytest.skip("neither kustomize nor kubectl nor Go is here")
    objects = {entry: manifests.rendered(command, DEPLOY / entry) for entry in ENTRIES}
    bucket = tmp_path_factory.mktemp("bucket")
    base, component = (Path("/") / DEPLOY / part for part in ("serving/base", "serving/components/bucket"))
    up = Path(*[".."] * (len(bucket.parts) - 1))
    (bucket / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [str(up / base.relative_to("/"))],
                "components": [str(up / component.relative_to("/"))],
            }
        )
    )
    objects["bucket"] = manifests.rendered(command, bucket)
    return objects


def every(built, *kinds):
    return [(entry, item) for entry, items in built.items() for item in items if not kinds or item["kind"] in kinds]


def named(items, kind, name):
    return next((item for item in items if item["kind"] == kind and item["metadata"]["name"] == name), None)


def all_pods(built):
    return [(entry, pod) for entry, item in every(built) for pod in manifests.pods(item)]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_file_is_strict_yaml_and_used(path):
    assert manifests.read(path.read_text(encoding="utf-8"))
    if path.name == "kustomization.yaml":
        return
    (kustomization,) = manifests.read((path.parent / "kustomization.yaml").read_text(encoding="utf-8"))
    assert path.name in kustomization["resources"]


def test_a_key_that_stands_twice_is_not_strict_yaml():
    with pytest.raises(yaml.YAMLError, match="twice"):
        manifests.read("a: 1\nb: {c: 1, c: 2}\n")


def test_every_folder_is_an_entry_or_part_of_one():
    used = {DEPLOY / entry for entry in ENTRIES}
    for folder in FOLDERS:
        (kustomization,) = manifests.read((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        used |= {(folder / name).resolve() for name in kustomization.get("resources", ()) if not name.endswith(".yaml")}
    assert set(FOLDERS) - used == {DEPLOY / "serving/components/bucket"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.parent.relative_to(DEPLOY)))
def test_serving_reads_its_configuration(path):
    from tensorflow_serving.config import model_server_config_pb2

    config = text_format.Parse(path.read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.base_path == f"/mnt/registry/{model.name}"
    policy = model.model_version_policy
    for version in model.version_labels.values():
        # A label of a version that is not loaded leads nowhere.
        assert version in policy.specific.versions


def test_the_tracks_of_a_canary_have_labels_of_their_own():
    from tensorflow_serving.config import model_server_config_pb2

    labels = {}
    for track in ("stable", "canary"):
        text = (DEPLOY / "serving/overlays/canary" / track / "models.config").read_text(encoding="utf-8")
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        labels[track] = list(config.model_config_list.config[0].version_labels)
    assert labels == {"stable": ["stable"], "canary": ["canary"]}


# --- rendered --------------------------------------------------------------------------------------------------------


def test_every_object_is_what_its_schema_says(built):
    assert [fault for _, item in every(built) for fault in manifests.faults(item)] == []


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("Deployment", lambda o: o["spec"].update(replica=1), "replica"),
        ("Deployment", lambda o: o["spec"]["template"]["spec"].update(containers={}), "a list"),
        ("Deployment", lambda o: o["spec"].update(revisionHistoryLimit="5"), "expected int"),
        ("TFJob", lambda o: o["spec"]["runPolicy"].update(backofLimit=1), "backofLimit"),
        ("ServiceMonitor", lambda o: o["spec"]["endpoints"][0].update(interval=30), "interval"),
        ("PrometheusRule", lambda o: o["spec"]["groups"][0]["rules"][0].update(sumary="x"), "sumary"),
        ("InferenceService", lambda o: o["spec"]["predictor"].update(minReplica=1), "minReplica"),
        ("InferenceService", lambda o: o.update(apiVersion="serving.kserve.io/v1"), "apiVersion"),
    ],
)
def test_the_schemas_find_mistakes(built, kind, change, words):
    _, item = next(iter(every(built, kind)))
    broken = copy.deepcopy(item)
    change(broken)
    assert [fault for fault in manifests.faults(broken) if words in fault]


def test_no_object_stands_twice_and_all_share_a_namespace(built):
    for entry, items in built.items():
        names = [(item["kind"], item["metadata"]["name"]) for item in items]
        assert len(names) == len(set(names)), entry
        assert {item["metadata"].get("namespace") for item in items} == {"kubeflow"}, entry


def test_every_selector_finds_the_pods_that_it_means(built):
    found = 0
    for entry, item in every(built):
        templates = [pod["metadata"]["labels"] for _, pod in all_pods({entry: built[entry]})]
        if item["kind"] == "Service":
            matching = [
                labels for labels in templates if manifests.selects({"matchLabels": item["spec"]["selector"]}, labels)
            ]
        elif item["kind"] == "Deployment":
            selector = item["spec"]["selector"]
            assert manifests.selects(selector, item["spec"]["template"]["metadata"]["labels"])
            matching = [labels for labels in templates if manifests.selects(selector, labels)]
            # Else two Deployments would fight over pods.
            assert len(matching) == 1, (entry, item["metadata"]["name"])
        elif item["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = item["spec"].get("selector") or item["spec"]["podSelector"]
            matching = [labels for labels in templates if manifests.selects(selector, labels)]
            # A pod with two budgets cannot be evicted at all.
            assert item["kind"] == "NetworkPolicy" or len(matching) == 1, (entry, item["metadata"]["name"])
        else:
            continue
        assert matching, (entry, item["kind"], item["metadata"]["name"])
        found += 1
    assert found > 20


def test_every_port_that_is_named_is_a_port_of_the_pods(built):
    for entry, items in built.items():
        for _, pod in all_pods({entry: items}):
            for container in pod["spec"]["containers"]:
                ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    if probe in container:
                        check = container[probe].get("httpGet") or container[probe]["tcpSocket"]
                        assert check["port"] in ports, (entry, probe)
                for argument in container.get("args", ()):
                    if found := re.fullmatch(r"--(rest_api_)?port=(\d+)", argument):
                        assert ports["http" if found[1] else "grpc"] == int(found[2])
        services = [item for item in items if item["kind"] == "Service"]
        policies = [item for item in items if item["kind"] == "NetworkPolicy"]
        for service in services:
            assert {port["targetPort"] for port in service["spec"]["ports"]} == {"grpc", "http"}
        for policy in policies:
            assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == {"grpc", "http"}


def test_what_pods_mount_is_there(built):
    claims = {item["metadata"]["name"] for _, item in every(built, "PersistentVolumeClaim")}
    assert claims == {"registry", "data"}
    for entry, pod in all_pods(built):
        spec = pod["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounts == set(volumes), entry
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "configMap" in volume:
                assert named(built[entry], "ConfigMap", volume["configMap"]["name"])
        account = spec.get("serviceAccountName")
        assert account is None or named(built[entry], "ServiceAccount", account)
        for argument in (argument for container in spec["containers"] for argument in container.get("args", ())):
            if file := re.fullmatch(r"--\w+_config_file=/etc/serving/(.+)", argument):
                name = volumes["config"]["configMap"]["name"]
                assert file[1] in named(built[entry], "ConfigMap", name)["data"]


def test_only_training_writes_and_never_to_the_registry(built):
    for entry, pod in all_pods(built):
        for container in pod["spec"]["containers"]:
            for mount in container["volumeMounts"]:
                if mount["name"] == "registry":
                    assert mount["readOnly"], entry


def test_a_bucket_needs_no_claim_and_may_be_reached(built):
    (deployment,) = [item for item in built["bucket"] if item["kind"] == "Deployment"]
    assert [volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]] == ["config", "tmp"]
    (policy,) = [item for item in built["bucket"] if item["kind"] == "NetworkPolicy"]
    assert 443 in [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]


def test_the_claims_are_shared_by_many_pods(built):
    for _, item in every(built, "PersistentVolumeClaim"):
        assert item["spec"]["accessModes"] == ["ReadWriteMany"]
        # A class that is named would have to exist in every cluster.
        assert "storageClassName" not in item["spec"]


def test_no_pod_is_root_and_none_may_become_it(built):
    for entry, pod in all_pods(built):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], entry
        assert spec["securityContext"]["runAsUser"] > 0, entry
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
    for _, item in every(built, "InferenceService"):
        predictor = item["spec"]["predictor"]
        assert predictor["securityContext"]["runAsNonRoot"]
        assert predictor["securityContext"]["runAsUser"] > 0
        assert predictor["model"]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_every_container_says_what_it_needs(built):
    containers = [container for _, pod in all_pods(built) for container in pod["spec"]["containers"]]
    containers += [item["spec"]["predictor"]["model"] for _, item in every(built, "InferenceService")]
    assert len(containers) >= 10
    for container in containers:
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_every_image_has_a_version_of_its_own(built):
    found = {image for _, item in every(built) for image in manifests.images(item)}
    assert found
    for image in found:
        _, _, tag = image.rpartition("/")[2].partition(":")
        assert re.fullmatch(r"\d+\.\d+\.\d+", tag) or re.search(r"@sha256:[0-9a-f]{64}$", image), image


def test_serving_is_the_version_that_trains(built):
    from importlib import metadata

    major_minor = metadata.version("tensorflow").rpartition(".")[0]
    versions = {
        image.partition(":")[2]
        for _, item in every(built, "Deployment")
        for image in manifests.images(item)
        if image.startswith("tensorflow/serving")
    }
    versions |= {item["spec"]["predictor"]["model"]["runtimeVersion"] for _, item in every(built, "InferenceService")}
    assert {version.rpartition(".")[0] for version in versions} == {major_minor}


def test_probes_ask_for_the_model_that_is_configured(built):
    for entry, item in every(built, "Deployment"):
        container = item["spec"]["template"]["spec"]["containers"][0]
        name = next(v for v in item["spec"]["template"]["spec"]["volumes"] if v["name"] == "config")["configMap"][
            "name"
        ]
        model = re.search(r'name: "(\w+)"', named(built[entry], "ConfigMap", name)["data"]["models.config"])[1]
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["path"] == f"/v1/models/{model}/metadata"


def test_rolling_updates_take_nothing_away_and_end(built):
    for _, item in every(built, "Deployment"):
        spec = item["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert "replicas" not in spec
        container = spec["template"]["spec"]["containers"][0]
        pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        assert pause + 15 <= spec["template"]["spec"]["terminationGracePeriodSeconds"]
        probe = container["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] < spec["progressDeadlineSeconds"]


def test_every_deployment_has_its_autoscaler(built):
    for entry, items in built.items():
        deployments = {item["metadata"]["name"] for item in items if item["kind"] == "Deployment"}
        targets = {
            item["spec"]["scaleTargetRef"]["name"] for item in items if item["kind"] == "HorizontalPodAutoscaler"
        }
        assert targets == deployments, entry


# --- canary and blue-green -------------------------------------------------------------------------------------------


def reached(items, service):
    selector = {"matchLabels": named(items, "Service", service)["spec"]["selector"]}
    return {
        item["metadata"]["name"]
        for item in items
        for pod in manifests.pods(item)
        if manifests.selects(selector, pod["metadata"]["labels"])
    }


def test_a_canary_shares_the_requests_and_can_be_asked_alone(built):
    items = built["serving/overlays/canary"]
    assert reached(items, "serving") == {"serving-stable", "serving-canary"}
    assert reached(items, "serving-stable") == {"serving-stable"}
    assert reached(items, "serving-canary") == {"serving-canary"}
    few, many = (named(items, "HorizontalPodAutoscaler", f"serving-{track}")["spec"] for track in ("canary", "stable"))
    assert few["maxReplicas"] < many["minReplicas"]


def test_one_slot_gets_all_requests_and_the_other_the_preview(built):
    items = built["serving/overlays/blue-green"]
    live, preview = reached(items, "serving"), reached(items, "serving-preview")
    assert len(live) == len(preview) == 1
    assert live | preview == {"serving-blue", "serving-green"}


# --- the page about it -----------------------------------------------------------------------------------------------


def test_the_overlays_of_the_page_build(built, tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (DEPLOY.parent / "docs" / "deploy.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    (tmp_path / "deploy").symlink_to(DEPLOY)
    for number, block in enumerate(blocks):
        folder = tmp_path / f"overlay-{number}"
        folder.mkdir()
        up = Path(*[".."] * (len(folder.resolve().parts) - 1))
        text = block.replace("../deploy", str(up / DEPLOY.relative_to("/"))).replace(
            '"sha256:..."', '"sha256:' + "1" * 64 + '"'
        )
        (folder / "kustomization.yaml").write_text(text)
        (folder / "models.config").write_text('model_config_list { config { name: "humidity" base_path: "gs://b" } }\n')
        items = manifests.rendered(manifests.kustomize(), folder)
        assert [fault for item in items for fault in manifests.faults(item)] == []
        if number == 0:
            assert {item["metadata"]["namespace"] for item in items} == {"ml"}
            assert "tensorflow/serving@sha256:" + "1" * 64 in set(manifests.images(items))
        else:
            assert [item for item in items if "gs://b" in str(item.get("data"))]


def test_every_alert_stands_on_the_page(built):
    page = (DEPLOY.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([A-Z]\w+) \| ", page, re.M)
    (rules,) = [item for item in built["monitoring"] if item["kind"] == "PrometheusRule"]
    assert listed == [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]]


# --- monitoring ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["serving/base", "serving/overlays/canary", "serving/overlays/blue-green"])
def test_the_monitor_scrapes_every_pod_once(built, entry):
    (monitor,) = [item for item in built["monitoring"] if item["kind"] == "ServiceMonitor"]
    services = [item for item in built[entry] if item["kind"] == "Service"]
    scraped = [item for item in services if manifests.selects(monitor["spec"]["selector"], item["metadata"]["labels"])]
    assert [item["metadata"]["name"] for item in scraped] == ["serving"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in scraped[0]["spec"]["ports"]}
    for item in built[entry]:
        if item["kind"] == "ConfigMap":
            assert f'path: "{endpoint["path"]}"' in item["data"]["monitoring.config"]
    # The alerts select by the name of the job, which comes from this label.
    assert scraped[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "serving"


def test_every_alert_says_how_bad_it_is_and_what_to_do(built):
    (rules,) = [item for item in built["monitoring"] if item["kind"] == "PrometheusRule"]
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts) >= 8
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"]
        assert alert["expr"].count("(") == alert["expr"].count(")")
