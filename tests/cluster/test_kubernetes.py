"""The RayJob and the image agree with the project and with the fields of KubeRay that they use."""

import copy
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError, validate

ROOT = Path(__file__).parents[2]
TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the schema of an object that has no other keys than these."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
CONTAINER = closed(
    {"name": TEXT, "image": TEXT},
    resources=closed({"requests": AMOUNTS, "limits": AMOUNTS}),
    envFrom={
        "type": "array",
        "items": closed({"secretRef": closed({"name": TEXT}, optional={"type": "boolean"})}),
    },
)
TOLERATION = closed({"key": TEXT, "operator": {"enum": ["Exists", "Equal"]}, "effect": TEXT})
POD = closed(
    {
        "spec": closed(
            {"containers": {"type": "array", "items": CONTAINER, "minItems": 1}},
            tolerations={"type": "array", "items": TOLERATION},
        )
    }
)
WORKERS = closed(
    {"groupName": TEXT, "minReplicas": COUNT, "maxReplicas": COUNT, "template": POD},
    replicas=COUNT,
    rayStartParams=TEXTS,
)
# The part of KubeRay's types RayJobSpec and RayClusterSpec (ray.io/v1) that the file uses, by hand.
# The whole definition of KubeRay has more than a megabyte.
JOB = closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": closed({"name": TEXT}),
        "spec": closed(
            {
                "entrypoint": TEXT,
                "rayClusterSpec": closed(
                    {"headGroupSpec": closed({"template": POD}, rayStartParams=TEXTS)},
                    rayVersion=TEXT,
                    authOptions=closed({"mode": {"enum": ["disabled", "token"]}}),
                    enableInTreeAutoscaling={"type": "boolean"},
                    autoscalerOptions=closed({}, idleTimeoutSeconds=COUNT),
                    workerGroupSpecs={"type": "array", "items": WORKERS},
                ),
            },
            backoffLimit=COUNT,
            shutdownAfterJobFinishes={"type": "boolean"},
        ),
    }
)


@pytest.fixture
def job() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "cluster" / "kuberay.yaml").read_text())
    assert isinstance(content, dict)
    return content


def pinned(package: str) -> str:
    """Return the version of a package in constraints.txt."""
    [version] = re.findall(rf"(?m)^{package}==(\S+)$", (ROOT / "constraints.txt").read_text())
    return str(version)


def test_the_file_has_the_fields_of_kuberay(job: dict[str, Any]) -> None:
    validate(job, JOB)
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpec"] = []
    with pytest.raises(ValidationError):
        validate(wrong, JOB)


def test_the_driver_is_told_how_far_the_cluster_grows(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    start = cluster["headGroupSpec"]["rayStartParams"]
    assert start["num-cpus"] == "0"
    [shown] = shlex.split(start["resources"])  # KubeRay puts the text into a shell command
    [workers] = cluster["workerGroupSpecs"]
    [container] = workers["template"]["spec"]["containers"]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert json.loads(shown) == {"max_gpus": workers["maxReplicas"] * gpus}
    assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 8)
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_job_runs_a_command_of_the_project(job: dict[str, Any]) -> None:
    python, flag, module, *options = shlex.split(job["spec"]["entrypoint"])
    assert (python, flag, module) == ("python", "-m", "harness.scale")
    assert (ROOT / "harness" / "scale.py").exists()
    assert any(option.startswith("run_dir=s3://") for option in options)


def test_the_image_has_the_project_and_the_tested_versions() -> None:
    lines = (ROOT / "cluster" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert steps[0] == ["FROM", "python:3.11-slim"]
    copied = {path for step, text in steps if step == "COPY" for path in text.split()[:-1]}
    assert all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert copied == {*packages, project["project"]["readme"], "pyproject.toml", "constraints.txt"}
    [install] = [text for step, text in steps if step == "RUN" and "pip install" in text]
    assert install.endswith("--constraint constraints.txt '.[cluster]'")
    assert project["project"]["optional-dependencies"]["cluster"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
