from typing import Any

import pytest

from kohakuriver.host.auth import Actor
from kohakuriver.host.gateway.vps_access import Login, VpsAccess
from kohakuriver.models.enums import Role, SshKeyMode, TaskState, TaskType
from kohakuriver.models.errors import Conflict, Denied, KohakuRiverError, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from support.host.gateway import HELENS, IVANS, GatewayHarness, vps

HELEN = Login(Actor("helen", Role.USER))
OPERATOR = Login(Actor("oda", Role.OPERATOR))


def access(*tasks: Task) -> VpsAccess:
    harness = GatewayHarness()
    for each in tasks:
        harness.add(each)
    return harness.access(lambda _: None)


def refusal(found: VpsAccess, login: Login, host: str, port: int = 22) -> KohakuRiverError:
    with pytest.raises(KohakuRiverError) as refused:
        found.admit(login, host, port)
    return refused.value


@pytest.mark.parametrize(
    "host", ["lab", "Lab", "LAB.kohakuriver", str(HELENS), f"vps-{HELENS}", "4242", "vps-4242"]
)
def test_a_vps_goes_by_its_name_its_id_and_an_ending_of_that(host: str) -> None:
    found = access(vps(HELENS, "helen", "lab"), vps(IVANS, "ivan", "attic"))
    assert found.admit(HELEN, host, 22).id == HELENS


@pytest.mark.parametrize(
    "host", ["242", "", "vps-", ".kohakuriver", "labs", "٤٢٤٢", "-4242", "4242 ", "lab."]
)
def test_what_is_too_short_or_only_like_a_name_is_no_vps(host: str) -> None:
    assert isinstance(refusal(access(vps(HELENS, "helen", "lab")), HELEN, host), NotFound)


def test_an_ending_that_two_vps_share_is_refused_unless_the_user_may_use_one_alone() -> None:
    twin = TaskId(HELENS + 10_000)
    found = access(vps(HELENS, "helen"), vps(twin, "ivan"))
    assert found.admit(HELEN, "4242", 22).id == HELENS
    assert isinstance(refusal(found, OPERATOR, "4242"), Conflict)
    assert found.admit(OPERATOR, "54242" if str(twin).endswith("54242") else str(twin), 22).id == twin


def test_a_name_that_looks_like_an_id_is_found_when_no_id_is_meant() -> None:
    assert access(vps(HELENS, "helen", "vps-7777")).admit(HELEN, "vps-7777", 22).id == HELENS


def test_of_two_vps_of_one_name_the_one_that_runs_is_meant() -> None:
    running = vps(HELENS, "helen", "lab")
    newer = vps(IVANS, "helen", "lab", state=TaskState.PENDING)
    assert access(running, newer).admit(HELEN, "lab", 22).id == HELENS
    assert access(newer, running).admit(HELEN, "lab", 22).id == HELENS


def test_what_is_somebody_elses_is_answered_as_what_is_not_there() -> None:
    found = access(vps(HELENS, "helen", "lab"), vps(IVANS, "ivan", "attic", state=TaskState.PAUSED))
    answers = {
        (type(error), str(error)) for error in (refusal(found, HELEN, "attic"), refusal(found, HELEN, "no"))
    }
    assert len(answers) == 1


def test_a_holder_of_a_key_enters_the_vps_of_that_key_alone() -> None:
    found = access(vps(HELENS, "helen", "lab", ("ssh-ed25519 AAAA",)), vps(IVANS, "helen", "attic"))
    login = found.login_of_key("ssh-ed25519 AAAA")
    assert login == Login(None, frozenset({HELENS}))
    assert found.admit(login, "lab", 22).id == HELENS
    assert isinstance(refusal(found, login, "attic"), NotFound)
    assert found.login_of_key("ssh-ed25519 BBBB") is None


def test_no_port_but_that_of_ssh_is_let_through() -> None:
    refused = refusal(access(vps(HELENS, "helen", "lab")), OPERATOR, "lab", 5432)
    assert isinstance(refused, Denied)
    assert "ssh ID -L" in str(refused)


def test_a_vps_that_cannot_be_entered_says_what_would_help() -> None:
    paused = access(vps(HELENS, "helen", "lab", state=TaskState.PAUSED))
    assert "resume" in str(refusal(paused, HELEN, "lab"))
    without = access(vps(HELENS, "helen", "lab", mode=SshKeyMode.DISABLED))
    assert "kohakuriver connect" in str(refusal(without, HELEN, "lab"))


def test_tasks_that_are_no_vps_are_not_there() -> None:
    given = vps(HELENS, "helen", "lab")
    spec = TaskSpec(command="true", name="lab", task_type=TaskType.COMMAND)
    task = Task(HELENS, spec, given.state, "helen", given.submitted_at, attempt=given.attempt)
    assert isinstance(refusal(access(task), OPERATOR, "lab"), NotFound)


@pytest.mark.parametrize(
    ("changes", "goes_on"),
    [
        ({}, True),
        ({"state": TaskState.PAUSED}, True),
        ({"state": TaskState.STOPPED}, False),
        ({"state": TaskState.LOST}, False),
        ({"owner": "ivan"}, False),
    ],
)
def test_an_open_connection_goes_on_while_the_vps_lives_and_the_right_to_it_does(
    changes: dict[str, Any], goes_on: bool
) -> None:
    harness = GatewayHarness()
    harness.add(vps(HELENS, "helen", "lab"))
    harness.change(HELENS, **changes)
    assert harness.access(lambda _: None).still_admits(HELEN, HELENS) is goes_on
    assert not harness.access(lambda _: None).still_admits(HELEN, IVANS)
