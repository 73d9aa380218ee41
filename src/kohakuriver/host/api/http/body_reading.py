"""Reading a request's body, up to the size that the interface takes."""

from starlette.requests import Request

from kohakuriver.models.errors import TooLarge

MAX_BODY_BYTES = 8 << 20
SMALL_BODY_BYTES = 64 << 10


def body_size(request: Request, max_bytes: int) -> int:
    """How large the body is, or may be where that is not said; raises TooLarge if it is too large."""
    announced = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or not (announced.isascii() and announced.isdigit()):
        return max_bytes
    if len(announced) > 18 or int(announced) > max_bytes:
        raise _too_large(max_bytes)
    return int(announced)


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the body; raises TooLarge as soon as it is known to be larger than `max_bytes`."""
    body_size(request, max_bytes)
    return await read_sized(request, max_bytes)


async def read_sized(request: Request, max_bytes: int) -> bytes:
    """The same, of a request that `body_size` has judged."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> TooLarge:
    size = f"{max_bytes >> 20} MiB" if max_bytes >= 1 << 20 else f"{max_bytes} bytes"
    return TooLarge(f"the request is larger than the {size} that this address takes")
