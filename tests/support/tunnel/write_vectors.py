"""Writes anew what follows of each step of `ends.json`, and random walks of ends into `walks.json`."""

import json
import random

from kohakuriver.wire.tunnel.frames import (
    FrameType,
    Header,
    Transport,
    amount_payload,
    frame_of,
    sentence_payload,
)
from support.tunnel.vectors import FOLDER, Scenario, Step, as_bytes, as_text, play, read_vectors

_WALKS = 24
_STEPS = 120


def main() -> None:
    _write("ends.json", [scenario | {"steps": play(scenario)} for scenario in read_vectors("ends.json")])
    _write("walks.json", [_walk(random.Random(seed), seed) for seed in range(_WALKS)])


def _write(name: str, scenarios: list[Scenario]) -> None:
    texts = [_scenario_text(scenario) for scenario in scenarios]
    (FOLDER / name).write_text("[\n" + ",\n".join(texts) + "\n]\n")


def _scenario_text(scenario: Scenario) -> str:
    """One line a step, so that a difference can be read."""
    head = json.dumps({key: value for key, value in scenario.items() if key != "steps"})
    steps = ",\n  ".join(json.dumps(step) for step in scenario["steps"])
    return f'{head[:-1]}, "steps": [\n  {steps}\n]}}'


def _walk(dice: random.Random, seed: int) -> Scenario:
    role, credit = dice.choice(["OPENS", "IS_ASKED"]), dice.random() < 0.7
    bounds = {"streams": 6, "opening": 2, "growth_bytes": 128 << 10, "flow_datagrams": 3, "flow_bytes": 4000}
    scenario: Scenario = {"name": f"walk {seed}", "role": role, "credit": credit, "bounds": bounds}
    walker = _Walker(dice, opens=role == "OPENS")
    steps: list[Step] = []
    for number in range(_STEPS):
        step = walker.step(number)
        played = play(scenario | {"steps": [*steps, step]})
        walker.learn(played[-1])
        steps.append(step)
        if "breach" in played[-1]:
            break
    return scenario | {"steps": play(scenario | {"steps": steps})}


class _Walker:
    """Chooses steps that mostly make sense, so that a walk goes far."""

    def __init__(self, dice: random.Random, *, opens: bool) -> None:
        self._dice = dice
        self._opens = opens
        self._ids: list[int] = []
        self._next_id = 100
        self._room: dict[int, int] = {}
        self._unread: dict[int, int] = {}

    def learn(self, played: Step) -> None:
        if played.get("id"):
            self._ids.append(played["id"])
        for event in played.get("events", []):
            if event[0] == "Received":
                size = len(as_bytes(event[2]))
                self._unread[event[1]] = self._unread.get(event[1], 0) + size
        if "stream" in played:
            self._room[played["stream"]] = played["room"]

    def step(self, number: int) -> Step:
        pull = {"pull": self._dice.randint(0, 2)} if self._dice.random() < 0.3 else {}
        return (self._begin() if not self._ids or self._dice.random() < 0.12 else self._go_on(number)) | pull

    def _begin(self) -> Step:
        transport = self._dice.choice([Transport.TCP, Transport.TCP, Transport.UDP])
        if self._opens:
            return {"do": "open", "transport": int(transport), "port": self._dice.randint(1, 65535)}
        self._next_id += 1
        self._ids.append(self._next_id)
        port = self._dice.choice([0, 80, 80, 80, 80, 443])
        return _receive(FrameType.CONNECT, self._next_id, transport, port)

    def _go_on(self, number: int) -> Step:
        stream = self._dice.choice(self._ids[-8:])
        kind = self._dice.choice(["send"] * 5 + ["take"] * 4 + ["in"] * 12 + ["connected"] * 4 + ["rare"] * 2)
        if kind == "send":
            room = self._room.get(stream, 0)
            size = self._dice.choice([0, 1, 700, 20_000, room])
            return {"do": "send", "stream": stream, "data": as_text(b"a" * min(size, room))}
        if kind == "take" and self._unread.get(stream):
            amount = self._dice.choice([1, self._unread[stream], self._unread[stream]])
            self._unread[stream] -= amount
            return {"do": "take", "stream": stream, "amount": amount}
        if kind == "connected" and not self._opens:
            return {"do": "connected", "stream": stream}
        if kind == "rare":
            return self._dice.choice(
                [
                    {"do": "finish", "stream": stream},
                    {"do": "finish", "stream": stream},
                    {"do": "reset", "stream": stream, "sentence": "the service is gone: é"},
                    {"do": "ping"},
                    {"do": "tick", "now": 20.0 * number},
                ]
            )
        return self._frame_in(stream)

    def _frame_in(self, stream: int) -> Step:
        kinds = (
            [FrameType.DATA] * 10
            + [FrameType.WINDOW] * 4
            + [FrameType.CLOSE, FrameType.PING, FrameType.ERROR]
        )
        if self._opens:
            kinds += [FrameType.CONNECTED] * 6
        kind = self._dice.choice(kinds)
        payload = b""
        match kind:
            case FrameType.DATA:
                payload = b"b" * self._dice.choice([0, 1, 900, 16384, 16384, 16384])
            case FrameType.WINDOW:
                payload = amount_payload(self._dice.choice([1, 16384, 65536]))
            case FrameType.ERROR:
                payload = sentence_payload("nothing listens there")
        return _receive(kind, stream, Transport.TCP, 80, payload)


def _receive(kind: FrameType, client_id: int, transport: Transport, port: int, payload: bytes = b"") -> Step:
    frame = frame_of(Header(kind, transport, client_id, port), payload)
    return {"do": "receive", "stream": client_id, "frame": as_text(frame)}


if __name__ == "__main__":
    main()
