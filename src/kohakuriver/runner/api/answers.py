"""How the runner's API answers."""

from starlette.responses import Response

from kohakuriver.wire.messages import encode


def json_answer(document: object, status: int = 200) -> Response:
    return Response(encode(document), status, media_type="application/json")
