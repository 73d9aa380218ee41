"""All that a host, or whoever speaks in its name, can say to a runner, and a user by way of it."""

import contextlib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput, KohakuRiverError
from kohakuriver.models.resources import Gpu, NumaNode
from kohakuriver.runner.agent.book import Book
from kohakuriver.runner.agent.intake import judge_execute, judge_kill, judge_stop
from kohakuriver.runner.agent.order_spec import NodeFacts, order_to_spec
from kohakuriver.runner.agent.records import Reported, decode_record, encode_record
from kohakuriver.wire import enrolment, signing
from kohakuriver.wire.messages import Order, TaskReport, decode
from support.agent_world import T0, settings_in
from support.fuzz_settings import search
from support.hostile_json import TEXTS, hostile, of_type
from support.time_limit import ends_soon

FACTS = NodeFacts(
    cores=8,
    memory_bytes=1 << 34,
    numa=(NumaNode(0, (0, 1, 2, 3), 1 << 33), NumaNode(1, (4, 5, 6, 7), 1 << 33)),
    gpus=(Gpu(0, "GPU-0", "A", 1 << 34, "nvidia", 0),),
    shared_storage=True,
)
SOUND = {"required_cores": 1, "required_gpus": [], "target_numa_node_id": None, "required_memory_bytes": None}
_texts = st.sampled_from(TEXTS) | st.text(max_size=80)


@search
@given(hostile(of_type(list[Order]), SOUND))
def test_an_order_is_obeyed_or_refused_by_a_sentence(data: bytes) -> None:
    with ends_soon(), contextlib.suppress(InvalidInput):
        for order in decode(data, list[Order]):
            settings = settings_in(Path("/tmp"))
            verdicts = [
                judge_execute(order, Book(), lambda order, s=settings: order_to_spec(order, FACTS, s)),
                judge_kill(order, Book(), T0),
                judge_stop(order, Book()),
            ]
            book = Book()
            for verdict in verdicts:
                for record in verdict.records:
                    # What was judged can be written down, read again, and applied.
                    book.apply(decode_record(encode_record(record)))


@search
@given(hostile(of_type(TaskReport)))
def test_a_report_that_was_made_can_be_kept(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        report = decode(data, TaskReport)
        assert decode_record(encode_record(Reported(report))) == Reported(report)


@search
@given(_texts, st.binary(max_size=300))
def test_credentials_and_tokens_are_read_or_refused(text: str, data: bytes) -> None:
    for read in _readers(text, data):
        with ends_soon(), contextlib.suppress(KohakuRiverError):
            read()


def _readers(text: str, data: bytes) -> list[Any]:
    key = bytes(32)
    return [
        lambda: signing.signer_of(text),
        lambda: signing.verify(text, key, "GET", text, data),
        lambda: enrolment.JoinToken.parse(text),
        lambda: enrolment.proofs_equal(text, "x"),
    ]
