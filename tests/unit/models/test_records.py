"""A changed record, and how large a spec is."""

import pytest

from kohakuriver.models.records import changed
from kohakuriver.models.spec.size import CutSpec, spec_bytes
from kohakuriver.models.tasks import TaskSpec

SPEC = TaskSpec("train", ("--fast",), env_vars=(("A", "1"),), required_cores=3)


def test_it_is_another_record_with_the_changes_and_all_else_as_it_was() -> None:
    expected = TaskSpec("test", ("--fast",), env_vars=(("A", "1"),), required_cores=3, required_gpus=(1,))
    assert changed(SPEC, command="test", required_gpus=(1,)) == expected
    assert SPEC.command == "train"


def test_fields_that_a_class_inherits_are_kept() -> None:
    assert changed(CutSpec("train", ("a",)), name="n") == CutSpec("train", ("a",), name="n")


def test_a_field_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="comand"):
        changed(SPEC, comand="test", name="n")  # type: ignore[call-arg]  # what the type checker refuses as well


@pytest.mark.parametrize(
    ("field", "size"),
    [
        ({"command": "x" * 1000}, 1000),
        ({"arguments": ("x" * 1000,)}, 1000),
        ({"env_vars": (("NAME", "x" * 996),)}, 1000),
        ({"additional_mounts": ("/" + "x" * 999,)}, 1000),
        ({"working_dir": "/" + "x" * 999}, 1000),
        ({"arguments": ("\x01" * 100,)}, 600),
        ({"arguments": ("é" * 100,)}, 200),
        ({"required_gpus": tuple(range(100))}, 500),
    ],
)
def test_what_grows_a_spec_is_counted_as_it_is_written(field: dict[str, object], size: int) -> None:
    plain = TaskSpec("", ())
    grown = spec_bytes(changed(plain, **field))  # type: ignore[arg-type]
    assert size <= grown - spec_bytes(plain) <= size + 10
