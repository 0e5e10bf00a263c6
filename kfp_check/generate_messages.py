"""Writes the Go messages of KFP's two public protos anew, from the descriptors inside its Python packages.

The Go modules of these messages are not published for every release of KFP; the packages on PyPI are. Needed only
when KFP's version changes (`kfp_check/README.md` has the commands); what it writes is committed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

HERE = Path(__file__).resolve().parent
API = "github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
PLATFORM = "github.com/kubeflow/pipelines/kubernetes_platform/go/kubernetesplatform"


def main(plugin: str) -> None:
    """Writes both packages with the `protoc-gen-go` at `plugin`."""
    spec, platform = pipeline_spec_pb2.DESCRIPTOR, kubernetes_executor_config_pb2.DESCRIPTOR
    status = {"google/rpc/status.proto": "google.golang.org/genproto/googleapis/rpc/status"}
    _generate(plugin, spec, HERE / "messages/api/v2alpha1/go/pipelinespec", {spec.name: API, **status})
    imports = {platform.name: PLATFORM}
    _generate(plugin, platform, HERE / "messages/kubernetes_platform/go/kubernetesplatform", imports)


def _generate(plugin: str, descriptor: Any, folder: Path, imports: dict[str, str]) -> None:
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    _closure(descriptor, files)
    options = ["paths=source_relative", *(f"M{name}={package}" for name, package in imports.items())]
    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=[descriptor.name], parameter=",".join(options), proto_file=list(files.values())
    )
    answer = subprocess.run([plugin], input=request.SerializeToString(), capture_output=True, check=True)
    response = plugin_pb2.CodeGeneratorResponse.FromString(answer.stdout)
    if response.error:
        sys.exit(response.error)
    folder.mkdir(parents=True, exist_ok=True)
    for file in response.file:
        (folder / Path(file.name).name).write_text(file.content, encoding="utf-8")


def _closure(descriptor: Any, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    for dependency in descriptor.dependencies:
        _closure(dependency, files)
    if descriptor.name not in files:
        proto = descriptor_pb2.FileDescriptorProto()
        descriptor.CopyToProto(proto)
        files[descriptor.name] = proto


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plugin", default="protoc-gen-go", help="the protoc-gen-go to use")
    main(parser.parse_args().plugin)
