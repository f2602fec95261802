"""Shared by all tests: shapes are checked, data are found, and the command line is at hand."""

import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# Lets beartype check shapes; it must come before the package is imported.
from jaxtyping import config, install_import_hook

install_import_hook(
    ["moreish.models", "moreish.generate.sampling", "moreish.evaluate.loss"], "beartype.beartype"
)

# isort: split
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import typer.main  # noqa: E402

from moreish.data import catalog  # noqa: E402
from moreish.data.encode import encode_corpus  # noqa: E402
from moreish.data.text.corpus import Corpus  # noqa: E402
from moreish.data.token_dataset import TokenDataset  # noqa: E402
from moreish.errors import MoreishError  # noqa: E402
from moreish.runs.run import Run  # noqa: E402
from moreish.tokenizers import tokenizer_builder  # noqa: E402
from moreish.tokenizers.char import CharTokenizer  # noqa: E402
from moreish.utils import download as fetch  # noqa: E402


def _no_code_from_data(event: str, arguments: tuple[object, ...]) -> None:
    """Whatever unpickles during the tests, fails them."""
    if event == "pickle.find_class":
        raise RuntimeError(f"something unpickles: {arguments}")


sys.addaudithook(_no_code_from_data)

ROOT = Path(__file__).parent.parent

config.update("jaxtyping_disable", True)


