"""Say what is missing before `ray up`: one line per problem.

    python cluster/preflight.py cluster/gpu.yaml

The program only reads. It starts nothing, and changes nothing on AWS or on this computer. Exit code
0: nothing is missing. Exit code 2: something is missing.
"""

import importlib.util
import re
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

PUBLIC_PARAMETER = "resolve:ssm:"
# Families of instance types -> AWS's codes of the quotas on their vCPUs: on demand, spot.
# Source: the page "Amazon EC2 endpoints and quotas" of AWS's reference.
QUOTAS = {
    r"[acdhimrtz]\d": ("L-1216C47A", "L-34B43A08"),
    r"(g|vt)\d": ("L-DB2E81BA", "L-3819A6DF"),
    r"p5": ("L-417A185B", "L-C4BD4855"),
    r"p[234]": ("L-417A185B", "L-7212CCBC"),
}
Make = Callable[[str], Any]  # the name of a service of AWS -> its client in boto3


def problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each thing that is missing.

    Args:
        config: the content of a cluster file.
    """
    yield from missing_here(config)
    if config["provider"]["type"] == "aws":
        yield from missing_on_aws(config)


def missing_here(config: dict[str, Any]) -> Iterator[str]:
    """Yield what this computer lacks: programs, the token, files that the cluster file mounts."""
    for program in ("ray", "rsync", "ssh"):
        if not shutil.which(program):
            yield f"{program} must be on the PATH, got none: install it"
    token = Path("~/.ray/auth_token").expanduser()
    if not token.is_file() or not token.read_text().strip():
        yield f"{token} must be a file with a token, got none: type `ray get-auth-token --generate`"
    elif token.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"{token} must be readable by you alone, got other permissions: type `chmod 600`"
    mounts = [Path(path).expanduser() for path in config.get("file_mounts", {}).values()]
    if lost := [str(path) for path in mounts if path != token and not path.exists()]:
        yield f"file_mounts must exist, got no {', '.join(lost)}: go to the project's folder"


def missing_on_aws(config: dict[str, Any]) -> Iterator[str]:
    """Yield what AWS lacks: boto3, credentials, zones, images, instance types, quotas."""
    if importlib.util.find_spec("boto3") is None:
        yield "boto3 must be installed, got none: type `pip install -e '.[cluster]'`"
        return
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    region = config["provider"]["region"]
    session = boto3.Session(region_name=region)
    limits = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2})

    def make(service: str) -> Any:
        return session.client(service, config=limits)

    if session.get_credentials() is None:
        yield "credentials of AWS must be given, got none: type `aws configure`"
        return
    checks = (missing_identity, missing_zones, missing_images, missing_types, missing_quotas)
    for check in checks:
        try:
            yield from check(make, config)
        except (BotoCoreError, ClientError) as error:
            reason = " ".join(str(error).split())
            yield f"AWS must answer in region {region}, got: {reason}: check region and permissions"
            if check is missing_identity:
                return  # without an identity, the other checks fail for the same reason


def missing_identity(make: Make, config: dict[str, Any]) -> Iterator[str]:
    """Raise an error of boto3 if AWS does not accept the credentials."""
    make("sts").get_caller_identity()
    yield from ()


def missing_zones(make: Make, config: dict[str, Any]) -> Iterator[str]:
    """Yield the availability zones that this account cannot use."""
    usable = {
        zone["ZoneName"] for zone in make("ec2").describe_availability_zones()["AvailabilityZones"]
    }
    if wrong := [zone for zone in _zones(config) if zone not in usable]:
        yield (
            f"availability_zone must name zones of {config['provider']['region']}, got "
            f"{', '.join(wrong)}: try {','.join(sorted(usable))}"
        )


def missing_images(make: Make, config: dict[str, Any]) -> Iterator[str]:
    """Yield the machine images that do not exist, or that this account must not use."""
    from botocore.exceptions import ClientError

    region = config["provider"]["region"]
    for image in dict.fromkeys(kind["node_config"].get("ImageId", "") for kind in _kinds(config)):
        try:
            found = image
            if image.startswith(PUBLIC_PARAMETER):
                name = image.removeprefix(PUBLIC_PARAMETER)
                found = make("ssm").get_parameter(Name=name)["Parameter"]["Value"]
            if make("ec2").describe_images(ImageIds=[found])["Images"]:
                continue
            reason = "no image"
        except ClientError as error:
            reason = error.response["Error"]["Code"]
        yield (
            f"ImageId must name an image in {region}, got {image} ({reason}): "
            "write ImageId: ami-… into the cluster file"
        )


def missing_types(make: Make, config: dict[str, Any]) -> Iterator[str]:
    """Yield the instance types that AWS does not offer in any zone of the cluster."""
    for name in dict.fromkeys(kind["node_config"]["InstanceType"] for kind in _kinds(config)):
        offers = make("ec2").describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [name]}]
        )["InstanceTypeOfferings"]
        zones = {offer["Location"] for offer in offers}
        if not zones & set(_zones(config) or zones):
            yield (
                f"InstanceType {name} must be offered in a zone of the cluster, got offers in "
                f"{', '.join(sorted(zones)) or 'no zone'}: change availability_zone or region"
            )


def missing_quotas(make: Make, config: dict[str, Any]) -> Iterator[str]:
    """Yield the quotas of vCPUs that are smaller than the full cluster."""
    needed: Counter[str] = Counter()
    for name, kind in config["available_node_types"].items():
        machine = kind["node_config"]
        count = 1 if name == config["head_node_type"] else kind["max_workers"]
        code = _quota(machine["InstanceType"], "InstanceMarketOptions" in machine)
        if code is None:
            print(f"not checked: the quota of {machine['InstanceType']}")
            continue
        [about] = make("ec2").describe_instance_types(InstanceTypes=[machine["InstanceType"]])[
            "InstanceTypes"
        ]
        needed[code] += count * about["VCpuInfo"]["DefaultVCpus"]
    client = make("service-quotas")
    for code, vcpus in needed.items():
        quota = _quota_of(client, code)
        if quota["Value"] < vcpus:
            yield (
                f"the quota {code} ({quota['QuotaName']}) must be at least {vcpus} vCPUs for the "
                f"full cluster, got {quota['Value']:g}: ask AWS for more on its page Service "
                "Quotas, or lower max_workers and the head's max_gpus or max_cpus"
            )


def _quota_of(client: Any, code: str) -> dict[str, Any]:
    """Return the account's quota. AWS keeps one only if it differs from the default."""
    try:
        found: dict[str, Any] = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
    except client.exceptions.NoSuchResourceException:
        found = client.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
    return found


def _quota(instance_type: str, is_spot: bool) -> str | None:
    for family, codes in QUOTAS.items():
        if re.match(family, instance_type):
            return codes[is_spot]
    return None


def _kinds(config: dict[str, Any]) -> list[dict[str, Any]]:
    return list(config["available_node_types"].values())


def _zones(config: dict[str, Any]) -> list[str]:
    return [
        zone.strip() for zone in config["provider"].get("availability_zone", "").split(",") if zone
    ]


def main() -> int:
    """Print what the cluster file lacks, and return the exit code."""
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} CLUSTER_FILE", file=sys.stderr)
        return 2
    try:
        config = yaml.safe_load(Path(sys.argv[1]).read_text())
        found = list(problems(config))
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"error: {sys.argv[1]} must be a cluster file, got {reason}", file=sys.stderr)
        return 2
    for line in found:
        print(f"missing: {line}")
    if not found:
        print(f"nothing is missing for `ray up {sys.argv[1]}`")
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
