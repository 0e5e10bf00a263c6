"""Executor inputs as Kubeflow's launcher gives them (2.14, PUBLISH_LOGS on), and the input definitions beside them."""

from __future__ import annotations

import copy
import json

RUN = "0c2f4f3e-6c1e-4a5b-9d57-0d5f3c0f9a11"
_SALT = "7b1e0f0a-1111-4222-8333-444455556666"
ROOT = f"minio://mlpipeline/v2/artifacts/humidity/{RUN}"
LOCAL = ROOT.replace("minio://", "/minio/")

EXAMPLES_TYPE = (
    "title: tfx.Examples\ntype: object\nproperties:\n  span:\n    type: integer\n  split_names:\n    type: string\n"
)
MODEL_TYPE = "title: tfx.Model\ntype: object\n"
BLESSING_TYPE = "title: tfx.ModelBlessing\ntype: object\n"
EVALUATION_TYPE = "title: tfx.ModelEvaluation\ntype: object\n"

INPUTS_SPEC = {
    "artifacts": {
        "examples": {"artifactType": {"instanceSchema": EXAMPLES_TYPE}},
        "model": {"artifactType": {"instanceSchema": MODEL_TYPE}},
    },
    "parameters": {"settings": {"parameterType": "STRING"}, "steps": {"parameterType": "NUMBER_INTEGER"}},
}

_EVALUATOR = {
    "inputs": {
        "parameterValues": {"settings": '{"bound": 2.5}', "steps": 3.0},
        "artifacts": {
            "examples": {
                "artifacts": [
                    {
                        "name": "17",
                        "type": {"instanceSchema": ""},
                        "uri": f"{ROOT}/ExampleGen/{_SALT}/examples",
                        "metadata": {
                            "display_name": "examples",
                            "store_session_info": '{"Provider":"minio","Params":{"fromEnv":"false"}}',
                            "span": 2.0,
                            "split_names": '["train", "eval"]',
                            "complete": 1.0,
                            "counts": {"struct": {"train": 80.0, "eval": 10.0}},
                            "files": {"list": ["a.csv", "b.csv"]},
                        },
                    }
                ]
            },
            "model": {
                "artifacts": [
                    {
                        "name": "21",
                        "type": {"instanceSchema": ""},
                        "uri": f"{ROOT}/Trainer/{_SALT}/model",
                        "metadata": {"display_name": "model"},
                    }
                ]
            },
        },
    },
    "outputs": {
        "parameters": {},
        "artifacts": {
            "blessing": {
                "artifacts": [{"type": {"instanceSchema": BLESSING_TYPE}, "uri": f"{ROOT}/Evaluator/{_SALT}/blessing"}]
            },
            "evaluation": {
                "artifacts": [
                    {"type": {"instanceSchema": EVALUATION_TYPE}, "uri": f"{ROOT}/Evaluator/{_SALT}/evaluation"}
                ]
            },
            "executor-logs": {
                "artifacts": [
                    {"type": {"schemaTitle": "system.Artifact"}, "uri": f"{ROOT}/Evaluator/{_SALT}/executor-logs"}
                ]
            },
        },
        "outputFile": "/tmp/kfp_outputs/output_metadata.json",
    },
}


def evaluator() -> dict:
    """Returns the executor input of an Evaluator of two inputs and two outputs."""
    return copy.deepcopy(_EVALUATOR)


def inputs_spec() -> str:
    """Returns the component's input definitions, as the container's argument has them."""
    return json.dumps(INPUTS_SPEC)
