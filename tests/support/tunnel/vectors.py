"""Golden vectors of the tunnel: what an end is told, and the events and frames that come of it, as JSON.

The tests of `tunnel-client` read the same files. `python -m support.tunnel.write_vectors` (in `tests`) writes
anew what follows of each step; look at the difference before you keep it. Bytes are hex; `(61*400)` in them
is one byte, repeated.
"""

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Event, Opened, Received, Reset
from kohakuriver.wire.tunnel.frames import Transport
from kohakuriver.wire.tunnel.table import Role, TunnelBounds

FOLDER = Path(__file__).parents[2] / "unit/wire/tunnel/vectors"

Step = dict[str, Any]
Scenario = dict[str, Any]

_BOUNDS = {"frame_bytes": 16 << 10}
"""Where a scenario says nothing else; how large its frames are is each end's own choice."""
_FOLLOWING = frozenset({"breach", "events", "frames", "id", "open", "room"})
_RUN = re.compile(r"\((..)\*(\d+)\)")


def read_vectors(name: str) -> list[Scenario]:
    found: list[Scenario] = json.loads((FOLDER / name).read_text())
    return found


def as_text(data: bytes | memoryview) -> str:
    parts = []
    for byte, run in groupby(bytes(data)):
        length = len(list(run))
        parts.append(f"({byte:02x}*{length})" if length > 8 else f"{byte:02x}" * length)
    return "".join(parts)


def as_bytes(text: str) -> bytes:
    return bytes.fromhex(_RUN.sub(lambda run: run[1] * int(run[2]), text))


def end_of(scenario: Scenario) -> TunnelEnd:
    bounds = TunnelBounds(**_BOUNDS | scenario.get("bounds", {}))
    return TunnelEnd(Role[scenario["role"]], credit=scenario["credit"], bounds=bounds)


def play(scenario: Scenario) -> list[Step]:
    """Return the steps with what follows of each."""
    end = end_of(scenario)
    played = []
    for step in scenario["steps"]:
        told = {
            key: step[key] for key in step if key not in {"events", "frames", "id", "breach", "open", "room"}
        }
        played.append(told | _follows(end, step))
        if "breach" in played[-1]:
            break
    return played


def _follows(end: TunnelEnd, step: Step) -> Step:
    follows: Step = {}
    try:
        follows |= _do(end, step)
    except InvalidInput as breach:
        return {"breach": str(breach)}
    written: list[list[Any]] = []
    while len(written) < step.get("pull", 1 << 30) and (frame := end.next_frame()):
        written.append([frame[0], as_text(frame[1])])
    follows["frames"] = written
    follows["open"] = len(end)
    if "stream" in step:
        follows["room"] = end.room(step["stream"])
    return follows


def _do(end: TunnelEnd, step: Step) -> Step:
    match step["do"]:
        case "open":
            return {"id": end.open(Transport(step["transport"]), step["port"])}
        case "connected":
            end.connected(step["stream"])
        case "send":
            end.send(step["stream"], as_bytes(step["data"]))
        case "finish":
            end.finish(step["stream"])
        case "reset":
            end.reset(step["stream"], step["sentence"])
        case "take":
            end.take(step["stream"], step["amount"])
        case "ping":
            end.ping()
        case "tick":
            return {"events": [_event(event) for event in end.tick(step["now"])]}
        case "receive":
            event = end.receive(as_bytes(step["frame"]))
            return {"events": [] if event is None else [_event(event)]}
        case other:
            raise AssertionError(f"no step is called {other}")
    return {}


def _event(event: Event) -> list[Any]:
    told: list[Any] = [type(event).__name__, event.client_id]
    match event:
        case Opened():
            return [*told, int(event.transport), event.port]
        case Received():
            return [*told, as_text(event.data)]
        case Reset():
            return [*told, event.sentence]
    return told
