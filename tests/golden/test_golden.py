"""The golden runs: what every recipe gave when it was recorded, it gives today.

Where a change is meant to alter them: `python -m tests.golden.record`, in a commit of its own that
says why. See `record.py` for what is recorded and `recipes/` for what is trained.
"""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import skip_or_fail

pytestmark = pytest.mark.soak  # longer than `make test` can wait; CI runs it too

HERE = Path(__file__).parent

TOLERANCE = 1e-4
"""Relative; of losses and scores on another machine than the recorded one."""

ELSEWHERE = ("parameters", "losses", "validation", "scores_after_training", "scores")
"""What is compared on another machine: rounding may change samples, and always changes hashes."""

Record = dict[str, dict[str, Any]]


def expected_record() -> Record:
    return json.loads((HERE / "expected.json").read_text("utf-8"))


def differences(expected: Record, measured: Record, *, exact: bool) -> list[str]:
    """One line for each field that is not as expected."""
    found = [f"{name}: in one of the records only" for name in expected.keys() ^ measured.keys()]
    for name in expected.keys() & measured.keys() - {"machine"}:
        if "missing" in measured[name]:
            continue
        for field in expected[name] if exact else ELSEWHERE:
            before, after = expected[name][field], measured[name].get(field)
            if before != after if exact else not close(before, after):
                found.append(f"{name}: {field}\n  expected {before}\n  measured {after}"[:600])
    return sorted(found)


def close(before: Any, after: Any) -> bool:
    """Whether all numbers in two trees are within the tolerance."""
    if isinstance(before, dict):
        return (
            isinstance(after, dict)
            and before.keys() == after.keys()
            and all(close(value, after[key]) for key, value in before.items())
        )
    if before is None or after is None:
        return before is after
    return math.isclose(before, after, rel_tol=TOLERANCE)


def test_golden_runs(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    command = [sys.executable, str(HERE / "record.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, measured = expected_record(), json.loads(file.read_text("utf-8"))
    found = differences(expected, measured, exact=True)
    exact = not found or expected["machine"] == measured["machine"]
    if not exact:
        found = differences(expected, measured, exact=False)
    assert not found, "not as recorded in tests/golden/expected.json:\n" + "\n".join(found)
    for name, fields in measured.items():
        if "missing" in fields:
            skip_or_fail(f"golden run {name}: {fields['missing']}")
    if not exact:
        pytest.skip(
            f"GOLDEN RUNS ONLY PARTLY CHECKED: this machine is {measured['machine']} and the "
            f"records are from {expected['machine']}, so losses and scores agree to "
            f"{TOLERANCE:g}, not to the last bit"
        )


def test_the_comparison_detects_small_changes() -> None:
    expected = expected_record()
    assert differences(expected, expected, exact=True) == []
    assert differences(expected, expected, exact=False) == []
    for factor, exact, seen in (
        (1 + 1e-15, True, True),
        (1 + 1e-5, False, False),
        (1 + 1e-3, False, True),
    ):
        changed = copy.deepcopy(expected)
        changed["mlp"]["scores"]["val"]["loss"] *= factor
        assert bool(differences(expected, changed, exact=exact)) is seen
    changed = copy.deepcopy(expected)
    del changed["mlp"]["losses"]["60"]
    assert differences(expected, changed, exact=False)
    del changed["gru"]
    assert "gru: in one of the records only" in differences(expected, changed, exact=True)
