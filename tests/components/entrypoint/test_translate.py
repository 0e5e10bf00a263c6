from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as parsing

from components.entrypoint import translate
from tests.components.entrypoint import recorded

DECLARED = ("blessing", "evaluation")


def to_tfx(given: dict | None = None) -> dict:
    return translate.to_tfx(given or recorded.evaluator(), recorded.INPUTS_SPEC, declared_outputs=DECLARED)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://bucket/a/b", "/minio/bucket/a/b"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("gs://bucket/a", "/gcs/bucket/a"),
        ("/mnt/registry", "/mnt/registry"),
    ],
)
def test_local_path_is_the_launchers(uri, path):
    assert translate.local_path(uri) == path


def test_inputs_get_the_types_that_the_launcher_leaves_empty():
    inputs = to_tfx()["inputs"]["artifacts"]
    assert inputs["examples"]["artifacts"][0]["type"] == {"instanceSchema": recorded.EXAMPLES_TYPE}
    assert inputs["model"]["artifacts"][0]["type"] == {"instanceSchema": recorded.MODEL_TYPE}


def test_a_type_that_is_there_stays():
    given = recorded.evaluator()
    given["inputs"]["artifacts"]["model"]["artifacts"][0]["type"] = {"schemaTitle": "tfx.Model"}
    assert to_tfx(given)["inputs"]["artifacts"]["model"]["artifacts"][0]["type"] == {"schemaTitle": "tfx.Model"}


def test_remote_uris_become_the_launchers_paths_on_both_sides():
    translated = to_tfx()
    for side in ("inputs", "outputs"):
        for listed in translated[side]["artifacts"].values():
            assert listed["artifacts"][0]["uri"].startswith(recorded.LOCAL)


def test_places_that_workers_elsewhere_open_stay_as_they_are():
    given = json.loads(json.dumps(recorded.evaluator()).replace("minio://", "gs://"))
    translated = translate.to_tfx(given, recorded.INPUTS_SPEC, declared_outputs=DECLARED, kept=["gs://"])
    uris = [
        listed["artifacts"][0]["uri"]
        for side in ("inputs", "outputs")
        for listed in translated[side]["artifacts"].values()
    ]
    assert all(uri.startswith("gs://") for uri in uris)
    assert not translate.is_local(translated)
    assert translate.is_local(to_tfx())
    assert translate.missing_outputs(given, declared_outputs=DECLARED, kept=["gs://"]) == []


def test_an_input_remembers_where_it_lies_for_others():
    artifact = to_tfx()["inputs"]["artifacts"]["model"]["artifacts"][0]
    assert artifact["metadata"]["remote_uri"].startswith("minio://mlpipeline/")


def test_metadata_of_inputs_is_without_the_backends_own():
    metadata = to_tfx()["inputs"]["artifacts"]["examples"]["artifacts"][0]["metadata"]
    assert {"span", "split_names", "tfx_version"} < set(metadata)
    assert not {"display_name", "store_session_info"} & set(metadata)


def test_metadata_that_the_backend_wrapped_is_unwrapped():
    given = recorded.evaluator()
    artifact = given["inputs"]["artifacts"]["examples"]["artifacts"][0]
    artifact["metadata"] |= {"counts": {"struct": {"train": 80.0}}, "files": {"list": ["a.csv"]}, "none": None}
    metadata = to_tfx(given)["inputs"]["artifacts"]["examples"]["artifacts"][0]["metadata"]
    assert (metadata["counts"], metadata["files"]) == ({"train": 80.0}, ["a.csv"])
    assert "none" not in metadata


def test_an_output_that_nobody_declared_is_dropped():
    assert set(to_tfx()["outputs"]["artifacts"]) == set(DECLARED)


def test_what_the_launcher_gave_is_not_touched():
    given = recorded.evaluator()
    to_tfx(given)
    assert given == recorded.evaluator()


def written() -> dict:
    """Returns what TFX writes for the recorded Evaluator."""
    local = to_tfx()["outputs"]["artifacts"]
    model = translate.local_path(recorded.uri(recorded.evaluator(), "model"))
    return {
        "artifacts": {
            "blessing": {
                "artifacts": [
                    {
                        "name": "projects/1",
                        "uri": local["blessing"]["artifacts"][0]["uri"],
                        "metadata": {
                            "blessed": 1.0,
                            "baseline_model": None,
                            "current_model": model,
                            "nested": {"a": None, "uri": f"at {model}", "list": [None, model]},
                        },
                    }
                ]
            },
            "evaluation": {"artifacts": [{"uri": local["evaluation"]["artifacts"][0]["uri"], "metadata": {}}]},
        }
    }


def test_output_metadata_comes_back_with_remote_uris_everywhere():
    told = translate.to_launcher(written(), recorded.evaluator())
    assert "/minio/" not in json.dumps(told)
    given = recorded.evaluator()["outputs"]["artifacts"]
    assert told["artifacts"]["blessing"]["artifacts"][0]["uri"] == given["blessing"]["artifacts"][0]["uri"]
    metadata = told["artifacts"]["blessing"]["artifacts"][0]["metadata"]
    model = recorded.evaluator()["inputs"]["artifacts"]["model"]["artifacts"][0]["uri"]
    assert metadata["current_model"] == model
    assert metadata["nested"] == {"uri": f"at {model}", "list": [model]}


def test_output_metadata_has_no_nulls():
    assert "null" not in json.dumps(translate.to_launcher(written(), recorded.evaluator()))


def test_output_parameters_have_no_nulls():
    told = translate.to_launcher({"parameterValues": {"rows": 3.0, "why": None}}, recorded.evaluator())
    assert told["parameterValues"] == {"rows": 3.0}


