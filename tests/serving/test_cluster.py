"""The application on a real local Ray of two nodes: replicas and nodes that are lost, rolling updates, scaling.

Ray is no part of the full install: `pip install '.[cluster]'` adds it.
"""

import collections
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
yaml = pytest.importorskip("yaml")

import httpx  # noqa: E402
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.serve.schema import ServeDeploySchema  # noqa: E402

from runtime.errors import OptionError  # noqa: E402
from runtime.serving.client import Client  # noqa: E402
from runtime.serving.cluster import ClusterOptions, build  # noqa: E402

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
IMAGE = (ROOT / "examples" / "chair.png").read_bytes()


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = made.add_node(num_cpus=2)
    ray.init(address=made.address, logging_level="error", log_to_driver=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port, "location": "HeadOnly"})
    yield made, second, f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()
    made.shutdown()


def deploy(**options):
    serve.run(build(ClusterOptions(threads=1, open_to_all=True, **options)), name="app", route_prefix="/")


class Users:
    """Clients that ask again and again, and what they were answered."""

    def __init__(self, address, number, retries):
        self.answers, self._stop = collections.Counter(), threading.Event()
        self._address, self._retries = address, retries
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def _ask(self):
        with Client(self._address, timeout=60, retries=self._retries) as client:
            while not self._stop.is_set():
                try:
                    client.reconstruct(IMAGE, seed=1, size=64, samples=16)
                    self.answers["ok"] += 1
                except Exception as error:
                    self.answers[str(error)] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        time.sleep(3)
        return self

    def __exit__(self, *_):
        time.sleep(5)
        self._stop.set()
        for thread in self._threads:
            thread.join()


def replicas():
    """Of this cluster alone: others may run on the machine."""
    found = subprocess.run(["pgrep", "-f", "ServeReplica:app"], capture_output=True, text=True, check=False)
    session = ray.get_runtime_context().get_session_name()
    return [int(pid) for pid in found.stdout.split() if session in command_above(int(pid))]


def command_above(pid):
    """Command line of the process that started another: Ray's daemon, which names its session."""
    above = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return Path(f"/proc/{above}/cmdline").read_text()


def test_faults_cost_no_request_that_is_sent_again(cluster):
    made, second, address = cluster
    deploy(replicas=3, cores=1)
    answer = httpx.get(f"{address}/readyz")
    assert answer.json() == {"status": "ready"}
    with Users(address, 4, retries=3) as users:
        os.kill(replicas()[0], signal.SIGKILL)
    print("replica killed:", dict(users.answers))
    assert set(users.answers) == {"ok"}
    with Users(address, 4, retries=0) as users:
        deploy(replicas=3, cores=1, seconds=50)
    print("rolling update, nothing sent again:", dict(users.answers))
    assert set(users.answers) == {"ok"}
    with Users(address, 4, retries=5) as users:
        made.remove_node(second)
    print("node lost:", dict(users.answers))
    assert set(users.answers) == {"ok"}


def test_nobody_is_let_in_by_oversight(monkeypatch):
    monkeypatch.delenv("WAVELET_TRIPLANE_TOKEN", raising=False)
    with pytest.raises(OptionError, match="would let anybody in"):
        build(ClusterOptions())
    monkeypatch.setenv("WAVELET_TRIPLANE_TOKEN", "secret")
    build(ClusterOptions())


@pytest.mark.parametrize("name", ["cluster.yaml", "kubernetes.yaml"])
def test_configurations_pass_ray_s_schema_and_ours(name):
    content = yaml.safe_load((ROOT / "deploy" / name).read_text())
    if name == "kubernetes.yaml":
        content = yaml.safe_load(content["spec"]["serveConfigV2"])
    deployed = ServeDeploySchema.model_validate(content)
    for application in deployed.applications:
        assert application.import_path == "runtime.serving.cluster:build"
        ClusterOptions.model_validate(application.args)
