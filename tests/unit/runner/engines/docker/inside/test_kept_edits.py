"""What users changed in a VPS's files that are the runner's: told apart, carried along, renewed."""

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.docker.inside.kept_edits import (
    MOST_BYTES,
    Edit,
    decode_edits,
    encode_edits,
    renewed,
)
from kohakuriver.runner.engines.docker.inside.network_files import PLACES, NetworkFacts, NetworkFiles
from kohakuriver.runner.engines.docker.kernel.netns_state import has_ipv6_loopback

OURS = b"127.0.0.1\tlocalhost\n10.0.0.5\tbox\n"
LATER = b"127.0.0.1\tlocalhost\n10.0.0.9\tbox\n"
WITH_IPV6 = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n10.0.0.9\tbox\n"
TASK = TaskId(5)
FACTS = NetworkFacts("box", "10.0.0.5", ipv6=False, root=(os.getuid(), os.getgid()))


@pytest.mark.parametrize(
    ("now", "text", "is_to_be"),
    [
        (OURS + b"10.9.9.9 db\n", OURS, OURS + b"10.9.9.9 db\n"),
        (OURS + b"10.9.9.9 db", LATER, LATER + b"10.9.9.9 db\n"),
        (b"# mine\n" + OURS, LATER, b"# mine\n" + LATER),
        (b"10.0.0.5  box box.lab\n10.0.0.55 other\n", LATER, b"10.0.0.9  box box.lab\n10.0.0.55 other\n"),
        (b"127.0.0.1\tlocalhost\n", LATER, b"127.0.0.1\tlocalhost\n"),
        (b"", LATER, b""),
        (OURS + b"\n\xff\xfe x\n", LATER, LATER + b"\n\xff\xfe x\n"),
        (OURS + b"1.2.3.4 a\n", WITH_IPV6, LATER + b"1.2.3.4 a\n::1\tlocalhost ip6-localhost\n"),
    ],
    ids=["same", "address", "in front", "aliases", "taken out", "emptied", "no text", "IPv6 comes"],
)
def test_our_lines_are_renewed_and_those_of_users_stay(now: bytes, text: bytes, is_to_be: bytes) -> None:
    assert renewed(now, OURS, text) == is_to_be


def test_lines_of_ours_that_are_no_more_go_and_a_users_own_search_domain_stays() -> None:
    gone = renewed(WITH_IPV6 + b"1.2.3.4 a\n", WITH_IPV6, LATER)
    assert gone == LATER + b"1.2.3.4 a\n"
    before, text = b"search old.lab\nnameserver 127.0.0.11\n", b"search new.lab\nnameserver 127.0.0.11\n"
    assert renewed(before + b"options timeout:1\n", before, text) == text + b"options timeout:1\n"
    mine = b"search mine.lab\nnameserver 127.0.0.11\n"
    assert renewed(mine, before, text) == mine


def test_hosts_name_the_loopback_of_ipv6_where_a_network_has_it_alone(tmp_path: Path) -> None:
    tables = {
        1: "00000000000000000000000000000001 01 80 10 80       lo\n",
        2: "fe8000000000000000000000000000aa 02 40 20 80     eth0\n",
        3: "",
    }
    for pid, table in tables.items():
        (tmp_path / str(pid) / "net").mkdir(parents=True)
        (tmp_path / str(pid) / "net" / "if_inet6").write_text(table)
    assert [has_ipv6_loopback(pid, tmp_path) for pid in (1, 2, 3, 4)] == [True, False, False, False]
    named = "::1\tlocalhost ip6-localhost"
    for ipv6 in (True, False):
        (mount, *_) = NetworkFiles(tmp_path / f"state-{ipv6}").write(TASK, replace(FACTS, ipv6=ipv6))
        assert (named in Path(mount.source).read_text()) is ipv6


def test_edits_come_back_from_a_label_as_they_were_and_too_large_ones_say_so() -> None:
    edits = {"/etc/hosts": Edit(OURS, b"\x00\xffany\n"), "/etc/hostname": Edit(b"box\n", b"x" * MOST_BYTES)}
    assert decode_edits(encode_edits(edits), PLACES) == edits
    assert encode_edits({}) == ""
    found = decode_edits(encode_edits({"/etc/hosts": Edit(OURS, b"x" * (MOST_BYTES + 1))}), PLACES)
    assert found["/etc/hosts"].put_on(LATER).startswith(LATER + b"# What stood here was larger than 64")


@pytest.mark.parametrize(
    "label",
    [
        "",
        "{",
        "[]",
        "[" * 10_000,
        '{"/etc/hosts": 5}',
        '{"/etc/hosts": ["%", "%"]}',
        '{"/etc/hosts": [1, 2]}',
        json.dumps({"/etc/passwd": [None, None], "../x": ["", ""]}),
        json.dumps({"/etc/hosts": ["", base64.b64encode(bytes(2 << 20)).decode()]}),
    ],
)
def test_a_label_of_somebody_elses_making_gives_nothing(label: str) -> None:
    assert decode_edits(label, PLACES) == {}


def files_of(tmp_path: Path, search: str = "") -> NetworkFiles:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(search)
    return NetworkFiles(tmp_path, resolv)


def test_what_users_changed_is_told_from_what_we_wrote(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    files.write_for_vps(TASK, FACTS, {})
    files = files_of(tmp_path, "search new.lab\n")  # the node's own change is none of theirs
    assert files.edits(TASK, FACTS) == {}
    hosts = files.folder_of(TASK) / "hosts"
    hosts.write_bytes(OURS + b"1.2.3.4 a\n")
    edits = files.edits(TASK, None)
    assert edits == {"/etc/hosts": Edit(OURS, OURS + b"1.2.3.4 a\n")}
    files.remove(TASK)
    files.write_for_vps(TASK, replace(FACTS, address="10.0.0.9"), edits)
    assert hosts.read_bytes() == LATER + b"1.2.3.4 a\n"
    assert files.edits(TASK, None)["/etc/hosts"].before == LATER


def test_a_new_address_reaches_the_file_that_is_mounted(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    files.write_for_vps(TASK, FACTS, {})
    hosts = files.folder_of(TASK) / "hosts"
    hosts.write_bytes(OURS + b"1.2.3.4 a\n" * 99)
    before = hosts.stat().st_ino
    (files.folder_of(TASK) / "written.json").unlink()  # as of an earlier version
    files.renew(TASK, FACTS, replace(FACTS, address="10.0.0.9"))
    assert hosts.stat().st_ino == before
    assert hosts.read_bytes() == LATER + b"1.2.3.4 a\n" * 99


def test_what_is_read_back_is_bounded_and_no_link_is_followed(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    files.write_for_vps(TASK, FACTS, {})
    hosts = files.folder_of(TASK) / "hosts"
    os.truncate(hosts, 1 << 40)
    assert files.edits(TASK, FACTS) == {"/etc/hosts": Edit(OURS, None)}
    files.renew(TASK, FACTS, replace(FACTS, address="10.0.0.9"))
    assert hosts.stat().st_size == 1 << 40
    hosts.unlink()
    os.mkfifo(hosts)
    assert files.edits(TASK, FACTS) == {}
    hosts.unlink()
    secret = tmp_path / "secret"
    secret.write_text("of the node")
    hosts.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        files.edits(TASK, FACTS)
    with pytest.raises(OSError, match="symbolic links"):
        files.renew(TASK, FACTS, replace(FACTS, address="10.0.0.9"))
    assert secret.read_text() == "of the node"
