import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.targets import Target, is_hostname, parse_target

hostnames = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)
targets = st.builds(
    Target,
    hostnames,
    st.none() | st.integers(0, 9999),
    st.lists(st.integers(0, 9999), unique=True, max_size=5).map(tuple),
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("n1", Target("n1")),
        ("n1:0", Target("n1", 0)),
        ("n1::0,1", Target("n1", None, (0, 1))),
        ("n1:1::2", Target("n1", 1, (2,))),
        ("gpu-box.lab.example", Target("gpu-box.lab.example")),
    ],
)
def test_every_form_of_the_contract_is_read(text: str, target: Target) -> None:
    assert parse_target(text) == target


@given(targets)
def test_a_target_is_read_back_as_it_was_written(target: Target) -> None:
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":0",
        "n1:",
        "n1::",
        "n1:0::",
        "n1:::0",
        "n1:a",
        "n1:-1",
        "n1::0,",
        "n1::,0",
        "n1::0,,1",
        "n1:0:1",
        "n 1",
        "n1\n",
        "-n1",
        "n1-",
        "../n1",
        "n1/x",
        "n1;rm",
        "n1:٣",
        "nö",
        "n1::0 ,1",
        "n1:99999",
        "a" * 300,
    ],
)
def test_what_is_no_target_is_refused_with_the_form_expected(text: str) -> None:
    with pytest.raises(InvalidInput, match="hostname") as caught:
        parse_target(text)
    assert caught.value.field == "targets"


def test_a_gpu_named_twice_is_refused_in_a_short_sentence() -> None:
    with pytest.raises(InvalidInput, match="twice") as caught:
        parse_target("n1::" + ",".join(["1"] * 100_000))
    assert len(str(caught.value)) < 200


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        target = parse_target(text)
    except InvalidInput:
        return
    assert is_hostname(target.hostname)
