"""Answers of the front door itself, which no application has seen the request of."""

import json

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

SENTENCES = {
    400: "this is not a request that HTTP/1.1 knows",
    408: "the request did not arrive in time; send it again",
    415: "bodies are taken as they are; send this one without Content-Encoding",
    429: "too much is being sent from this address without a valid credential; try again later",
    431: "the request line and headers are too long or too many; send fewer",
    503: "there are too many connections without a valid credential from this address, or of this caller; "
    "try again later",
}


def refusal(status: int) -> bytes:
    """The whole answer; the connection ends with it."""
    body = json.dumps({"detail": SENTENCES[status]}).encode()
    head = (
        b"content-type: application/json\r\n"
        b"content-length: " + str(len(body)).encode() + b"\r\n"
        b"connection: close\r\n\r\n"
    )
    return STATUS_LINE[status] + head + body
