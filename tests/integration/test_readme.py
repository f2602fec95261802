"""What the documents tell people to type works, and what they claim was measured."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, STORY, Moreish
from moreish.models import REGISTRY

README = (ROOT / "README.md").read_text(encoding="utf-8")
FAST = ["--steps", "3", "--set", "model.layers=1", "--set", "model.width=16"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_the_commands_run(moreish: Moreish) -> None:
    """The README's own commands, in its order, with training runs cut short."""
    Path("lyrics.txt").write_text(STORY * 20, encoding="utf-8")
    Path("new-verses.txt").write_text(STORY[:200], encoding="utf-8")
    assert moreish("train", "names", "--out", "runs/names", *FAST).status == 0
    done = 0
    for line in "".join(blocks("")).splitlines():
        line = line.split("  #")[0].strip()
        if not line.startswith("moreish "):
            continue
        arguments = shlex.split(line)[1:]
        if arguments[0] == "train":
            at = arguments.index("--minutes")
            arguments[at : at + 2] = ["--steps", "3"]
        if "O " in arguments:
            arguments[arguments.index("O ")] = "I "
        result = moreish(*arguments)
        assert result.status == 0, (line, result.err)
        done += 1
    assert done >= 4


def test_the_python_example_runs(moreish: Moreish) -> None:
    assert moreish("train", "names", "--model", "ngram", "--out", "runs/names").status == 0
    (code,) = blocks("python")
    exec(code.replace("steps=2000", "steps=5"), {})  # noqa: S102 (our own README)
    assert Path("runs/example/model.safetensors").exists()


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", README + (ROOT / "CONTRIBUTING.md").read_text()):
        assert f"\n{target}:" in makefile


def test_links_are_valid() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_figures_equal_the_benchmark_results() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "table.py", "--check"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\| `([\w-]+)` .*\| \*\*([\d.]+)\*\* \|", README, re.M)) >= 8


def test_every_model_is_documented() -> None:
    concepts = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in concepts for name in REGISTRY)
