"""The table of faults that the script prints has the expected results."""

from __future__ import annotations

import pytest
from fault_report import COLUMNS, FAULTS, RIGHT, Fault, outcome


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_ends_as_the_table_says(fault: Fault) -> None:
    right, cells = outcome(fault)
    assert right, cells


def test_the_report_tells_right_from_wrong() -> None:
    assert outcome(Fault("none", RIGHT))[0]
    right, cells = outcome(Fault("none", RIGHT, ("status:404",)))
    assert (right, cells[1], len(cells)) == (False, "NotAvailableError", len(COLUMNS))
