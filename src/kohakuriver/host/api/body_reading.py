"""Reading a request's body, up to the size that the interface takes."""

from starlette.requests import Request

from kohakuriver.models.errors import TooLarge

MAX_BODY_BYTES = 8 << 20


async def read_body(request: Request) -> bytes:
    """Return the body; raises TooLarge as soon as it is known to be larger than 8 MiB."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > MAX_BODY_BYTES):
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> TooLarge:
    return TooLarge("the request is larger than the 8 MiB that this interface takes")
