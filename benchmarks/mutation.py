"""Mutation testing: how many small mistakes in critical code the tests detect.

    python benchmarks/mutation.py [--only AREA ...] [--max-mutants N] [--out FILE]

A mutant is a module with one mistake: `<` for `<=`, `+` for `-`, a number that is one too large, a
negated condition, or a call, `raise` or return value left out. A fixed random sample of each area's
mutants is tested, each in a separate process that runs the area's tests until one fails. The score
is the fraction that a test detects. The others are listed, since some change nothing that matters
(such as the size of a buffer). The line and branch coverage of the tests is reported too.
"""

import argparse
import ast
import copy
import importlib.machinery
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType
from typing import Any

# One mutant for each processor, each with one thread; imported once, before the processes part.
os.environ["OMP_NUM_THREADS"] = "1"
import coverage
import hypothesis
import pytest

for library in ("jaxtyping", "numpy", "torch"):
    importlib.import_module(library)

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "moreish"

AREAS: dict[str, dict[str, list[str]]] = {
    "checkpoint": {
        "training/checkpoint.py": ["integration/test_faults.py", "integration/test_resume.py"]
    },
    "tokenizer": {
        f"tokenizers/{name}.py": [
            "unit/tokenizers/test_tokenizers.py",
            "unit/data/test_token_dataset.py",
        ]
        for name in ("base", "char", "byte", "__init__")
    },
    "split": {"data/split.py": ["unit/data/test_split.py", "unit/data/test_token_dataset.py"]},
    "sampler": {
        "data/sampler.py": ["unit/data/test_token_dataset.py", "unit/training/test_trainer.py"]
    },
    "limits": {
        "planning/memory.py": ["unit/planning/test_memory.py"],
        "utils/files.py": [
            "integration/test_faults.py",
            "unit/runs/test_run.py",
            "unit/planning/test_memory.py",
        ],
    },
}
"""For each area, its modules and the tests that should detect mistakes in them."""

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One mistake."""

    module: str
    line: int
    what: str
    code: CodeType


class Mistakes(ast.NodeTransformer):
    """Makes the mistake with a number, and counts the possible mistakes."""

    def __init__(self, number: int) -> None:
        self.number, self.count = number, 0
        self.line, self.what = 0, ""

    def _here(self, node: ast.AST, what: str) -> bool:
        self.count += 1
        if self.count - 1 != self.number:
            return False
        self.line, self.what = getattr(node, "lineno", 0), what
        return True

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Visit the body, but not annotations and decorators."""
        node.body = [self.visit(part) for part in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Skip texts for people."""
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [self.visit(part) for part in node.body]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        for place, op in enumerate(node.ops):
            if type(op) in SWAPS and self._here(node, "comparison"):
                node.ops[place] = SWAPS[type(op)]()
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if type(node.op) in SWAPS and self._here(node, "arithmetic"):
            node.op = SWAPS[type(node.op)]()
        return self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if type(node.op) in SWAPS and self._here(node, "arithmetic"):
            node.op = SWAPS[type(node.op)]()
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        if self._here(node, "and, or"):
            node.op = SWAPS[type(node.op)]()
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            return ast.Constant(not node.value) if self._here(node, "truth") else node
        if isinstance(node.value, int | float) and self._here(node, "number"):
            return ast.Constant(node.value + 1)
        return node

    def _condition(self, node: Any) -> ast.AST:
        if self._here(node, "condition"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        return self.generic_visit(node)

    visit_If = visit_IfExp = visit_While = _condition

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if node.value is not None and self._here(node, "result left out"):
            node.value = ast.Constant(None)
            return node
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Pass() if self._here(node, "raise left out") else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant):
            return node  # a docstring
        if isinstance(node.value, ast.Call) and self._here(node, "call left out"):
            return ast.Pass()
        return self.generic_visit(node)


def mutants_of(file: str) -> Iterator[Mutant]:
    """Yield all mutants of a module."""
    path = PACKAGE / file
    tree = ast.parse(path.read_text("utf-8"))
    module = "moreish." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    counter = Mistakes(-1)
    counter.visit(copy.deepcopy(tree))
    for number in range(counter.count):
        mistakes = Mistakes(number)
        changed = ast.fix_missing_locations(mistakes.visit(copy.deepcopy(tree)))
        yield Mutant(module, mistakes.line, mistakes.what, compile(changed, str(path), "exec"))


def run_tests(tests: list[str], folder: Path, mutant: Mutant | None) -> int:
    """Run tests in this process and return pytest's exit status."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    if mutant is not None:
        whole = importlib.machinery.SourceFileLoader.get_code

        def get_code(self: Any, fullname: str) -> CodeType | None:
            return mutant.code if fullname == mutant.module else whole(self, fullname)

        importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    options = ["-x", "-q", "-m", "not soak", "-p", "no:cacheprovider", "-p", "no:xdist",
               "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # fmt: skip
    paths = [str(ROOT / "tests" / test) for test in tests]
    # Hypothesis tries the same examples each time and does not shrink the one that fails.
    hypothesis.settings.register_profile(
        "mutation", derandomize=True, database=None, phases=[hypothesis.Phase.generate]
    )
    hypothesis.settings.load_profile("mutation")
    return int(pytest.main([*options, f"--basetemp={folder}", f"--rootdir={ROOT}", *paths]))


def forked(work: Callable[[Path], int]) -> tuple[int, Path]:
    """Start a process that does some work in its own folder; return its id and the folder."""
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    pid = os.fork()
    if pid:
        return pid, folder
    os.setsid()
    status = 1
    try:
        status = work(folder / "t")
    finally:
        os._exit(0 if status == 0 else 1)


def measure(file: str, tests: list[str]) -> tuple[float, int, int]:
    """Return the seconds of the tests without a mistake, how many lines and branches of the module
    they reach, and how many there are."""
    data = tempfile.mkstemp(suffix=".coverage")[1]
    paths = [str(PACKAGE / file)]

    def work(folder: Path) -> int:
        reached = coverage.Coverage(data_file=data, branch=True, include=paths)
        reached.start()
        status = run_tests(tests, folder, None)
        reached.stop()
        reached.save()
        return status

    began = time.perf_counter()
    pid, folder = forked(work)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.perf_counter() - began
    shutil.rmtree(folder, ignore_errors=True)
    if status != 0:
        sys.exit(f"{' '.join(tests)} fail without a mistake")
    report = coverage.Coverage(data_file=data, branch=True, include=paths)
    report.load()
    with tempfile.NamedTemporaryFile() as file_of_totals:
        report.json_report(include=paths, outfile=file_of_totals.name)
        totals = json.loads(Path(file_of_totals.name).read_text("utf-8"))["totals"]
    Path(data).unlink()
    reached = totals["covered_lines"] + totals["covered_branches"]
    return seconds, reached, totals["num_statements"] + totals["num_branches"]


def find_undetected(mutants: list[Mutant], tests: list[str], seconds: float) -> list[Mutant]:
    """Return the mutants that no test detects; far slower tests count as a detection."""
    waiting, running, survived = mutants[::-1], dict[int, tuple[Mutant, Path, float]](), []
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            mutant = waiting.pop()
            pid, folder = forked(lambda folder, mutant=mutant: run_tests(tests, folder, mutant))
            running[pid] = mutant, folder, time.perf_counter()
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            mutant, folder, _ = running.pop(pid)
            shutil.rmtree(folder, ignore_errors=True)
            if os.waitstatus_to_exitcode(status) == 0:
                survived.append(mutant)
            continue
        for late, (_, _, began) in running.items():
            if time.perf_counter() - began > 4 * seconds + 30:
                os.killpg(late, signal.SIGKILL)
        time.sleep(0.05)
    return survived


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=AREAS, default=list(AREAS))
    parser.add_argument(
        "--max-mutants", type=int, default=60, help="number of mutants for each area"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/mutation.json")
    options = parser.parse_args()
    found = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for area in options.only:
        reached = there = 0
        survived: list[Mutant] = []
        everything = [(file, mutant) for file in AREAS[area] for mutant in mutants_of(file)]
        some = min(options.max_mutants, len(everything))
        chosen = random.Random(0).sample(everything, some)
        for file, tests in AREAS[area].items():
            seconds, reached_here, there_here = measure(file, tests)
            reached, there = reached + reached_here, there + there_here
            survived += find_undetected([m for place, m in chosen if place == file], tests, seconds)
        found[area] = {
            "modules": list(AREAS[area]),
            "tests": sorted({test for tests in AREAS[area].values() for test in tests}),
            "coverage": reached / there,
            "possible": len(everything),
            "mutants": len(chosen),
            "detected": len(chosen) - len(survived),
            "survived": [f"{mutant.module}:{mutant.line} {mutant.what}" for mutant in survived],
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        print(area, json.dumps(found[area]), flush=True)


if __name__ == "__main__":
    main()
