"""The cluster files follow Ray's schema, and further rules that the schema does not check."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cluster").glob("*.yaml"))
PROVIDERS = {"cpu.yaml": "aws", "gpu.yaml": "aws", "gpu_h100.yaml": "aws", "local.yaml": "local"}


def load(name: str) -> dict[str, Any]:
    """Return the content of a cluster file."""
    config = yaml.safe_load((ROOT / "cluster" / name).read_text())
    assert isinstance(config, dict)
    return config


def shell(config: dict[str, Any], key: str) -> str:
    """Return the shell commands of a key, one command per line."""
    return "\n".join(config[key])


def test_the_files_are_the_ones_that_are_tested() -> None:
    ours = {file.name for file in FILES} - {"kuberay.yaml"}  # test_kubernetes.py
    assert ours == set(PROVIDERS)


@pytest.mark.parametrize("name", PROVIDERS)
def test_ray_accepts_the_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(name)
    validate_config(prepare_config(config))
    assert config["provider"]["type"] == PROVIDERS[name]


@pytest.mark.parametrize("mistake", [{"max_worker": 3}, {"head_node_type": "none"}])
def test_ray_s_schema_finds_a_mistake(mistake: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(load("gpu.yaml") | mistake))


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_project_is_carried_whole(name: str) -> None:
    mounts = dict(load(name)["file_mounts"])
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert all((ROOT / local).exists() for local in mounts.values())
    assert mounts == {f"~/supermasks/{local}": local for local in mounts.values()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {*packages, project["project"]["readme"], "pyproject.toml", "constraints.txt"}
    assert needed | {"cluster"} == set(mounts.values())


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_project_is_installed_with_the_tested_versions(name: str) -> None:
    commands = shell(load(name), "setup_commands")
    [install] = [line for line in commands.splitlines() if "pip install" in line]
    assert "--constraint ~/supermasks/constraints.txt" in install
    [extra] = re.findall(r"supermasks\[(\w+)\]", install)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["optional-dependencies"][extra]
    pinned = (ROOT / "constraints.txt").read_text()
    for requirement in wanted:
        package = re.split(r"[\[<>=]", requirement)[0]
        assert f"\n{package}==" in pinned


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_shell_shows_the_token_and_the_head_s_joins_the_cluster(name: str) -> None:
    config = load(name)
    commands = shell(config, "setup_commands")
    assert "chmod 600 ~/.ray/auth_token" in commands
    assert "echo '. ~/supermasks/cluster/environment.sh' >> ~/.bashrc" in commands
    environment = (ROOT / "cluster" / "environment.sh").read_text()
    assert "\nexport RAY_AUTH_MODE=token\n" in environment
    assert '\nexport PATH="$HOME/supermasks/.venv/bin:$PATH"\n' in environment
    assert "export RAY_ADDRESS=auto" in shell(config, "head_setup_commands")
    assert "RAY_ADDRESS" not in commands  # on a worker it would override the head's address


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_dashboard_is_reached_through_ssh_alone(name: str) -> None:
    start = shell(load(name), "head_start_ray_commands")
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in json.dumps(load(name))


@pytest.mark.parametrize(
    ("name", "kind"), [("gpu.yaml", "GPU"), ("gpu_h100.yaml", "GPU"), ("cpu.yaml", "CPU")]
)
def test_the_driver_is_told_how_far_the_cluster_grows(name: str, kind: str) -> None:
    config = load(name)
    types = config["available_node_types"]
    head, worker = types[config["head_node_type"]], types["worker"]
    assert head["resources"]["CPU"] == 0
    assert worker["min_workers"] == 0
    assert worker["max_workers"] == config["max_workers"]
    most = worker["max_workers"] * worker["resources"][kind]
    assert head["resources"][f"max_{kind.lower()}s"] == most
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_the_two_files_for_gpus_differ_in_the_worker_alone() -> None:
    usual, large = load("gpu.yaml"), load("gpu_h100.yaml")
    for config in (usual, large):
        del config["cluster_name"]
        worker = config["available_node_types"]["worker"]
        del worker["resources"], worker["node_config"]["InstanceType"]
    assert usual == large
