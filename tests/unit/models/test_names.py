import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models import names
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId

NASTY = [
    "",
    "../x",
    "x/..",
    "a;b",
    "--privileged",
    "-v",
    "a b",
    "a\n",
    "\na",
    "a\0",
    "a,b",
    "a:b",
    "ä",
    "\u0430",
]

environments = st.from_regex(r"[a-z0-9]{1,8}(([._]|__|-{1,3})[a-z0-9]{1,8}){0,3}", fullmatch=True)


@pytest.mark.parametrize("name", ["a", "kohakuriver-base", "py3.12", "a_b", "a__b", "a--b", "1", "a" * 63])
def test_an_environment_may_have_a_name_that_engines_take(name: str) -> None:
    assert names.check_environment_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *NASTY,
        "A",
        "a.",
        ".a",
        "a-",
        "_a",
        "a..b",
        "a._b",
        "a___b",
        "a.-b",
        "a" * 64,
        pytest.param("a" * 10**6, id="huge"),
    ],
)
def test_an_environment_cannot_have_a_name_that_an_engine_refuses(name: str) -> None:
    with pytest.raises(InvalidInput, match="environment's name") as caught:
        names.check_environment_name(name)
    assert caught.value.field == "container_name"
    assert len(str(caught.value)) < 600


@given(environments)
def test_the_image_of_an_environment_is_no_image_of_a_registry(name: str) -> None:
    with pytest.raises(InvalidInput, match="its own images"):
        names.check_image_reference(names.environment_image(names.check_environment_name(name)))


@given(environments, st.integers(0, 10**12 - 1))
def test_a_tarball_name_is_read_back(name: str, unix_time: int) -> None:
    assert names.parse_tarball_name(names.tarball_name(name, unix_time)) == (name, unix_time)


@pytest.mark.parametrize(
    "filename",
    [
        "",
        "a.tar",
        "a-.tar",
        "-1.tar",
        "a-1.tar.part",
        ".a-1.tar",
        "a-1.tar\n",
        "A-1.tar",
        "a-1.TAR",
        "x/a-1.tar",
        "../a-1.tar",
        "a-1234567890123.tar",
        "a..b-1.tar",
        "a-x.tar",
        "a" * 64 + "-1.tar",
        "a-\u0661.tar",
    ],
)
def test_other_files_are_no_tarballs(filename: str) -> None:
    assert names.parse_tarball_name(filename) is None


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "reference",
    [
        "ubuntu",
        "ubuntu:24.04",
        "library/ubuntu",
        "ghcr.io/a/b-c/d_e:v1.2",
        "localhost:5000/x",
        "127.0.0.1:5000/x:y",
        f"ubuntu@{DIGEST}",
        f"ubuntu:24.04@{DIGEST}",
        "a__b",
        "a--b",
    ],
)
def test_a_plain_image_reference_is_taken(reference: str) -> None:
    assert names.check_image_reference(reference) == reference


@pytest.mark.parametrize(
    "reference",
    [
        *[name for name in NASTY if name != "a:b"],
        "Ubuntu",
        "a:",
        ":b",
        "a:b:c",
        "a@b",
        "http://a/b",
        "file:///x",
        "u:p@reg/a",
        "a//b",
        "a/",
        "/a",
        "a:-b",
        f"a@{DIGEST}0",
        f"a@{DIGEST}\n",
        "a:" + "b" * 129,
        pytest.param("a" * 513, id="long"),
    ],
)
def test_what_is_no_plain_image_reference_is_refused(reference: str) -> None:
    with pytest.raises(InvalidInput, match="image reference") as caught:
        names.check_image_reference(reference)
    assert caught.value.field == "registry_image"


@pytest.mark.parametrize("tail", ["!", "", "A", "_"])
def test_an_image_reference_is_judged_in_no_time(tail: str) -> None:
    begun = time.process_time()
    for reference in (
        "a-" * 255 + tail,
        "a_" * 255 + tail,
        "a." * 255 + tail,
        "a/" * 255 + tail,
        "a" * 511 + tail,
    ):
        with suppress(InvalidInput):
            names.check_image_reference(reference)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("name", ["train", "Train_1.2-x", "1a", "a" * 63])
def test_a_task_name_is_taken(name: str) -> None:
    assert names.check_task_name(name) == name


@pytest.mark.parametrize("name", [*NASTY, "123", "0", ".a", "_a", "a" * 64])
def test_what_is_no_task_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="task's name") as caught:
        names.check_task_name(name)
    assert caught.value.field == "name"


@pytest.mark.parametrize("name", ["A", "_x", "PATH", "npm.config-x", pytest.param("a" * 255, id="long")])
def test_a_variable_name_is_taken(name: str) -> None:
    assert names.check_env_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "1A", "A=B", "A B", "A\n", "A\0", "-A", "Ä", pytest.param("a" * 256, id="long")]
)
def test_what_is_no_variable_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="environment variable") as caught:
        names.check_env_name(name)
    assert caught.value.field == "env_vars"


def test_names_on_a_node_are_those_of_the_contract() -> None:
    assert names.task_container_name(TaskId(42)) == "kohakuriver-task-42"
    assert names.environment_container_name("base") == "kohakuriver-env-base"
    assert names.environment_image("base") == "kohakuriver/base:base"
    assert names.environment_image("base", "17") == "kohakuriver/base:17"
    assert names.tarball_name("base", 17) == "base-17.tar"
