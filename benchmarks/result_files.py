"""Reading and writing of the result files of the benchmarks."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moreish.runs.record import library_versions, machine_info


def provenance() -> dict[str, Any]:
    """Return the time, the machine and the library versions of a measurement."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return {"made": made, "machine": machine_info(), "versions": library_versions()}


def read_results(path: Path) -> dict[str, Any]:
    """Return the results of earlier measurements, if there are any."""
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
