"""Users of VPSs in a campaign: each lives in one VPS, leaves marks in it, stops and restarts it.

A mark is a file in the VPS. One whose writing was answered must be there ever after, over stops, restarts
and whatever fails; one that was never sent must not be. A dweller does one thing after the other, and asks
again where no answer came, so that nothing that it asked for is under way when it writes the next mark.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

_ANSWER_SECONDS = 15.0
_PAUSE_SECONDS = 0.3
_FOLDER = "/marks"
_ALIVE = "running"
_DOWN = ("stopped", "failed")


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` None: none came, or the host could not; what was asked for may be done or not."""

    status: int | None
    body: Any = None

    @property
    def is_yes(self) -> bool:
        return self.status is not None and self.status < 300


class GaveUp(Exception):
    """The campaign is over, or waiting was in vain; the text says for what."""


class Dweller:
    """`live` until `over` is set, then `come_to_rest` once everything was mended, and `leave`."""

    def __init__(
        self, name: str, node: str, open_client: Callable[[], httpx2.Client], over: threading.Event
    ) -> None:
        self.name = name
        self.complaints: list[str] = []
        self.story: list[str] = []
        self.vps: str | None = None
        self._node = node
        self._client = open_client()
        self._over = over
        self._sent: set[str] = set()
        self._kept: set[str] = set()
        self._unclear: list[str] = []
        self._began = time.monotonic()

    @property
    def has_lived(self) -> bool:
        """Whether there was anything that could have been lost."""
        return bool(self._kept)

    def live(self, seed: int) -> None:
        """Acts at random until it is over; what is not as it should be is a complaint."""
        dice = random.Random(f"dweller {seed} {self.name}")
        try:
            self._move_in()
            while not self._over.is_set():
                act = dice.choices(
                    (self._mark, self._look, self._stop_and_start, self._restart), (8, 3, 2, 2)
                )[0]
                act()
                self._over.wait(dice.uniform(0, 1.0))
        except GaveUp as reason:
            self._note(f"gave up: {reason}")

    def come_to_rest(self, seconds: float) -> None:
        """On a whole cluster: bring the VPS up, if need be, and look at its marks a last time."""
        self._over = threading.Event()
        deadline = time.monotonic() + seconds
        try:
            if self.vps is not None:
                self._bring_up(deadline)
                self._look(deadline)
                self._stop_and_start(deadline)
                self._look(deadline)
        except GaveUp as reason:
            self.complaints.append(f"{self.name} ({self.vps}) did not come to rest: {reason}")

    def leave(self) -> list[str]:
        """Kill what there is; returns the ids, of which nothing may be left."""
        listed = self._client.get("/api/vps", timeout=_ANSWER_SECONDS).json()
        ids = {each["task_id"] for each in listed if each["name"] in self._unclear}
        if self.vps is not None:
            ids.add(self.vps)
        for task_id in ids:
            self._ask("POST", f"/api/kill/{task_id}")
            self._ask("DELETE", f"/api/vps/snapshots/{task_id}")
        self._client.close()
        return sorted(ids)

    def _move_in(self) -> None:
        for number in itertools.count(1):
            name = f"{self.name}-{number}"
            body = {"name": name, "target_hostname": self._node, "ssh_key_mode": "disabled"}
            answer = self._ask("POST", "/api/vps/create", json=body)
            if answer.is_yes:
                self.vps = answer.body["task_id"]
                self._note(f"moved in: {self.vps}")
                return self._bring_up()
            self._unclear.append(name)
            if answer.status is not None:
                self.complaints.append(f"{name} was refused: {answer.status} {answer.body}")
                raise GaveUp("it was refused")
            self._pause("an answer to its creation")
        return None

    def _mark(self) -> None:
        mark = f"m{len(self._sent)}"
        self._sent.add(mark)
        body = {"path": f"{_FOLDER}/{mark}", "content": mark, "create_parents": True}
        answer = self._ask("POST", f"/api/fs/{self.vps}/write", json=body)
        if answer.is_yes:
            self._kept.add(mark)
        self._note(f"mark {mark}: {answer.status}")

    def _look(self, deadline: float | None = None) -> None:
        while True:
            answer = self._ask("GET", f"/api/fs/{self.vps}/list", params={"path": _FOLDER})
            if answer.is_yes or (answer.status == 404 and _FOLDER in str(answer.body)):
                break  # a folder that is not there holds nothing
            state = self._state(deadline)
            if state["status"] in _DOWN:
                self._bring_up(deadline)
            self._pause("its marks", deadline)
        there = {each["name"] for each in answer.body["entries"]} if answer.is_yes else set()
        if lost := self._kept - there:
            self._wrong(f"lacks {sorted(lost)}")
        if strange := there - self._sent:
            self._wrong(f"holds {sorted(strange)}, which nobody wrote")

    def _stop_and_start(self, deadline: float | None = None) -> None:
        if not self._settled_request("stop", deadline):
            return
        while (state := self._state(deadline))["status"] not in _DOWN:
            if state["status"] == _ALIVE and state["notice"]:
                self._note(f"stop given up: {state['notice']}")
                return
            self._pause(f"its stop ({state['status']})", deadline)
        self._bring_up(deadline)
        self._look(deadline)

    def _restart(self) -> None:
        before = self._state()["attempt"]
        if not self._settled_request("restart"):
            return
        while True:
            state = self._state()
            if state["status"] == _ALIVE and (state["attempt"] > before or state["notice"]):
                break
            if state["status"] in _DOWN and not state["restart_requested"]:
                break
            self._pause(f"its restart ({state['status']})")
        self._bring_up()
        self._look()

    def _bring_up(self, deadline: float | None = None) -> None:
        """Return when it runs and nothing is under way."""
        while (state := self._state(deadline))["status"] != _ALIVE or state["restart_requested"]:
            if state["status"] in _DOWN and not state["restart_requested"]:
                self._ask("POST", f"/api/vps/restart/{self.vps}")
            elif state["status"] in ("killed", "killed_oom", "completed"):
                self._wrong(f"is {state['status']} and nobody asked for it: {state['error_message']}")
                raise GaveUp("it has ended")
            self._pause(f"it to run ({state['status']}, {state['notice']})", deadline)

    def _settled_request(self, verb: str, deadline: float | None = None) -> bool:
        """Ask until there is an answer; whether it was a yes."""
        while (answer := self._ask("POST", f"/api/vps/{verb}/{self.vps}")).status is None:
            self._pause(f"an answer to {verb}", deadline)
        self._note(f"{verb}: {answer.status}")
        return answer.is_yes

    def _state(self, deadline: float | None = None) -> dict[str, Any]:
        while not (answer := self._ask("GET", f"/api/status/{self.vps}")).is_yes:
            if answer.status == 404:
                self._wrong("was accepted and is gone")
                raise GaveUp("it is gone")
            self._pause("its state", deadline)
        return dict(answer.body)

    def _ask(self, method: str, path: str, **more: Any) -> Answer:
        try:
            answer = self._client.request(method, path, timeout=_ANSWER_SECONDS, **more)
        except httpx2.HTTPError:
            return Answer(None)
        body = answer.json() if answer.content else None
        return Answer(None if answer.status_code >= 500 else answer.status_code, body)

    def _pause(self, what: str, deadline: float | None = None) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise GaveUp(f"waited in vain for {what}")
        if self._over.wait(_PAUSE_SECONDS):
            raise GaveUp(f"it was over while waiting for {what}")

    def _wrong(self, sentence: str) -> None:
        self._note(sentence)
        self.complaints.append(f"VPS {self.vps} of {self.name} {sentence}")

    def _note(self, sentence: str) -> None:
        self.story.append(f"[{time.monotonic() - self._began:6.1f} s] {sentence}")
