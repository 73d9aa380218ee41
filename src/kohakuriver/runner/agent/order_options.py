"""What an order asks of the container, judged for this node and filled up with the node's defaults. Pure."""

from dataclasses import replace

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.container_options import ContainerOptions, checked_options
from kohakuriver.runner.engines.contract.spec import UserIds
from kohakuriver.wire.messages import Order

_LEAST_SHM_BYTES = 64 << 20


def takes_image_command(order: Order) -> bool:
    """Whether the image is to say what runs."""
    return order.session is None and not order.command and order.registry_image is not None


def options_of(order: Order, user: UserIds, memory_bytes: int, memlock_bytes: int) -> ContainerOptions:
    """`memory_bytes`: what it may use, which /dev/shm counts into; `memlock_bytes`: see `TaskSettings`."""
    asked = checked_options(order.options or ContainerOptions())
    if asked.shm_size_bytes > memory_bytes:
        raise InvalidInput(
            f"{asked.shm_size_bytes} bytes of /dev/shm wanted; they count for the memory of the workload, "
            f"which is {memory_bytes}",
            field="shm_size_bytes",
        )
    return replace(
        asked,
        shm_size_bytes=asked.shm_size_bytes or max(memory_bytes // 2, _LEAST_SHM_BYTES),
        ulimits=_with_memlock(asked.ulimits, memlock_bytes) if order.required_gpus else asked.ulimits,
        user=_user(asked.user, user, is_vps=order.session is not None),
    )


def _with_memlock(ulimits: tuple[str, ...], most: int) -> tuple[str, ...]:
    """GPUs are fed from memory that is locked, and network cards beside them."""
    if any(text.startswith("memlock=") for text in ulimits):
        return ulimits
    return (*ulimits, f"memlock={most}:{most}")


def _user(asked: str, own: UserIds, *, is_vps: bool) -> str:
    """Tasks that are not root are nobody else either: shared storage knows users by their numbers."""
    if is_vps and asked:
        raise InvalidInput("a VPS is root in its container; leave the user out", field="user")
    if not asked or own.uid == 0:
        return asked
    if asked in (own.account, str(own.uid), f"{own.uid}:{own.gid}"):
        return ""
    raise InvalidInput(
        f"tasks of this node run as {own.account} ({own.uid}:{own.gid}) and as nobody else; leave the user "
        "out, or name another node",
        field="user",
    )
