"""The server behaves as its OpenAPI document says, tested by schemathesis."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from moreish.serve.http.limits import Limits
from moreish.serve.server import Service
from support.serving import serving

pytestmark = pytest.mark.soak  # longer than `make test` can wait; CI runs it too

LIMITS = Limits(max_tokens=20, total_tokens=100)


@pytest.fixture(scope="module")
def service(
    served_runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("home")  # for uploads and training runs
    with serving(list(served_runs.values()), slots=4, limits=LIMITS, home=home) as service:
        yield service


def run_schemathesis(service: Service, folder: Path, examples: int, *more: str) -> None:
    """Run schemathesis with all checks."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
    options = ["--checks", "all", "--max-examples", str(examples), "--seed", "1", *more]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


def test_schemathesis(service: Service, tmp_path: Path) -> None:
    run_schemathesis(service, tmp_path, 1)  # in the phase of coverage there are many more


@pytest.mark.soak
@pytest.mark.long
def test_schemathesis_with_many_examples(service: Service, tmp_path: Path) -> None:
    run_schemathesis(service, tmp_path, 1000)


@pytest.mark.soak
@pytest.mark.long
def test_schemathesis_with_a_token(tmp_path: Path) -> None:
    (folder := tmp_path / "schemathesis").mkdir()
    with serving([], slots=2, limits=LIMITS, token="secret", home=tmp_path / "home") as service:
        run_schemathesis(service, folder, 20, "--header", "Authorization: Bearer secret")


@pytest.mark.soak
@pytest.mark.long
def test_schemathesis_with_existing_models(service: Service) -> None:
    """With models that exist, every request either succeeds or is rejected with 400."""
    import schemathesis
    from schemathesis.checks import CHECKS

    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    statuses: dict[int, int] = {}
    native = ("surprisal", "next", "write", "attention", "list", "novelty")
    for operation in ("/v1/completions", *(f"/api/{what}" for what in native)):
        strategy = schema[operation]["POST"].as_strategy()

        @given(case=strategy)
        @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
        def try_out(case: Any) -> None:
            if isinstance(case.body, dict):
                case.body["model"] = "story" if len(str(case.body)) % 2 else "words"
            excluded = [CHECKS.get_one("positive_data_acceptance")]
            answer = case.call_and_validate(excluded_checks=excluded)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

        try_out()
    assert set(statuses) <= {200, 400}
    assert min(statuses[200], statuses[400]) > 100
