"""Mixed versions: what an older host or runner wrote is read, and what a newer one adds is let be.

`version_data` holds one of each message and journal record, with all fields set, as the first version wrote
them. The files are never made anew: a version that changes the form of something adds files of its own.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.runner.agent import records
from kohakuriver.runner.agent.records import Accepted, decode_record, encode_record
from kohakuriver.wire import messages
from kohakuriver.wire.messages import decode, encode

_DATA = Path(__file__).with_name("version_data")
_MESSAGES: dict[str, dict[str, Any]] = json.loads((_DATA / "messages_1.json").read_text())
_RECORDS: dict[str, str] = json.loads((_DATA / "journal_1.json").read_text())
# What a message of the first version must hold; every other field, then or since, has a default.
_REQUIRED = {
    "AttemptState": {"attempt", "revision", "status", "task_id"},
    "EnrolAnswer": {"cluster_id", "fingerprint", "host_public_key", "state"},
    "EnrolRequest": {"hostname", "public_key"},
    "GpuInfo": {"gpu_id", "memory_total_bytes", "name", "uuid"},
    "Heartbeat": set(),
    "HeartbeatAnswer": {"known"},
    "HostIntroduction": {"cluster_id", "host_public_key"},
    "Killed": {"reason", "task_id"},
    "LogWindow": {"stream", "task_id"},
    "NodeFigures": {"at", "cpu_percent", "memory_percent", "memory_total_bytes", "memory_used_bytes"},
    "NumaInfo": {"cpus", "id", "memory_bytes"},
    "Order": {"kind", "task_id"},
    "OrderAnswer": {"accepted", "order_id"},
    "Registration": {"hostname", "total_cores", "total_ram_bytes", "url"},
    "RegistrationAnswer": {"cluster_id", "shared_storage"},
    "ReportsAnswer": {"committed"},
    "TaskReport": {"attempt", "revision", "status", "task_id"},
}  # fmt: skip


# What was written down and is of no use any more, since what it was for is gone (0015).
_NEEDLESS = {"Accepted": ["[1].masked_paths is gone"]}


def _now(message: object) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(encode(message))
    return fields


def _with_more(value: Any) -> Any:
    """The same with a field more in each object, as a newer version would write it."""
    if isinstance(value, dict):
        more = {key: _with_more(inner) for key, inner in value.items()}
        return more | {"added_later": {"deep": [1, None]}}
    return [_with_more(inner) for inner in value] if isinstance(value, list) else value


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where `new` does not say what `old` said; what it says beside that is its own affair."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found
            for key, inner in old.items()
            for found in (
                _differences(inner, new[key], f"{where}.{key}") if key in new else [f"{where}.{key} is gone"]
            )
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [found for at, (a, b) in pairs for found in _differences(a, b, f"{where}[{at}]")]
    return [] if old == new else [f"{where}: {old!r} became {new!r}"]


def test_every_message_of_the_first_version_is_recorded() -> None:
    assert set(_MESSAGES) == set(_REQUIRED)
    assert set(_RECORDS) <= {
        kind.__name__
        for kind in vars(records).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }


@pytest.mark.parametrize("name", _MESSAGES)
def test_a_message_of_the_first_version_says_the_same_today(name: str) -> None:
    kind = getattr(messages, name)
    assert _differences(_MESSAGES[name], _now(decode(json.dumps(_MESSAGES[name]).encode(), kind))) == []


@pytest.mark.parametrize("name", _MESSAGES)
def test_what_a_newer_version_adds_is_ignored(name: str) -> None:
    kind = getattr(messages, name)
    plain = decode(json.dumps(_MESSAGES[name]).encode(), kind)
    fields = _with_more(_MESSAGES[name])
    for free in {"settings", "env_vars"} & fields.keys():  # their keys are the user's, not ours
        fields[free] = _MESSAGES[name][free]
    assert decode(json.dumps(fields).encode(), kind) == plain


@pytest.mark.parametrize("name", _MESSAGES)
def test_what_an_older_version_does_not_know_has_a_default(name: str) -> None:
    kind = getattr(messages, name)
    least = {key: _MESSAGES[name][key] for key in _REQUIRED[name]}
    decode(json.dumps(least).encode(), kind)
    for key in least:
        with pytest.raises(InvalidInput, match=key):
            decode(json.dumps({k: v for k, v in least.items() if k != key}).encode(), kind)


@pytest.mark.parametrize("name", _RECORDS)
def test_a_journal_record_of_the_first_version_is_taken_up(name: str) -> None:
    data = bytes.fromhex(_RECORDS[name])
    record = decode_record(data)
    assert type(record).__name__ == name
    old, new = msgspec.msgpack.decode(data), msgspec.msgpack.decode(encode_record(record))
    if name == "Accepted":  # what is one engine's own matter stood beside the rest then
        new[1] |= new[1].pop("body")
    assert _differences(old, new[: len(old)]) == _NEEDLESS.get(name, [])


def test_a_journal_record_with_fields_of_a_newer_version_is_taken_up() -> None:
    kind, spec, order_id = msgspec.msgpack.decode(bytes.fromhex(_RECORDS["Accepted"]))
    newer = msgspec.msgpack.encode([kind, spec | {"added_later": 1}, order_id, "added later"])
    record = decode_record(newer)
    assert isinstance(record, Accepted)
    assert (record.spec.argv, record.order_id) == (("echo", "a b"), 12)
