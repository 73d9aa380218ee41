"""VPSs that people live in keep what is in them, and are there at the end, whatever breaks meanwhile."""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx2
import pytest

from fault.breaking import Breaker, heal
from fault.dwellers import Dweller
from fault.schedule import make_schedule
from support.cluster.cluster import wait_for
from support.lab.lab import Lab

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(900)]

SECONDS = 50.0
SEED = 5
REST_SECONDS = 120.0


def open_client(lab: Lab) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {lab.token}"}
    return httpx2.Client(base_url=lab.url, headers=headers, timeout=20, trust_env=False)


def left_over(lab: Lab, vps_ids: list[str]) -> list[str]:
    """What the nodes still have that belonged to VPSs."""
    found: list[str] = []
    for name, node in lab.nodes.items():
        try:
            found += lab.leftovers(name)
            images = node.docker.run("images", "--format", "{{.Repository}}").split()
        except subprocess.SubprocessError as error:
            return [f"something on {name} that cannot be looked at: {error}"]
        found += [f"{image} on {name}" for image in images if image.rpartition("-")[2] in vps_ids]
    return found


def is_well(lab: Lab, node: str) -> bool:
    return not lab.await_node(node)["faults"]


def test_what_was_left_in_a_vps_is_there_whatever_broke(lab: Lab) -> None:
    over = threading.Event()
    nodes = sorted(lab.nodes)
    dwellers = [Dweller(f"dweller-{node}", node, lambda: open_client(lab), over) for node in nodes]
    with (
        Breaker(lab, make_schedule(SEED, SECONDS, nodes), print) as breaker,
        ThreadPoolExecutor(len(dwellers)) as threads,
    ):
        living = [threads.submit(dweller.live, SEED) for dweller in dwellers]
        try:
            breaker.finish(SECONDS + REST_SECONDS)
        finally:
            over.set()
        for life in living:
            life.result()
        wait_for(lambda: heal(lab, lab.nodes) == [], "everything to be mended")
    for node in nodes:
        wait_for(partial(is_well, lab, node), f"{node} to be well")
    with ThreadPoolExecutor(len(dwellers)) as threads:
        list(threads.map(lambda each: each.come_to_rest(REST_SECONDS), dwellers))
    told = [line for each in dwellers for line in (each.name, *each.story)]
    vps_ids = [task_id for each in dwellers for task_id in each.leave()]
    assert [complaint for each in dwellers for complaint in each.complaints] == [], "\n".join(told)
    assert all(each.has_lived for each in dwellers), "\n".join(told)
    wait_for(lambda: not left_over(lab, vps_ids), "everything to be given back", 60)