def test_output_metadata_has_only_what_the_launcher_merges():
    told = translate.to_launcher(written(), recorded.evaluator())
    assert all(set(listed["artifacts"][0]) == {"uri", "metadata"} for listed in told["artifacts"].values())


def test_output_metadata_of_an_output_that_nobody_gave_is_left_out():
    more = written()
    more["artifacts"]["extra"] = {"artifacts": [{"uri": "/tmp/extra"}]}
    assert "extra" not in translate.to_launcher(more, recorded.evaluator())["artifacts"]


def test_an_output_is_missing_without_a_file_in_it(tmp_path):
    given = recorded.evaluator()
    blessing = translate.local_path(
        given["outputs"]["artifacts"]["blessing"]["artifacts"][0]["uri"], root=str(tmp_path)
    )
    evaluation = blessing.replace("blessing", "evaluation")
    (tmp_path / blessing / "empty" / "folders").mkdir(parents=True)
    (tmp_path / evaluation).mkdir(parents=True)
    (tmp_path / evaluation / "metrics").write_text("1")
    missing = translate.missing_outputs(given, declared_outputs=DECLARED, root=str(tmp_path))
    assert missing == [f"blessing: {blessing}"]


def test_an_output_that_is_a_file_is_there(tmp_path):
    given = recorded.evaluator()
    del given["outputs"]["artifacts"]["evaluation"]
    path = tmp_path / translate.local_path(
        given["outputs"]["artifacts"]["blessing"]["artifacts"][0]["uri"], root=str(tmp_path)
    )
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert translate.missing_outputs(given, declared_outputs=DECLARED, root=str(tmp_path)) == []


@pytest.mark.parametrize("node", recorded.NODES)
def test_every_recorded_input_is_what_tfx_reads_and_its_outputs_what_the_launcher_took(node):
    recording, given = recorded.recording(node), recorded.executor_input(node)
    assert [path for path, there in recording["inputs_there"].items() if not there] == []
    declared = recorded.outputs(node)
    translated = translate.to_tfx(given, recorded.inputs_spec(node), declared_outputs=declared)
    text = json.dumps(translate.bind(translated, recorded.bindings(node), known={"run_id": recorded.RUN}))
    parsed = json_format.Parse(text, pipeline_spec_pb2.ExecutorInput())
    for artifacts in (parsed.inputs.artifacts, parsed.outputs.artifacts):
        for key, (artifact,) in parsing.parse_raw_artifact_dict(artifacts).items():
            assert artifact.type_name not in ("Artifact", ""), key
            assert artifact.uri.startswith("/minio/")
    # What was taken once is left as it is: it has remote URIs, no nulls, and no field that the launcher does not know.
    taken = recording["output_metadata"]
    assert set(taken["artifacts"]) == set(declared)
    assert translate.to_launcher(taken, given) == taken
    assert translate.run_id(given, task=node) == recorded.RUN


@pytest.mark.parametrize("node", recorded.NODES)
def test_tfx_fails_on_a_recorded_output_that_nobody_declared(node):
    parsed = json_format.Parse(json.dumps(recorded.executor_input(node)), pipeline_spec_pb2.ExecutorInput())
    with pytest.raises(ImportError, match=r"system\.Artifact"):
        parsing.parse_raw_artifact_dict(parsed.outputs.artifacts)


@pytest.mark.parametrize(
    "node", [node for node in recorded.NODES if recorded.executor_input(node)["inputs"].get("artifacts")]
)
def test_tfx_fails_on_the_empty_types_of_recorded_inputs(node):
    parsed = json_format.Parse(json.dumps(recorded.executor_input(node)), pipeline_spec_pb2.ExecutorInput())
    with pytest.raises(AttributeError):
        parsing.parse_raw_artifact_dict(parsed.inputs.artifacts)


def test_run_id_is_what_stands_before_the_task():
    assert translate.run_id(recorded.evaluator(), task="Evaluator") == recorded.RUN


def test_run_id_is_empty_where_the_uris_do_not_tell():
    assert translate.run_id(recorded.evaluator(), task="Trainer") == ""


def bound(values: dict, *bindings: str, **known) -> dict:
    given = {"inputs": {"parameterValues": values}}
    return translate.bind(given, bindings, known=known)["inputs"]["parameterValues"]


def test_a_parameter_goes_into_a_json_property():
    values = bound({"train_args": '{"splits": ["train"]}', "train_steps": 50.0}, "train_args.numSteps=train_steps")
    assert json.loads(values.pop("train_args")) == {"splits": ["train"], "numSteps": 50}
    assert values == {}


def test_a_parameter_becomes_a_property():
    assert bound({"spans": "2-5"}, "spans=spans") == {"spans": "2-5"}


@pytest.mark.parametrize("neutral", ["", 0.0])
def test_a_neutral_parameter_changes_nothing_and_does_not_reach_the_executor(neutral):
    assert bound({"data": '{"window": 7}', "window": neutral}, "data.window=window") == {"data": '{"window": 7}'}
    assert bound({"spans": neutral}, "spans=spans") == {}


@pytest.mark.parametrize(("given", "expected"), [(True, 1), (False, 0)])
def test_a_boolean_becomes_a_number_and_false_is_not_neutral(given, expected):
    values = bound({"push": given}, "push=push")
    assert values == {"push": expected}
    assert type(values["push"]) is int


def test_what_the_process_knows_goes_into_a_property():
    values = bound({"context": '{"config": {}}'}, "context.run_id=@run_id", run_id="r")
    assert json.loads(values["context"]) == {"config": {}, "run_id": "r"}
