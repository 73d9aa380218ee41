"""How large what a task asks for is, as it is stored and sent, and how large it may be."""

import json
from dataclasses import replace

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.tasks import TaskSpec

MAX_SPEC_BYTES = 1 << 20
"""The most that one task asks for. An order is its spec and little more, so this bounds an order as well."""

_FIXED_BYTES = 512
"""What names, numbers and a target of usual length take."""


def spec_bytes(spec: TaskSpec) -> int:
    """Bytes of the spec as JSON, with what escapes add: a control character is six of them."""
    vps = spec.vps
    texts = (
        spec.command,
        spec.arguments,
        spec.env_vars,
        spec.working_dir,
        spec.additional_mounts,
        spec.required_gpus,
        () if vps is None else (vps.authorized_keys, vps.host_key, vps.host_public_key),
    )
    return _FIXED_BYTES + len(json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode())


def bytes_of_all(specs: list[TaskSpec]) -> int:
    """The sum over specs of one submission, which differ in target and GPUs alone."""
    if not specs:
        return 0
    alike = spec_bytes(replace(specs[0], required_gpus=()))
    return alike * len(specs) + sum(5 * len(spec.required_gpus) for spec in specs)


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
