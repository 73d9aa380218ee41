"""How large what a task asks for is, as it is stored, sent and listed, and how large it may be."""

import json
from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import TypeVar

import msgspec

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import TaskSpec

MAX_SPEC_BYTES = 1 << 20
"""The most that one task asks for. An order is its spec and little more, so this bounds an order as well."""

MAX_LISTED_BYTES = 16 << 10
"""What a list shows of one task's texts. A list may hold 1,000 tasks, and each viewer may ask for one."""

_Item = TypeVar("_Item", str, tuple[str, str])
_FIXED_BYTES = 512
"""What names, numbers and a target of usual length take."""
_QUOTES_BYTES = 3
"""Of each text: its quotes and the comma."""
_NUMBER_BYTES = 5


def spec_bytes(spec: TaskSpec) -> int:
    """Bytes of the spec as JSON, with what escapes add: a control character is six of them."""
    texts = [spec.command]
    if spec.arguments:
        texts += spec.arguments
    for variable in spec.env_vars:
        texts += variable
    if spec.additional_mounts:
        texts += spec.additional_mounts
    if spec.working_dir:
        texts.append(spec.working_dir)
    if spec.vps is not None:
        texts += (*spec.vps.authorized_keys, spec.vps.host_key, spec.vps.host_public_key)
    if spec.options is not None:
        texts += (*spec.options.ulimits, *spec.options.devices, spec.options.user, spec.options.hostname)
    # One long text is encoded many times as fast as a list of short ones.
    content = len(encode_basestring("".join(texts)).encode())
    content += _QUOTES_BYTES * len(texts) + _NUMBER_BYTES * len(spec.required_gpus)
    if spec.stdin is not None or spec.script is not None:
        # In JSON three bytes are four characters.
        content += sum(len(file.content) for file in (spec.stdin, spec.script) if file is not None) * 4 // 3
    return _FIXED_BYTES + content


def bytes_of_all(specs: list[TaskSpec]) -> int:
    """The sum over specs of one submission, which differ only in target and GPUs."""
    if len(specs) <= 1:
        return sum(map(spec_bytes, specs))
    alike = spec_bytes(changed(specs[0], required_gpus=()))
    return alike * len(specs) + sum(_NUMBER_BYTES * len(spec.required_gpus) for spec in specs)


class CutSpec(TaskSpec, frozen=True):
    """A spec without its files and the last of its arguments, mounts and variables, for lists."""


def cut_for_list(spec: TaskSpec) -> TaskSpec:
    """Return the spec itself if it is small, else as much of it as a list shows."""
    if spec_bytes(spec) <= MAX_LISTED_BYTES:
        return spec
    arguments, left = _first(spec.arguments, MAX_LISTED_BYTES)
    mounts, left = _first(spec.additional_mounts, left)
    variables, _ = _first(spec.env_vars, left)
    kept = msgspec.structs.asdict(spec)
    cut = {"arguments": arguments, "additional_mounts": mounts, "env_vars": variables}
    for name in ("stdin", "script"):
        cut[name] = kept[name] and kept[name].without_content()
    return CutSpec(**kept | cut)


def _first(items: Iterable[_Item], left: int) -> tuple[tuple[_Item, ...], int]:
    """As many as fit, and the room that is left then: none, if one did not."""
    kept: list[_Item] = []
    for item in items:
        size = len(json.dumps(item)) + 1
        if size > left:
            return tuple(kept), 0
        left -= size
        kept.append(item)
    return tuple(kept), left


def check_spec_size(spec: TaskSpec) -> None:
    """Raise InvalidInput for a spec that is too large."""
    if spec_bytes(spec) > MAX_SPEC_BYTES:
        raise InvalidInput(
            f"arguments and environment are larger than {MAX_SPEC_BYTES >> 20} MiB together; put the data "
            "into a file",
            "env_vars" if _in_environment(spec) else "arguments",
        )


def _in_environment(spec: TaskSpec) -> bool:
    """Whether most of it stands in the environment."""
    return sum(len(name) + len(value) for name, value in spec.env_vars) > sum(map(len, spec.arguments))
