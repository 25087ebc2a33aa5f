"""Try cluster/local.yaml on this machine: start a cluster through a real sshd, and submit a job.

    python cluster/trial.py FOLDER

The trial runs in its own namespaces. Their network has only the loopback interface, so no other
machine can reach the cluster. All processes in the namespaces end with the trial. The home folders
are temporary. The trial copies the run's files to FOLDER.

It needs Linux, root, sshd, rsync and unshare.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
JOB = (
    *("harness/scale.py", "tasks=8", "train.steps=60", "quiet=true"),
    *("evaluate.algorithms=[max_logit]", "evaluate.batches=1"),
)
TOOLS = ("sshd", "rsync", "ssh", "ssh-keygen", "unshare", "mount", "ip")
NAMESPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
NUM_CPUS = 2


def what_is_missing() -> str | None:
    """Return the reason why a trial cannot run on this machine; None if it can run."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs Linux and root for namespaces: start it as root on Linux"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := [tool for tool in TOOLS if not shutil.which(tool, path=path)]:
        return f"needs {', '.join(missing)}, got none: install them"
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    return f"needs namespaces, got {tried.stderr.strip()}" if tried.returncode else None


def derive(config: dict[str, Any], key: Path) -> dict[str, Any]:
    """Adapt the cluster file to this machine. Nothing is installed on the machine.

    Args:
        config: the content of cluster/local.yaml.
        key: the file of the private key that sshd accepts.

    Returns:
        The adapted content. The cluster is one head with NUM_CPUS CPUs, without workers. It uses
        the installed packages of the Python that runs this program.
    """
    steps = {
        "python3 -m venv": f"ln -sfn {sys.prefix} ~/supermasks/.venv",
        "pip install": 'echo export PYTHONPATH="$HOME/supermasks" >> ~/.bashrc',
    }
    setup = [
        next((ours for theirs, ours in steps.items() if theirs in command), command)
        for command in config["setup_commands"]
    ]
    small = f"ray start --num-cpus={NUM_CPUS} --object-store-memory=200000000"
    head = [
        command.replace("ray start", small).replace('"max_cpus":24', f'"max_cpus":{NUM_CPUS}')
        for command in config["head_start_ray_commands"]
    ]
    return config | {
        "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": {"ssh_user": "root", "ssh_private_key": str(key)},
        "setup_commands": setup,
        "head_start_ray_commands": head,
    }


def run_inside(folder: Path, work: Path) -> None:
    """Start the cluster, submit the job, and stop the cluster. Call this inside the namespaces."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    machine, client = work / "machine", work / "client"  # two home folders
    key = _start_sshd(work, machine)
    config = yaml.safe_load((PROJECT / "cluster" / "local.yaml").read_text())
    cluster = work / "cluster.yaml"
    cluster.write_text(yaml.safe_dump(derive(config, key)))
    ours = {
        "HOME": str(client),
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR": str(work),
        "RAY_TMPDIR": str(work),
        "RAY_USAGE_STATS_ENABLED": "0",
        "LC_ALL": "C.UTF-8",
    }
    _call(["ray", "get-auth-token", "--generate"], ours)
    _call(["ray", "up", "--yes", "--no-config-cache", str(cluster)], ours)
    _call(["ray", "submit", "--no-config-cache", str(cluster), *JOB], ours)
    _check_token(ours)
    _call(["ray", "down", "--yes", str(cluster)], ours)
    shutil.copytree(machine / "runs", folder, dirs_exist_ok=True)


def _start_sshd(work: Path, home: Path) -> Path:
    """Start sshd on loopback, with `home` as root's home. Return the client's private key file."""
    key, host_key = work / "key", work / "host_key"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    for folder in (home, work / "client"):
        folder.mkdir()
    # Every shell sets these variables, so that the trial writes no files to system folders.
    (home / ".bashrc").write_text(f"export TMPDIR={work} RAY_TMPDIR={work}\n")
    (home / ".profile").touch()
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    roots = [[*user[:5], str(home), "/bin/bash"] if user[0] == "root" else user for user in users]
    (work / "passwd").write_text("".join(":".join(user) + "\n" for user in roots))
    (work / "run").mkdir()
    (work / "run" / "sshd").mkdir(mode=0o755)
    for ours, theirs in ((work / "passwd", "/etc/passwd"), (work / "run", "/run")):
        subprocess.run(["mount", "--bind", str(ours), theirs], check=True)
    settings = work / "sshd_config"
    settings.write_text(
        f"ListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {key}.pub\n"
        "StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        "UsePAM no\nPrintMotd no\nPrintLastLog no\nPidFile none\n"
    )
    # sshd needs its full path, because it starts itself again for each connection. Loopback is up,
    # and sshd listens before it goes into the background, so a client can connect after this call.
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert sshd is not None
    subprocess.run([sshd, "-f", str(settings), "-E", str(work / "sshd.log")], check=True)
    return key


def _check_token(environment: dict[str, str]) -> None:
    """Check that the cluster answers a client with its token, and refuses another token."""
    status = ["ray", "status", "--address=127.0.0.1:6379"]
    _call(status, environment | {"RAY_AUTH_MODE": "token"})
    stranger = environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    refused = subprocess.run(status, env=stranger, capture_output=True, text=True, timeout=60)
    if refused.returncode == 0:
        raise SystemExit("error: another token must be refused, got an answer: set RAY_AUTH_MODE")
    print("refused: a client with another token", flush=True)


def _call(command: Sequence[str], environment: dict[str, str]) -> None:
    """Run a Ray command in the project's folder, as a user does, and print the seconds taken."""
    began = time.monotonic()
    print("$", *command, flush=True)
    done = subprocess.run(command, env=environment, cwd=PROJECT, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(
            f"error: ray {command[1]} must end with 0, got {done.returncode}: see its output above"
        )
    print(f"{command[1]}: {time.monotonic() - began:.1f} s", flush=True)


def main() -> None:
    """Start the trial in new namespaces; with --inside, run the trial."""
    if len(sys.argv) == 4 and sys.argv[1] == "--inside":
        run_inside(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    if reason := what_is_missing():
        sys.exit(f"error: the trial {reason}")
    # Ray's sockets lie below this folder, so its path must be short.
    with tempfile.TemporaryDirectory(prefix="trial-", dir="/tmp") as work:
        inside = [sys.executable, __file__, "--inside", str(Path(sys.argv[1]).absolute()), work]
        # The first process of a namespace must collect ended processes without a parent, as bash
        # does. Otherwise `ray stop` waits for them.
        first = ["bash", "-c", '"$@" & wait $!', "bash"]
        sys.exit(subprocess.run([*NAMESPACES, *first, *inside]).returncode)


if __name__ == "__main__":
    main()
