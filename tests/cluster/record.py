"""Records what KFP's real launcher hands to each node, for the tests of the entrypoint.

    python -m tests.cluster.record patch COMPILED.yaml PATCHED.yaml FOLDER    # FOLDER as the pods see it, on a volume
    python kubeflow_runner.py run --package PATCHED.yaml
    python -m tests.cluster.record keep FOLDER                                # FOLDER as this machine sees it

The patched pipeline does what the compiled one does; each node first notes its arguments, the environment that the
launcher made and which of its places were there, and at the end the output metadata that the launcher then took.
`keep` writes one JSON file a node into tests/components/entrypoint/recorded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

KEPT = Path(__file__).resolve().parents[1] / "components" / "entrypoint" / "recorded"
ENTRYPOINT = ["python", "-m", "components.entrypoint"]
_RECORDER = """
import json, os, runpy, sys
arguments = sys.argv[2:]
given = json.loads(arguments[arguments.index("--json_serialized_invocation_args") + 1])
def listed(side):
    places = given.get(side, {}).get("artifacts", {})
    paths = [a["uri"].replace("minio://", "/minio/") for v in places.values() for a in v.get("artifacts", [])]
    return {path: os.path.exists(path) for path in paths}
told = {"arguments": arguments, "environment": sorted(k for k in os.environ if k.startswith("KFP_")),
        "inputs_there": listed("inputs"), "outputs_there": listed("outputs")}
sys.argv[1:] = arguments
try:
    runpy.run_module("components.entrypoint", run_name="__main__", alter_sys=True)
except SystemExit as error:
    told["exit_code"] = error.code
told["output_metadata"] = json.load(open(given["outputs"]["outputFile"]))
os.makedirs(FOLDER, exist_ok=True)
with open(os.path.join(FOLDER, arguments[arguments.index("--task") + 1] + ".json"), "w") as file:
    json.dump(told, file)
sys.exit(told["exit_code"])
"""


def patch(compiled: Path, patched: Path, folder: str) -> None:
    """Writes the pipeline whose nodes record themselves in `folder`."""
    documents = list(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        container = executor["container"]
        if container["command"] == ENTRYPOINT:
            container["command"] = ["python", "-c", f"FOLDER = {folder!r}\n{_RECORDER}", "--"]
    patched.write_text(yaml.safe_dump_all(documents), encoding="utf-8")


def keep(folder: Path) -> None:
    """Keeps the recordings, without what differs from one compilation to the next for no reason of the launcher's."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.json")):
        recorded = json.loads(path.read_text(encoding="utf-8"))
        (KEPT / path.name).write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{path.stem}: exit code {recorded['exit_code']}")


if __name__ == "__main__":
    if sys.argv[1] == "patch":
        patch(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        keep(Path(sys.argv[2]))