@pytest.fixture
def shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the shapes of all tensors; other tests would take three times as long with it."""
    monkeypatch.setattr(config, "jaxtyping_disable", False)


BESIDE = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _data_and_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lecture data from a folder that the environment names, else beside the project if there."""
    if fetch.DATA_DIR_VARIABLE not in os.environ and BESIDE.is_dir():
        os.environ[fetch.DATA_DIR_VARIABLE] = str(BESIDE)
    base = tmp_path_factory.getbasetemp()
    # One for all processes of the tests: what is fetched is fetched once.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["XDG_CACHE_HOME"] = str(shared / "cache")


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files need not survive a power cut of the machine that tests run on. What is flushed, and
    when, is tested with a simulated disk: `support/faults.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def repetitions(number: int) -> int:
    """Return how often a randomized test repeats: `number` times in `make soak`, else a tenth.

    Tests that call it have the mark `repeated`, by which `make soak` selects them.
    """
    return number if os.environ.get("MOREISH_SOAK") else number // 10


LONG_FILES = (
    "test_golden.py",
    "test_page.py",
    "test_hostile.py",
    "test_models.py",
    "test_processes.py",
    "test_faults.py",
    "test_serve_schema.py",
    "test_figures.py",
)
"""Those whose tests take longest; with short ones at the end, two processes end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


NOT_TESTED = "NOT TESTED: "


def skip_or_fail(missing: str) -> NoReturn:
    """End a test that needs what this machine lacks: skipped, loudly, and failed in CI."""
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(NOT_TESTED + missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was not tested, and why, after everything else."""
    reasons = Counter(
        str(report.longrepr).rpartition(NOT_TESTED)[2].rstrip("')")
        for report in terminalreporter.stats.get("skipped", [])
        if NOT_TESTED in str(report.longrepr)
    )
    if reasons:
        terminalreporter.section("PART OF THE PROJECT WAS NOT TESTED", red=True, bold=True)
        for reason, count in reasons.items():
            terminalreporter.line(f"{count} tests did not run: {reason}", red=True)


def lecture_text(name: str) -> str:
    """Load a text of the lectures, or end the test where there is none."""
    entry = catalog.find_dataset(name)
    if not catalog.is_available_offline(entry):
        skip_or_fail(f"{entry.file_name} is missing: name its folder with MOREISH_DATA")
    return catalog.load_dataset(name)


def needs_gpt2() -> None:
    """End the test where GPT-2's vocabulary is missing."""
    try:
        tokenizer_builder("gpt2").build([], boundary=False)
    except MoreishError as error:
        skip_or_fail(str(error))


@pytest.fixture(scope="session")
def lecture_names() -> list[str]:
    return lecture_text("names-lecture").split("\n")


@pytest.fixture(scope="session")
def shakespeare() -> str:
    return lecture_text("shakespeare")


def item_tokens(items: list[str]) -> tuple[CharTokenizer, TokenDataset]:
    """Items as one split, all of them."""
    tokenizer = CharTokenizer.build(items, boundary=True)
    ids = [0]
    for item in items:
        ids += [*tokenizer.encode(item), 0]
    return tokenizer, TokenDataset(np.array(ids, dtype=np.uint8), items=True)


def split_tokens(items: list[str], rule: str) -> tuple[CharTokenizer, dict[str, TokenDataset]]:
    """Items as the splits of a rule."""
    corpus = Corpus.of(items, "lines")
    tokenizer = CharTokenizer.build(items, boundary=True)
    return tokenizer, encode_corpus(corpus, tokenizer, rule, 42)


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Moreish = Callable[..., Result]

get_command = functools.cache(typer.main.get_command)
"""To make the command line of all verbs anew takes longer than many a verb."""


@pytest.fixture
def moreish(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Moreish:
    """Runs a command line in this process, in an empty folder."""
    from moreish.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(typer.main, "get_command", get_command)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["moreish", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def _zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from support.zygote import running_zygote

    with running_zygote(tmp_path_factory.mktemp("zygote")) as python:
        yield python


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let Python's programs be forks of a process that has imported PyTorch: `sys.executable` is
    then the client of `support/zygote.py`. Elsewhere than on Linux they are the usual processes."""
    if sys.platform == "linux":
        python = str(request.getfixturevalue("_zygote"))
        monkeypatch.setattr(sys, "executable", python)
        monkeypatch.setenv("PYTHON_EXEC", python)  # torchrun's own


Proved = Callable[[int, str, dict[str, int]], None]


@pytest.fixture
def proved() -> Proved:
    """Record the number of a guarantee, its test, and counts in the file that MOREISH_PROOFS names,
    if any. docs/reliability.md is generated from these records."""

    def proved(guarantee: int, test: str, counts: dict[str, int]) -> None:
        if place := os.environ.get("MOREISH_PROOFS"):
            entry = {"guarantee": guarantee, "test": test, "counts": counts}
            with Path(place).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    return proved


class Clock:
    """Time that only work moves on: a step, an evaluation, a checkpoint take what is said here."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step, self.evaluation, self.checkpoint, self.counting = 0.01, 0.1, 0.05, 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A simulated clock, so that everything that depends on time is deterministic."""
    import time

    from moreish.models import Model
    from moreish.training import budget
    from moreish.training.checkpoint import Checkpoints
    from moreish.training.gradients import Backward

    clock = Clock()

    def costing(owner: Any, name: str, cost: str) -> None:
        work = getattr(owner, name)

        def slow(*arguments: Any, **options: Any) -> Any:
            clock.now += getattr(clock, cost)
            return work(*arguments, **options)

        monkeypatch.setattr(owner, name, slow)

    costing(Backward, "__call__", "step")
    costing(Run, "score", "evaluation")
    costing(budget, "batch_losses", "evaluation")
    costing(Checkpoints, "save", "checkpoint")
    costing(Model, "fit_counts", "counting")
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a small list of names, for tests that only read it."""
    from moreish import api
    from moreish.training.events import ignore

    folder = tmp_path_factory.mktemp("small")
    names = catalog.load_dataset("names").split("\n")[:400]
    source = folder / "names.txt"
    source.write_text("\n".join(names), encoding="utf-8")
    settings = {"model": {"layers": 1, "heads": 2, "width": 16}}
    return api.train(source, steps=60, out=folder / "run", settings=settings, report=ignore)


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of running text, for tests that only read it."""
    from moreish import api
    from moreish.training.events import ignore

    folder = tmp_path_factory.mktemp("text")
    source = folder / "story.txt"
    source.write_text(STORY * 20, encoding="utf-8")
    settings = {"model": {"layers": 1, "heads": 2, "width": 16}}
    return api.train(source, steps=60, out=folder / "run", settings=settings, report=ignore)


@pytest.fixture(scope="session")
def served_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runs of `make_runs`, for tests that only read them."""
    from support.serving import make_runs

    return make_runs(tmp_path_factory.mktemp("served"))


STORY = """The miller had three sons, a mill, an ass and a cat.

The sons ground the corn, the ass carried it away, and the cat caught the mice.
When the miller died, the eldest took the mill, the second took the ass,
and nothing was left for the youngest but the cat.

"What shall I do with a cat?" he said. "I could have gloves made of its fur."
"Listen," said the cat, who had understood all of it; "have boots made for me instead,
so that I can go out among people, and you shall soon be helped."

"""
