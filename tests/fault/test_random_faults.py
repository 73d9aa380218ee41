"""A minute of everything that can break, under a hundred tasks; each seed is a schedule that replays.

A failure prints its seed, what was broken when, and which promises were not kept; the whole record is kept as
JSON. How to replay it: docs/testing-faults.md.
"""

from pathlib import Path

import pytest

from fault.campaign import Campaign, CampaignOptions, plan_for
from fault.campaign_checks import summary, violations
from support.lab.lab import Lab

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(900)]

SECONDS = 60.0
TASKS = 100
SEEDS = (11, 23, 47)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken_while_everything_else_is(seed: int, lab: Lab, tmp_path: Path) -> None:
    record = Campaign(lab, plan_for(lab, CampaignOptions(seed, SECONDS, TASKS)), print).run()
    record.write(tmp_path / "record.json")
    broken = violations(record)
    told = [
        f"seed {seed}; the record is in {tmp_path / 'record.json'}",
        "what was broken:",
        *map(str, record.schedule),
        "what the campaign met:",
        *record.complaints,
        "promises that were not kept:",
        *broken,
        summary(record, broken),
    ]
    assert not broken, "\n".join(told)
    assert len(record.accepted()) == TASKS, "\n".join(told)
