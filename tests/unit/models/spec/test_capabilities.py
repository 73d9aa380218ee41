import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.capabilities import check_capabilities


def test_names_are_taken_in_any_of_their_forms_and_kept_in_one() -> None:
    assert check_capabilities(["net_raw", "CAP_NET_RAW", "Cap_Mknod"]) == ("MKNOD", "NET_RAW")
    assert check_capabilities([]) == ()


@pytest.mark.parametrize("name", ["", "ALL", "CAP_", "NET RAW", "NET_RAW\n", "CAP_CAP_NET_RAW", "ÑET_RAW"])
def test_what_is_no_capability_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="capabilities\\(7\\)"):
        check_capabilities(["NET_RAW", name])
