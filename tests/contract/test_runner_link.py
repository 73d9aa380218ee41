"""The runner's end of the link to its host, over a socket: enrolment, registration, heartbeats, reports."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from kohakuriver.confirmed_host import confirm_host
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.agent import Agent
from kohakuriver.runner.agent.agent_parts import AgentParts
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.engines.contract.abilities import EngineAbilities, EngineAbility
from kohakuriver.runner.engines.contract.spec import DOCKER
from kohakuriver.runner.link import enrolling, presence
from kohakuriver.runner.link.enrolling import Enrolment, EnrolmentParts
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.runner.link.host_pin import load_pin
from kohakuriver.runner.link.presence import Presence, PresenceParts
from kohakuriver.runner.link.self_description import DescriptionParts, SelfDescription
from kohakuriver.runner.monitor.monitor import Monitor
from kohakuriver.wire.messages import TaskReport
from kohakuriver.wire.trust.enrolment import JoinToken
from kohakuriver.wire.trust.identity import Identity
from support.runner.agent_world import DEADLINE_SECONDS, FACTS, execute, order, settings_in
from support.runner.machine_engine import Death, Machine, MachineEngine
from support.runner.scripted_host import ScriptedHost, free_port, serving

NOTHING: Mapping[EngineAbility, str] = MappingProxyType({})
NO_STORAGE = {"shared_storage": "has no shared storage, which the task's environment is kept in"}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(first_seconds: float = 0.01, limit_seconds: float = 0.05):  # type: ignore[no-untyped-def]
        return growing_pauses(0.01, 0.05)

    monkeypatch.setattr(enrolling, "growing_pauses", short)
    monkeypatch.setattr(presence, "growing_pauses", short)


@dataclass
class Node:
    """A runner without Docker and without an API of its own."""

    client: HostClient
    enrolment: Enrolment
    description: SelfDescription
    agent: Agent
    presence: Presence
    machine: Machine

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def node(  # type: ignore[no-untyped-def]
    folder: Path,
    port: int,
    token: JoinToken | None = None,
    fingerprint: str = "",
    lacking: Mapping[EngineAbility, str] = NOTHING,
):
    """Run the agent and the link. `lacking`: of what its engine can do."""
    folder.mkdir(exist_ok=True)
    machine = Machine()
    client = HostClient(f"http://127.0.0.1:{port}", "n1")
    identity = Identity.load_or_create(folder / "identity")
    parts = EnrolmentParts("n1", identity, folder / "host.json", token, fingerprint)
    enrolment = Enrolment(parts, client)
    monitor = Monitor(1)
    description = SelfDescription(
        DescriptionParts("n1", "http://n1:8001", 5, folder / "shared", {"OVERLAY_ENABLED": False}),
        monitor,
        await asyncio.to_thread(monitor.inventory),
        lambda: enrolment.pin.cluster_id if enrolment.pin else None,
    )
    book = DurableBook(folder / "journal")

    async def open_engine() -> MachineEngine:
        engine = MachineEngine(machine, Death())
        engine.abilities = EngineAbilities(lacking)
        return engine

    agent = Agent(
        AgentParts({DOCKER: open_engine}, settings_in(folder), lambda: FACTS, client.send_reports), book
    )
    here = Presence(PresenceParts(client, enrolment, description, agent, 0.02))
    jobs = [asyncio.ensure_future(job) for job in (agent.run(), here.run())]
    try:
        await asyncio.sleep(0)
        yield Node(client, enrolment, description, agent, here, machine)
    finally:
        for job in jobs:
            job.cancel()
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        await client.close()
        book.close()
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS * 2):
            await scenario

    asyncio.run(bounded())


def test_a_join_token_enrols_registers_and_beats(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        token = host.token()
        async with serving(host, port), node(tmp_path, port, token) as here:
            await here.until(lambda: len(host.beats) >= 3)
            assert token.secret not in repr(host.enrolments)
            assert [beat.revision for beat in host.beats] == list(range(1, len(host.beats) + 1))
            assert host.beats[0].boot_id == host.registrations[0].boot_id
            assert host.registrations[0].hostname == "n1"
            assert here.presence.faults() == ["a fault"], "what is but a notice is none"
            pin = load_pin(tmp_path / "host.json")
            assert pin is not None
            assert pin.host_public_key == host.identity.public_key
            assert (tmp_path / "host.json").stat().st_mode & 0o777 == 0o600

    run(scenario())


def test_without_a_token_it_waits_for_approval_and_shows_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with serving(host, port), node(tmp_path, port, None, host.identity.fingerprint) as here:
            await here.until(lambda: len(host.enrolments) >= 2)
            assert "node approve n1" in here.presence.faults()[0]
            assert host.registrations == []
            host.approved.add("n1")
            await here.until(lambda: bool(host.beats))

    run(scenario())


def test_without_anybody_who_vouches_for_the_host_nobody_is_obeyed(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(approved={"n1"}), free_port()
        async with serving(host, port), node(tmp_path, port) as here:
            await here.until(lambda: len(host.enrolments) >= 3)
            assert here.enrolment.pin is None
            assert not (tmp_path / "host.json").exists()
            assert (host.registrations, host.beats) == ([], [])
            fault = here.presence.faults()[0]
            assert f"kohakuriver runner trust {host.identity.fingerprint}" in fault
            confirm_host(tmp_path, host.identity.fingerprint)
            await here.until(lambda: bool(host.beats))

    run(scenario())


@pytest.mark.parametrize("vouched", ["setting", "confirmed", "used token"])
def test_who_shows_the_hosts_key_and_has_it_not_cannot_approve(tmp_path: Path, vouched: str) -> None:
    async def scenario() -> None:
        fake, port = ScriptedHost(approved={"n1"}, lies_about_approval=True), free_port()
        known, token = fake.identity.fingerprint if vouched == "setting" else "", None
        if vouched == "confirmed":
            confirm_host(tmp_path, fake.identity.fingerprint)
        if vouched == "used token":
            token = fake.token()
            fake.tokens.clear()
        async with serving(fake, port), node(tmp_path, port, token, known) as here:
            await here.until(lambda: "does not prove it" in here.presence.faults()[0])
            assert here.enrolment.pin is None
            assert not (tmp_path / "host.json").exists()
            fake.lies_about_approval = False
            await here.until(lambda: bool(fake.beats))

    run(scenario())


@pytest.mark.parametrize("vouched", ["HOST_FINGERPRINT", "confirmed"])
def test_another_host_than_the_one_vouched_for_hears_nothing(tmp_path: Path, vouched: str) -> None:
    async def scenario() -> None:
        fake, port = ScriptedHost(approved={"n1"}), free_port()
        meant = Identity.generate().fingerprint
        if vouched == "confirmed":
            confirm_host(tmp_path, meant)
        known = meant if vouched == "HOST_FINGERPRINT" else ""
        async with serving(fake, port), node(tmp_path, port, None, known) as here:
            await here.until(lambda: vouched in here.presence.faults()[0])
            assert fake.enrolments == []
            assert here.enrolment.pin is None

    run(scenario())


def test_a_token_that_is_used_up_leaves_approval_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        token = host.token()
        host.tokens.clear()
        async with serving(host, port), node(tmp_path, port, token) as here:
            await here.until(lambda: any(asked.join_token_id is None for asked in host.enrolments))
            host.approved.add("n1")
            await here.until(lambda: bool(host.beats))

    run(scenario())


def test_a_host_that_is_not_the_tokens_hears_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        token = ScriptedHost().token()
        async with serving(host, port), node(tmp_path, port, token) as here:
            await here.until(lambda: "JOIN_TOKEN is for the host" in here.presence.faults()[0])
            assert host.enrolments == []

    run(scenario())


def test_a_host_that_cannot_prove_the_token_is_not_pinned(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(lies_about_proof=True), free_port()
        async with serving(host, port), node(tmp_path, port, host.token()) as here:
            await here.until(lambda: "could not prove" in here.presence.faults()[0])
            assert here.enrolment.pin is None
            assert not (tmp_path / "host.json").exists()

    run(scenario())


def test_another_host_than_the_pinned_one_is_refused_until_the_right_one_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with serving(host, port), node(tmp_path, port, host.token()) as here:
            await here.until(lambda: bool(host.beats))
        impostor = ScriptedHost(approved={"n1"})
        async with node(tmp_path, port) as here:
            async with serving(impostor, port):
                await here.until(lambda: "this runner belongs to" in here.presence.faults()[0])
                assert impostor.enrolments == []
                assert impostor.beats == []
            before = len(host.beats)
            async with serving(host, port):
                await here.until(lambda: len(host.beats) > before)

    run(scenario())


def test_an_answer_that_the_host_did_not_sign_is_not_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with serving(host, port), node(tmp_path, port, host.token()) as here:
            await here.until(lambda: bool(host.beats))
            await here.agent.take_orders([execute()])
            await here.until(lambda: bool(host.reports))
            host.unsigned, host.unwanted = True, here.agent.attempts()[0]
            report = TaskReport(task_id="1", status=TaskState.RUNNING, attempt=1, revision=1)
            with pytest.raises(Unavailable, match="not proven"):
                await here.client.send_reports([report])
            beats = len(host.beats)
            await here.until(lambda: len(host.beats) > beats or len(host.registrations) > 1)
            assert (7, 1) in here.machine.workloads
            host.unsigned = False
            await here.until(lambda: here.machine.workloads == {})

    run(scenario())


def test_a_host_that_restarts_gets_a_new_registration_and_every_report(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with node(tmp_path, port, host.token()) as here:
            async with serving(host, port):
                await here.until(lambda: bool(host.beats))
                await here.agent.take_orders([execute()])
                await here.until(lambda: len(host.reports) == 1)
            await here.until(lambda: "the host does not answer" in here.presence.faults())
            await here.machine.finish((7, 1), 3)
            host.known = False
            async with serving(host, port):
                await here.until(lambda: len(host.registrations) >= 2)
                host.known = True
                await here.until(lambda: host.reports[-1].status is TaskState.FAILED)
                await here.until(lambda: here.agent.attempts()[0] == [])
            assert len({each.boot_id for each in host.registrations}) == 1

    run(scenario())


def test_a_runner_that_the_host_forgot_asks_to_be_taken_in_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with serving(host, port), node(tmp_path, port, host.token()) as here:
            await here.until(lambda: bool(host.beats))
            host.keys_of.clear()
            host.tokens.clear()
            asked = len(host.enrolments)
            await here.until(lambda: len(host.enrolments) > asked)
            host.approved.add("n1")
            before = len(host.beats)
            await here.until(lambda: len(host.beats) > before)

    run(scenario())


def _abilities_told(host: ScriptedHost) -> tuple[list[str] | None, dict[str, str]]:
    return host.registrations[-1].abilities, host.registrations[-1].lacks


def test_shared_storage_that_comes_and_goes_is_registered(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with serving(host, port), node(tmp_path, port, host.token()) as here:
            await here.until(lambda: bool(host.beats))
            assert host.registrations[-1].shared_cluster_id is None
            assert _abilities_told(host) == (["vps", "inputs"], NO_STORAGE)
            assert not here.description.facts().shared_storage
            (tmp_path / "shared").mkdir()
            (tmp_path / "shared" / ".kohakuriver-cluster").write_text("c1\n")
            await here.until(lambda: host.registrations[-1].shared_cluster_id == "c1")
            assert here.description.facts().shared_storage
            assert _abilities_told(host) == (["shared_storage", "vps", "inputs"], {})
            (tmp_path / "shared" / ".kohakuriver-cluster").write_text("another\n")
            await here.until(lambda: host.registrations[-1].shared_cluster_id == "another")
            assert not here.description.facts().shared_storage
            assert _abilities_told(host) == (["vps", "inputs"], NO_STORAGE)

    run(scenario())


def test_what_the_engine_cannot_do_is_registered_once_it_is_open(tmp_path: Path) -> None:
    lacking = {EngineAbility.VPS: "it keeps no files", EngineAbility.PAUSE: "it cannot pause"}

    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with serving(host, port), node(tmp_path, port, host.token(), lacking=lacking) as here:
            await here.until(lambda: bool(host.beats) and "vps" in _abilities_told(host)[1])
            reasons = NO_STORAGE | {"vps": "has no engine that runs VPSs: it keeps no files"}
            assert _abilities_told(host) == (["inputs"], reasons)
            beats = len(host.beats)
            await here.until(lambda: len(host.beats) > beats + 1)
            assert len(host.registrations) <= 2

    run(scenario())


def test_heartbeats_list_workloads_with_the_orders_seen(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, port = ScriptedHost(), free_port()
        async with serving(host, port), node(tmp_path, port, host.token()) as here:
            await here.until(lambda: bool(host.beats))
            await here.agent.take_orders([execute(), order(OrderKind.KILL, 9, order_id=99)])
            await here.until(lambda: host.beats[-1].orders_seen == 99)
            await here.until(lambda: [each.status for each in host.beats[-1].attempts] == [TaskState.RUNNING])
            assert host.beats[-1].running_tasks == ["7"]

    run(scenario())


def test_proxy_variables_never_catch_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    test_a_join_token_enrols_registers_and_beats(tmp_path)


def test_a_host_that_is_not_there_is_unavailable() -> None:
    async def scenario() -> None:
        client = HostClient(f"http://127.0.0.1:{free_port()}", "n1")
        try:
            with pytest.raises(Unavailable, match="does not answer"):
                await client.introduction()
        finally:
            await client.close()

    run(scenario())
