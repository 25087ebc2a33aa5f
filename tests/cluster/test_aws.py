"""Ray's own code for AWS and the preflight, against AWS as the package moto plays it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.botocore_stubber import BotocoreStubber
from moto.servicequotas.models import ServiceQuotasBackend

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "cluster"))
import preflight  # noqa: E402  (cluster/ is a folder of scripts, not a package)

sys.path.pop(0)

REGION = "us-west-2"
FILES = ["cpu.yaml", "gpu.yaml", "gpu_h100.yaml"]
# vCPUs: one m7i.xlarge on demand, and eight spot machines
NEEDED = {
    "cpu.yaml": {"L-1216C47A": 4, "L-34B43A08": 8 * 32},
    "gpu.yaml": {"L-1216C47A": 4, "L-3819A6DF": 8 * 4},
    "gpu_h100.yaml": {"L-1216C47A": 4, "L-C4BD4855": 8 * 16},
}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the calls to AWS, in order. moto answers them. The home folder is temporary."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    names: list[str] = []
    answer = BotocoreStubber.__call__

    def noting(self: BotocoreStubber, event_name: str, request: Any, **kwargs: Any) -> Any:
        names.append(event_name.rpartition(".")[2])
        return answer(self, event_name, request, **kwargs)

    monkeypatch.setattr(BotocoreStubber, "__call__", noting)
    with mock_aws():
        yield names


def load(name: str) -> dict[str, Any]:
    """Return the content of a cluster file, with the defaults that Ray adds."""
    from ray.autoscaler._private.util import prepare_config

    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster" / name).read_text()))
    return config


def image_of(config: dict[str, Any]) -> str:
    """Return the image of all node types; the types must have the same image."""
    [image] = {kind["node_config"]["ImageId"] for kind in config["available_node_types"].values()}
    assert isinstance(image, str)
    return image


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
# Ray leaves the file ray-bootstrap open until the garbage is collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_head_starts_from_the_parameter_and_workers_from_the_head_s_image(
    name: str, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.autoscaler._private.aws import config as aws_config
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.aws.utils import client_cache, resource_cache
    from ray.autoscaler._private.commands import _set_up_config_for_head_node

    client_cache.cache_clear()
    resource_cache.cache_clear()
    given = load(name)
    # Ray would make a role from AWS's own policies, which moto loads within a minute.
    boto3.client("iam", REGION).create_instance_profile(InstanceProfileName="role")
    given["available_node_types"]["head"]["node_config"]["IamInstanceProfile"] = {"Name": "role"}
    config = aws_config.bootstrap_aws(given)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    head = config["available_node_types"]["head"]["node_config"]
    [started] = provider.create_node(head, {}, 1).values()
    assert started.image_id == image_of(load(name))
    assert started.image_id.startswith(preflight.PUBLIC_PARAMETER)

    # Ray writes the file of the head; the head changes the file before Ray starts there.
    _, file = _set_up_config_for_head_node(config, provider, False)
    target = tmp_path / "ray_bootstrap_config.yaml"
    target.write_text(Path(file.name).read_text())
    assert pin_image(tmp_path, "ami-0123456789abcdef0").returncode == 0
    on_head = yaml.safe_load(target.read_text())
    assert image_of(on_head) == "ami-0123456789abcdef0"
    expected = json.loads(Path(file.name).read_text())
    for kind in expected["available_node_types"].values():
        kind["node_config"]["ImageId"] = "ami-0123456789abcdef0"
    assert on_head == expected  # nothing else has changed

    worker = on_head["available_node_types"]["worker"]["node_config"]
    [started] = provider.create_node(worker, {}, 1).values()
    assert started.image_id == "ami-0123456789abcdef0"
    assert started.instance_type == worker["InstanceType"]
    assert calls.count("RunInstances") == 2


def pin_image(home: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Run pin_image.sh in a home folder. The machine's service answers each question alike."""
    programs = home / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "curl").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (programs / "curl").chmod(0o755)
    return subprocess.run(
        ["bash", ROOT / "cluster" / "pin_image.sh"],
        env={"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


def test_the_head_refuses_an_answer_that_is_no_image(tmp_path: Path) -> None:
    target = tmp_path / "ray_bootstrap_config.yaml"
    target.write_text('{"ImageId": "resolve:ssm:/aws/name"}')
    done = pin_image(tmp_path, "<html>")
    assert done.returncode == 1
    assert "must be ami-…, got <html>" in done.stderr
    assert "resolve:ssm" in target.read_text()


def test_the_head_keeps_an_image_of_the_user(tmp_path: Path) -> None:
    target = tmp_path / "ray_bootstrap_config.yaml"
    target.write_text('{"ImageId": "ami-0feed"}')
    assert pin_image(tmp_path, "<html>").returncode == 0  # the service is not asked
    assert target.read_text() == '{"ImageId": "ami-0feed"}'


def prepare(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Provide all that a cluster file needs. Returns the quotas, which the test may change."""
    # Imported here, because this module reads large files when it is imported.
    from moto.ssm.models import Parameter, ssm_backends

    monkeypatch.chdir(ROOT)
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o600)
    monkeypatch.setattr(preflight.shutil, "which", lambda program: f"/usr/bin/{program}")
    image = boto3.client("ec2", REGION).register_image(Name="image", Architecture="x86_64")
    parameter = image_of(load(name)).removeprefix(preflight.PUBLIC_PARAMETER)
    ssm_backends[DEFAULT_ACCOUNT_ID][REGION]._parameters[parameter].append(
        Parameter(
            account_id=DEFAULT_ACCOUNT_ID,
            name=parameter,
            value=image["ImageId"],
            parameter_type="String",
            description=None,
            allowed_pattern=None,
            keyid=None,
            last_modified_date=datetime.now(UTC),
            version=1,
            data_type="aws:ec2:image",
        )
    )
    quotas: dict[str, float] = dict(NEEDED[name])

    def quota(self: ServiceQuotasBackend, service_code: str, quota_code: str) -> dict[str, Any]:
        assert service_code == "ec2"
        return {"QuotaCode": quota_code, "QuotaName": "name", "Value": quotas[quota_code]}

    monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", quota)  # moto has VPC's only
    return quotas


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_missing_and_nothing_is_started(
    name: str, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(name, tmp_path, monkeypatch)
    calls.clear()
    assert list(preflight.problems(load(name))) == []
    assert calls
    assert all(call.startswith(("Describe", "Get")) for call in calls)


def test_each_missing_thing_has_one_line(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas = prepare("gpu.yaml", tmp_path, monkeypatch)
    config = load("gpu.yaml")

    def only(word: str, config: dict[str, Any] = config) -> None:
        [line] = preflight.problems(config)
        assert word in line
        assert "\n" not in line
        assert ", got " in line

    quotas["L-3819A6DF"] = 8
    only("must be at least 32 vCPUs for the full cluster, got 8")
    quotas["L-3819A6DF"] = 32
    token = tmp_path / ".ray" / "auth_token"
    token.chmod(0o644)
    only("chmod 600")
    token.unlink()
    only("ray get-auth-token --generate")
    token.write_text("secret")
    token.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    only("go to the project's folder")
    monkeypatch.chdir(ROOT)

    elsewhere = config["provider"] | {"availability_zone": "us-west-2a,us-west-9z"}
    only("got us-west-9z", config | {"provider": elsewhere})
    for key, wrong in (("ImageId", "ami-00000000000000000"), ("ImageId", "resolve:ssm:/none")):
        changed = load("gpu.yaml")
        changed["available_node_types"]["worker"]["node_config"][key] = wrong
        only(f"got {wrong}", changed)
    monkeypatch.setattr(preflight.shutil, "which", lambda program: program != "rsync")
    only("rsync must be on the PATH")


def test_without_credentials_aws_is_not_asked(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("gpu.yaml", tmp_path, monkeypatch)
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: None)
    calls.clear()
    [line] = preflight.problems(load("gpu.yaml"))
    assert line.startswith("credentials of AWS must be given, got none")
    assert calls == []


def test_the_command_ends_with_2_if_something_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "cluster" / "preflight.py"]
    environment = {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    done = subprocess.run(
        [*command, "cluster/local.yaml"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert len(lines) == 4  # ray, rsync, ssh, the token
    assert all(line.startswith("missing: ") for line in lines)
    done = subprocess.run([*command, "pyproject.toml"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "must be a cluster file" in done.stderr
