"""The HTTP interface as its own description has it, tried with a bounded, fixed set of generated requests."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.result import Err, Result

from support.cluster import Cluster

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("interface"),
    pytest.mark.timeout(600),
]

EXAMPLES_PER_OPERATION = 12
DESCRIPTION_CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
WANTED_CHECKS = ("not_a_server_error", *DESCRIPTION_CHECKS)

# 502 and 503 are honest answers of a host whose engine or runner does not do what was asked.
HONEST_FAULTS = (502, 503)


@schemathesis.serializer("application/x-tar")
def as_it_is(_context: Any, value: Any) -> bytes:
    """Bodies that are streams of bytes."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def described_host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cluster = Cluster(tmp_path_factory.mktemp("interface"))
    try:
        cluster.start_host()
        cluster.add_runner("kr-described")
        yield cluster
    finally:
        cluster.stop()


def operation_of(found: Result[Any, InvalidSchema]) -> Any:
    """The operation that was read, or the fault of its description."""
    if isinstance(found, Err):
        raise found.err()
    return found.ok()


def test_no_answer_is_a_500_or_undescribed(described_host: Cluster) -> None:
    schema = schemathesis.openapi.from_url(f"{described_host.url}/openapi.json")
    headers = {"Authorization": f"Bearer {described_host.token}"}
    operations = [operation_of(found) for found in schema.get_all_operations()]
    assert len(operations) > 30
    for operation in operations:
        probe(operation, headers)


def probe(operation: Any, headers: dict[str, str]) -> None:
    """Try one operation with requests that fit its description, and with some that do not."""

    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=EXAMPLES_PER_OPERATION,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    def try_case(case: Any) -> None:
        if "follow" in {parameter.name for parameter in case.operation.query}:
            # A stream that is followed has no end to wait for.
            case.query = {**(case.query or {}), "follow": "false"}
        response = case.call(headers=headers, timeout=60)
        honest = response.status_code in HONEST_FAULTS
        case.validate_response(response, checks=_checks(*(DESCRIPTION_CHECKS if honest else WANTED_CHECKS)))

    try_case()


def _checks(*names: str) -> list[Any]:
    load_all_checks()
    return [CHECKS.get_one(name) for name in names]
