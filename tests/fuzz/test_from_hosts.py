"""All that a host, or whoever speaks in its name, can say to a runner, and a user by way of it."""

import contextlib
from functools import partial
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
from kohakuriver.wire.messages import Order, TaskReport, decode
from kohakuriver.wire.trust import enrolment, signing
from kohakuriver.wire.trust.identity import Identity, Side
from kohakuriver.wire.trust.sealed import Kind, Opened, read_stream_end
from kohakuriver.wire.trust.sealed_calls import receive_call
from support.machine.time_limit import ends_soon
from support.messages.fuzz_settings import search
from support.messages.hostile_json import NUMBERS, TEXTS, hostile, of_type
from support.runner.agent_world import settings_in
from support.runner.machine_engine import T0

FACTS = NodeFacts(
    cores=8,
    memory_bytes=1 << 34,
    numa=(NumaNode(0, (0, 1, 2, 3), 1 << 33), NumaNode(1, (4, 5, 6, 7), 1 << 33)),
    gpus=(Gpu(0, "GPU-0", "A", 1 << 34, "nvidia", 0),),
    shared_storage=True,
)
SOUND = {"required_cores": 1, "required_gpus": [], "target_numa_node_id": None, "required_memory_bytes": None}
_texts = st.sampled_from(TEXTS) | st.text(max_size=80)
KEYS = Identity.generate().link_keys(Identity.generate().public_key, Side.NODE)


def _parts_of() -> st.SearchStrategy[str]:
    """Headers that have all parts of a credential, of which some are odd."""
    odd = st.sampled_from([*NUMBERS, "", "-", "+1", "a" * 44, "0" * 63, "\u0661"]) | _texts
    sound = ["n1", "e" * 22, "s" * 22, "7", "0", "0" * 64, "0" * 64]
    parts = st.tuples(*(st.just(part) | st.just(part) | st.just(part) | odd for part in sound))
    scheme = st.sampled_from(
        [signing.SCHEME, signing.SCHEME, "KohakuRiver", "KohakuRiver3", "KohakuRiver\u0662"]
    )
    return st.tuples(scheme, parts).map(lambda both: f"{both[0]} {':'.join(both[1])}")


@search
@given(hostile(of_type(list[Order]), SOUND))
def test_an_order_is_obeyed_or_refused_by_a_sentence(data: bytes) -> None:
    with ends_soon(), contextlib.suppress(InvalidInput):
        for order in decode(data, list[Order]):
            settings = settings_in(Path("/tmp"))
            verdicts = [
                judge_execute(order, Book(), partial(order_to_spec, facts=FACTS, settings=settings)),
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


@search
@given(_parts_of(), _texts)
def test_a_credential_of_sound_form_is_proven_or_refused(header: str, target: str) -> None:
    with ends_soon(), contextlib.suppress(KohakuRiverError):
        credential = signing.read_credential(header)
        assert len(header) < 1000
        call = receive_call(Side.NODE, KEYS, credential, "GET", target)
        raise AssertionError(f"nobody made that call: {call.credential.text}")


def _readers(text: str, data: bytes) -> list[Any]:
    key = bytes(32)
    headers = {signing.ANSWER_HEADER: text, signing.EPOCH_HEADER: text, "X-Log-Size": text}
    return [
        lambda: signing.read_credential(text),
        lambda: signing.prove_answer(key, text, 200, headers),
        lambda: read_stream_end(Opened(Kind.END, data)),
        lambda: enrolment.JoinToken.parse(text),
        lambda: enrolment.proofs_equal(text, "x"),
    ]
