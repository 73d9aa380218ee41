"""Journals that an earlier version wrote: what it had accepted is read, and goes on."""

import asyncio
import struct
import zlib
from base64 import b64decode
from pathlib import Path

from kohakuriver.models.enums import PullPolicy, TaskState
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.runner.agent.records import (
    Accepted,
    Starting,
    decode_record,
    encode_record,
)
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.spec import DOCKER, ContainerBody, CpuBinding, ImageChoice
from support.runner.agent_world import RecordingHost, process
from support.runner.machine_engine import Machine, Workload

# As the version before bodies wrote them: base64 of zlib.
OLD_TASK = (
    "eJyNUstu00AUTXn1H/gAxCZYqQSVKiphkait+lSawnI08UydUe0Za+44bVhS0XUbYN8Qx27jpguQQCAWUcsa1mz4Fbh2E5GyYuHx"
    "PM4955458/qEOg4PDGe/CncTQ2GHCDadUGO4H5gbEdVu8+hdca/LZfNt+8Py+qK9vFVdelapkpq9uUyWyp3Z69t2rVZZ3ah1Ztpf"
    "JrdX1p/aKyQ7IuWlamp5yqEeyVTaHydxm4t2tVLOMIkFDao5a3+9rlpdqNTI2taqTdbWy5VOqSd86vL9FDsUWkmfSzM819wVYHSL"
    "5IenjNcFlXOlmSgIPS+m3i5tQc9RmsPUmc99hch6y3AoJHUhmZDuy8gJQnhz6/ad6TFAKsbhaCpy8eDooIc4vjcVhaFgvYWNrWI9"
    "ktTnHfv9CG6UQYc56/cnhUIhbnLJlI6xTSboqQx9mlMO012ld1CSMKHHpqMQuH7VRe5C18UhdrUKAzjMNY7TfEWyORzGvgqlgfZ+"
    "DCrUDv9kgW6OaEY/wqihKXZvhKRGKDmWOdWcMqKk17oYl3/Oy/N4rKwxT1EG1r8EkwFOkPQDLZrC4y5nlykYpkJDAmoaP+9NsHrK"
    "BWvWGr2x4ox1BXyA+1kN1/r/ahCY1fQDwYB4whdmdYA8AWqCoRqvJJ24iv5ftjOHBrQuPGEEBpqs4Xuq2s8TFWTO4OAcGj4B8YJf"
    "hfcDs7uBXyEJcxFo96XaRpPzD+ceDTBs5NyZL5bmiqWuCJzjhPGmcDCYPMPjk4YCkyXVrau9Qf4ciaN8n0p2eXa13FYemrkcuJo6"
    "nAB3lGTwuIcWhfx287eQg3yKrvCmfbiIwdEiMMMEOAC2PLz/B3wnjZo="
)
OLD_VPS = (
    "eJx9Us2OEkEQnvXkM/gGXpx424MXIsQlLIthWa+dZrocOvRfunoweN24Z8R4Z8PAIAPrwUSj2QPhBXwDn8WeYVHWg4f+qa6vvvqq"
    "uj4saBSBccB+BY8yR7FPOHuYUedAGneUUhsP3mcIiFyrKajBx/GXRuuk0rho11/V2qRTOW+QevX6+P5zpdOpNV92rp+Ofxw+n7ae"
    "V05J4SLVejsPhY6oIEWq8ddD3PlJpV2rFpgsxB61wMa397O2X9Q65OyiWSFnrWptMuOSxnCZe4HcaiVBubRLEW4sxBydHZISsElN"
    "IkQmuS9HxbNIW8CjlQSpPaI7dIBB1uWKeecmjU2Co/yNtn1vEsbtXkuaINh304SzYBr7bR5bnRgcpYpKmOSlRYo7juZSJ8rh+HKO"
    "OrERfAvRDu5o7g7CqKM5A3RcUee7vE/zyQJlRCsx3O7Dv5fhZdfCQpjQlGH4L8FhXw9IlsbyARcQA9vm6JhOHDHU9W4PSIWOMTwO"
    "d94n3iqAYO1/gN5bAJeGMySCS+6aax9sPDs6an3x+UHRy78cq4ga2uWCO+47lWlTaMerG+xJgvwt7D7kZxAED/wKsqQkx9GUm2iS"
    "MRjwyMeVnzFZ9DS6sv3r8qNJpKWkim1XO/O1Fl7odh1bGgFBiLRi+Gzm5XO1WZeHV+t7JXE7x8hy4zb7qb/6Qz4VtLtC7JE+DInU"
    "DBaMI+0KYJ9p4nraetWscOKojCmuk4wy5scMN5nfnZ+4yePf+MpzhQ=="
)


def test_orders_that_an_earlier_version_accepted_are_read() -> None:
    task, vps = (decode_record(zlib.decompress(b64decode(text))) for text in (OLD_TASK, OLD_VPS))
    assert isinstance(task, Accepted)
    assert isinstance(vps, Accepted)
    assert (task.order_id, task.spec.task_id, task.spec.attempt, task.spec.engine) == (40, 7, 2, DOCKER)
    assert (task.spec.argv, task.spec.stdin, task.spec.binding) == (
        ("-x",),
        b"\xffin",
        CpuBinding((4, 5, 6, 7), (1,)),
    )
    assert task.spec.body == ContainerBody(
        ImageChoice(registry_image="debian:12", pull=PullPolicy.ALWAYS),
        privileged=True,
        capabilities=("NET_RAW",),
        options=ContainerOptions(
            shm_size_bytes=8 << 30, ulimits=("nofile=5:6", "memlock=-1:-1"), hostname="box"
        ),
        pids_limit=77,
        image_command=True,
        image_folder=True,
    )
    assert vps.spec.session is not None
    assert (vps.spec.session.hostname, vps.spec.body.image) == ("lab", ImageChoice("base"))
    assert decode_record(encode_record(task)) == task


def test_work_of_an_earlier_versions_journal_goes_on(tmp_path: Path) -> None:
    order_taken, started = zlib.decompress(b64decode(OLD_TASK)), encode_record(Starting(7, 2))
    frames = (struct.pack("<II", len(data), zlib.crc32(data)) + data for data in (order_taken, started))
    (tmp_path / "journal").write_bytes(b"KRJ1\n" + b"".join(frames))
    machine, host, key = Machine(), RecordingHost(), (7, 2)
    accepted_then = decode_record(order_taken)
    assert isinstance(accepted_then, Accepted)
    machine.workloads[key] = Workload(accepted_then.spec, WorkloadState.RUNNING)

    async def scenario() -> None:
        async with process(tmp_path, machine, host):
            await host.until(lambda: TaskState.RUNNING in host.states(key))
            await machine.finish(key, 3)
            assert (await host.until_ended(key)).exit_code == 3

    asyncio.run(scenario())
    assert machine.starts == {}, "it runs since before"
