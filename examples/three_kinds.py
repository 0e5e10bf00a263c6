"""Kubeflow's three kinds of component in one small pipeline, beside the serving model of ours.

    python examples/three_kinds.py --image registry.example/evergreen@sha256:... --output runs/kubeflow/three_kinds.yaml
    python kubeflow_runner.py check --allow-tag runs/kubeflow/three_kinds.yaml

- lightweight: `draw_rows`, a Python function that Kubeflow's SDK puts into the specification as it stands;
- custom container: `ask_model`, a command of our image;
- prebuilt: `summary.yaml`, a finished component that somebody else describes in a file.

The nodes of the training pipeline are none of the three: TFX's compiler makes a container component of each of them.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent


def build(*, image: str) -> Any:
    """Returns the pipeline.

    Args:
        image: the project's image; it has Kubeflow's SDK, so that nothing is installed when a step starts.
    """
    from kfp import components, dsl

    @dsl.component(base_image=image, install_kfp_package=False)
    def draw_rows(rows: int, table: dsl.Output[dsl.Dataset]) -> None:
        import json
        import random

        with open(table.path, "w", encoding="utf-8") as file:
            for _ in range(rows):
                row = {"beta1": random.uniform(-5, 5), "beta2": random.uniform(-5, 5), "weekday": 0, "hour": 19}
                file.write(json.dumps(row) + "\n")

    @dsl.container_component
    def ask_model(  # type: ignore[no-untyped-def]  # noqa: ANN202 - the SDK takes no Any
        table: dsl.Input[dsl.Dataset], answers: dsl.Output[dsl.Dataset]
    ):
        return dsl.ContainerSpec(
            image=image,
            command=["python", "local_runner.py", "predict"],
            args=[
                *("--environment", "configs/environments/cluster.yaml", "--format", "jsonl"),
                *("--output", answers.path, table.path),
            ],
        )

    summarize = components.load_component_from_text((HERE / "summary.yaml").read_text().replace("IMAGE", image))

    @dsl.pipeline(name="three-kinds", description="Rows are drawn, the serving model is asked, the answers summed up.")
    def pipeline(rows: int = 100) -> None:
        drawn = draw_rows(rows=rows)
        asked = ask_model(table=drawn.outputs["table"])
        summed = summarize(table=asked.outputs["answers"], column="prediction")
        for task in (drawn, asked, summed):
            task.set_caching_options(False)
            task.set_cpu_request("250m").set_memory_request("1G").set_memory_limit("4G")

    return pipeline


def compiled(*, image: str, registry_claim: str) -> list[dict[str, Any]]:
    """Returns both documents: the specification, and where the registry is mounted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        specification = yaml.safe_load(yaml.safe_dump(_specification(build(image=image))))
    mount = {"pvcMount": [{"constant": registry_claim, "mountPath": "/mnt/registry"}]}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-ask-model": mount}}}}}
    return [specification, platform]


def _specification(pipeline: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    return dict(json_format.MessageToDict(pipeline.pipeline_spec))


def main() -> None:
    """Writes the compiled pipeline."""
    parser = argparse.ArgumentParser(description="Kubeflow's three kinds of component in one small pipeline.")
    parser.add_argument("--image", required=True, help="the project's image")
    parser.add_argument("--registry-claim", default="registry", help="the claim with the model registry")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    documents = compiled(image=options.image, registry_claim=options.registry_claim)
    options.output.write_text(yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
