"""Run the main job on a cluster of three nodes in this process, and remove a node during the run.

    python run_on_nodes.py RUN_DIR OPTION...

Prints a JSON object: `code` is the exit code, `units_at_loss` is the number of committed units
when the node was removed, and `said` lists the executor's log messages.
"""

import json
import logging
import sys
import threading
import time
from pathlib import Path

import ray
from hydra import compose, initialize_config_module
from ray.cluster_utils import Cluster

from harness.config.compose import checked
from harness.scale import run
from harness.tables.files import table_files

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}


def main() -> None:
    """Start the nodes. Remove the last node when a unit is committed and all CPUs are busy."""
    run_dir, *options = sys.argv[1:]
    with initialize_config_module("harness.conf", version_base="1.3"):
        config = checked(compose("config", [*options, f"run_dir={run_dir}"]))
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    committed_at_loss = []
    said = []

    def lose_a_node() -> None:
        log = Path(run_dir) / "log"
        while not log.exists() or not table_files(log) or ray.available_resources().get("CPU"):
            time.sleep(0.05)
        cluster.remove_node(nodes[-1], allow_graceful=False)
        committed_at_loss.append(len(table_files(log)))

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    executors = logging.getLogger("harness.executors.on_ray")
    executors.setLevel(logging.INFO)
    executors.addHandler(Listener())
    loser = threading.Thread(target=lose_a_node, daemon=True)
    loser.start()
    code = run(config)
    loser.join(900)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"code": code, "units_at_loss": committed_at_loss, "said": said}))


if __name__ == "__main__":
    main()
