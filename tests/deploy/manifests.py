"""Reading manifests: strict YAML, Kustomize's own rendering, and the schemas of every kind."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from kubernetes import client

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUSTOMIZE = "v5.4.3"
SCHEMAS = Path(__file__).parent / "schemas"
Object = dict[str, Any]


# --- YAML ------------------------------------------------------------------------------------------------------------


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def read(text: str) -> list[Object]:
    return [document for document in yaml.load_all(text, Loader=_Strict) if document is not None]


# --- Kustomize -------------------------------------------------------------------------------------------------------


def kustomize() -> list[str] | None:
    """Returns the command that renders a folder: the program itself, a new kubectl's, or one that Go builds once."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if _kubectl_is_new():
        return ["kubectl", "kustomize"]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "evergreen" / f"kustomize-{KUSTOMIZE}"
    if not (cache / "kustomize").is_file():
        if shutil.which("go") is None:
            return None
        module = f"sigs.k8s.io/kustomize/kustomize/v5@{KUSTOMIZE}"
        subprocess.run(["go", "install", module], env={**os.environ, "GOBIN": str(cache)}, check=True, timeout=900)
    return [str(cache / "kustomize"), "build"]


def _kubectl_is_new() -> bool:
    """Says whether there is a kubectl whose Kustomize is of version 5, which is 1.27's."""
    if shutil.which("kubectl") is None:
        return False
    command = ["kubectl", "version", "--client", "--output=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r'"kustomizeVersion": "v(\d+)', done.stdout)
    return found is not None and int(found[1]) >= 5


def rendered(command: list[str], folder: Path) -> list[Object]:
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # A deprecated field still renders, until it does not.
    assert "deprecated" not in done.stderr, done.stderr
    return read(done.stdout)


# --- schemas ---------------------------------------------------------------------------------------------------------


def faults(item: Object) -> list[str]:
    """Returns where an object is not what its kind's schema says; an unknown kind is a fault as well."""
    file = SCHEMAS / f"{item['kind']}.json.gz"
    if not file.is_file():
        return list(_typed(item, _model(item), item["kind"]))
    known = json.loads(gzip.decompress(file.read_bytes()))
    if item["apiVersion"] != known["apiVersion"]:
        return [f"{item['kind']}: apiVersion {item['apiVersion']}, expected {known['apiVersion']}"]
    validator = jsonschema.Draft7Validator(_closed(known["schema"]))
    return [f"{item['kind']}.{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(item)]


def _closed(schema: Any) -> Any:
    """Refuses unknown fields, which a cluster would drop in silence."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields")
    # The definitions leave the standard head of an object open.
    is_head = (schema.get("properties") or {}).get("metadata") == {"type": "object"}
    if isinstance(schema.get("properties"), dict) and not is_open and not is_head:
        closed.setdefault("additionalProperties", False)
    return closed


def _model(item: Object) -> str:
    group, _, version = item["apiVersion"].rpartition("/")
    del group
    return f"{version[:1].upper()}{version[1:]}{item['kind']}"


def _typed(value: Any, kind: str, at: str) -> Iterator[str]:
    """Walks a built-in object along the types of Kubernetes' own client."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            yield f"{at}: expected a list"
            return
        for position, item in enumerate(value):
            yield from _typed(item, found[1], f"{at}[{position}]")
    elif found := re.fullmatch(r"dict\(str, (.*)\)", kind):
        for key, item in value.items():
            yield from _typed(item, found[1], f"{at}.{key}")
    elif kind in ("str", "int", "bool", "float"):
        expected = {"str": str, "int": int, "bool": bool, "float": (int, float)}[kind]
        if not isinstance(value, expected) or (kind == "int" and isinstance(value, bool)):
            yield f"{at}: expected {kind}, found {value!r}"
    elif kind not in ("object", "datetime"):
        model = getattr(client, kind, None)
        if model is None:
            yield f"{at}: unknown kind {kind}"
            return
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        for key, item in value.items():
            if key not in names:
                yield f"{at}.{key}: no such field in {kind}"
            else:
                yield from _typed(item, model.openapi_types[names[key]], f"{at}.{key}")


# --- what objects say ------------------------------------------------------------------------------------------------


def pods(item: Object) -> list[Object]:
    """Returns the pod templates of an object, with their labels."""
    if item["kind"] == "Deployment":
        return [item["spec"]["template"]]
    if item["kind"] == "TFJob":
        return [part["template"] for part in item["spec"]["tfReplicaSpecs"].values()]
    return []


def selects(selector: Object, labels: Object) -> bool:
    if not all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        if rule["operator"] == "DoesNotExist" and rule["key"] in labels:
            return False
        assert rule["operator"] == "DoesNotExist"
    return True


def images(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "image" and isinstance(value, str):
                yield value
            yield from images(value)
    elif isinstance(node, list):
        for value in node:
            yield from images(value)
