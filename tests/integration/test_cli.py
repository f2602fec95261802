"""The verbs, as people and as programs use them."""

import io
import json
import math
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conftest import ROOT, STORY, Moreish, Result, lecture_text
from moreish.data import load_dataset
from moreish.runs.run import Run
from moreish.tokenizers import tokenizer_builder
from moreish.ui.result import print_result
from moreish.ui.terminal import print_message
from moreish.utils.files import encode_json
from support.random_transformers import save_random_model
from support.serving import GENEROUS_DEADLINE_S, wait_until

TINY = ("--set", "model.layers=1", "--set", "model.heads=2", "--set", "model.width=16")


@pytest.fixture
def few_names(tmp_path: Path) -> Path:
    """A list that is trained on and evaluated faster than the built-in names."""
    path = tmp_path / "names.txt"
    path.write_text("\n".join(load_dataset("names").split("\n")[:400]))
    return path


def program(*arguments: object) -> list[str]:
    """Return the command line of a process of its own."""
    return [sys.executable, "-m", "moreish", *map(str, arguments)]


def run_program(
    *arguments: object, cwd: Path, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(program(*arguments), cwd=cwd, env=env, capture_output=True, text=True)


def run_bash(line: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_train_prints_the_kind_of_text_and_the_next_commands(moreish: Moreish) -> None:
    Path("pets.txt").write_text("cat\ndog\nrat\nhen\ncow\ncat\n" * 3 + "newt\n")
    result = moreish("train", "pets.txt", "--steps", 20, *TINY, "--set", "train.patience=0")
    assert result.status == 0
    for part in (
        "pets: 19 lines (6 distinct), 3 to 4 characters",
        "it looks like a list of lines (if not: --as text)",
        "by line, at random",
        "and a boundary token: acdeghnortw",
        "20 steps on cpu, seed 0",
        "runs/pets-gpt",
        "step 20 of 20",
        "after 20 steps",
        "training",
        "validation",
        "moreish sample runs/pets-gpt",
    ):
        assert part in result.out
    assert result.err == ""
    again = moreish("train", "pets.txt", "--steps", 2, *TINY)
    assert "runs/pets-gpt-2" in again.out


def test_json_is_one_object_and_nothing_else(moreish: Moreish, few_names: Path) -> None:
    result = moreish("train", few_names, "--model", "mlp", "--steps", 5, "--out", "r", "--json")
    assert set(result.json) >= {"run", "splits", "seconds", "tokens_per_second"}
    assert result.json["run"] == "r"
    assert set(result.json["splits"]) == {"train", "val"}
    evaluated = moreish("eval", "r", "--test", "--json").json
    assert set(evaluated["splits"]) == {"train", "val", "test"}
    for split in evaluated["splits"].values():
        assert set(split) >= {"loss", "stderr", "bits_per_char", "bits_per_byte", "tokens"}
    assert evaluated["splits"]["val"] == pytest.approx(result.json["splits"]["val"])
    assert evaluated["test_evaluations"] == 1
    samples = moreish("sample", "r", "-n", 3, "--json").json["samples"]
    assert len(samples) == 3
    assert all(isinstance(text, str) for text in samples)
    assert moreish("sample", "r", "-n", 3).out.splitlines() == samples
    letters = moreish("eval", "r", "--text", "andrej", "--json").json
    assert [t["token"] for t in letters["tokens"]] == [*"andrej", "·"]
    assert letters["nats"] == pytest.approx(sum(t["nats"] for t in letters["tokens"]))
    names = [entry["name"] for entry in moreish("data", "list", "--json").json["data"]]
    assert names == ["names", "names-sex", "names-lecture", "shakespeare", "cmudict"]
    assert moreish("data", "show", "names", "--json").json["license"].startswith("public domain")
    assert moreish("data", "get", "names", "--json").json["characters"] > 200_000


def test_eval_prints_tables(moreish: Moreish, small_run: Run) -> None:
    out = moreish("eval", small_run.path).out
    for part in ("loss (nats/token)", "bits/char", "bits/byte", "perplexity", "validation", "±"):
        assert part in out
    assert "test" not in out
    letters = moreish("eval", small_run.path, "--text", "emma").out
    assert "log-likelihood -" in letters
    assert "nats per token" in letters


def test_eval_reads_standard_input(
    moreish: Moreish, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfemma\r\nava\r\n")))
    out = moreish("eval", small_run.path, "--text", "-").out
    assert "emma" in out
    assert "ava" in out


def test_running_text_streams(moreish: Moreish, text_run: Run) -> None:
    result = moreish(
        "sample", text_run.path, "--prompt", "The cat", "--max-tokens", 50, "--seed", 4
    )
    assert result.out.startswith("The cat")
    assert len(result.out) == len("The cat") + 50 + 1
    several = moreish("sample", text_run.path, "-n", 2, "--max-tokens", 20).out
    assert several.count("---") == 1


def test_top_k_above_the_vocabulary_is_harmless(moreish: Moreish, small_run: Run) -> None:
    everything = moreish("sample", small_run.path)
    assert moreish("sample", small_run.path, "--top-k", 10_000).out == everything.out
    assert moreish("sample", small_run.path, "--temperature", 0).status == 0


def test_flags_win_over_the_recipe(moreish: Moreish, few_names: Path) -> None:
    Path("recipe.toml").write_text(
        'seed = 3\n[data]\nsource = "names.txt"\n[model]\nname = "mlp"\nhidden = 8\ncontext = 2\n'
        "[train]\nsteps = 3\n"
    )
    result = moreish("train", "--config", "recipe.toml", "--context", 4, "--out", "r", "--json")
    config = Run.open("r").config
    assert result.status == 0
    assert (config.model.name, config.model.context, config.model.hidden) == ("mlp", 4, 8)
    assert (config.train.steps, config.seed) == (3, 3)


def test_lines_longer_than_the_context_are_reported(moreish: Moreish) -> None:
    Path("l.txt").write_text("\n".join(f"a long line number {i}" for i in range(30)))
    result = moreish("train", "l.txt", "--context", 8, "--steps", 3, *TINY)
    assert "lines longer than 7 tokens are split into windows" in result.out


def test_the_bare_command_prints_its_help(moreish: Moreish) -> None:
    assert "train" in moreish().out
    assert moreish().err == ""
    assert moreish("--version").out.startswith("moreish 0.")


def test_data_commands(moreish: Moreish) -> None:
    assert "names" in moreish("data", "list").out
    shown = moreish("data", "show", "shakespeare").out
    assert "public domain" in shown
    assert "86c4e6aa" in shown
    assert "inside the package" in moreish("data", "get", "names").out


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['moreish', '--help']\n"
        "from moreish.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'safetensors') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for verb in ("train", "sample", "eval", "data"):
        assert verb in done.stdout


def test_the_module_is_a_command_and_errors_are_one_line(tmp_path: Path) -> None:
    done = run_program("train", "nothing.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("moreish: no file, folder or built-in data set 'nothing.txt'")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_processes")
def test_control_c_saves_and_prints_the_resume_command(
    moreish: Moreish, few_names: Path, tmp_path: Path
) -> None:
    options = ["train", few_names, "--steps", "100000", "--out", "r", *TINY]
    process = subprocess.Popen(
        program(*options),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "r" / "metrics.jsonl").exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=GENEROUS_DEADLINE_S)
    assert process.returncode == 130, err
    assert "Resume with: moreish train --resume r" in out
    assert err == ""
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "interrupted"
    assert len(moreish("sample", "r", "-n", 2).out.splitlines()) == 2


@pytest.mark.soak
def test_a_reader_of_samples_may_exit_early(small_run: Run, text_run: Run, tmp_path: Path) -> None:
    """For running text, which streams, and for a list."""
    for run, options, size in ((text_run, "--max-tokens 3000", 20), (small_run, "-n 3000", 5)):
        sample = f"{shlex.join(program('sample', run.path))} {options}"
        done = run_bash(f"{sample} | head -c {size}", tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout) == size


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
@pytest.mark.soak
def test_recipes_run(moreish: Moreish, recipe: Path, tmp_path: Path) -> None:
    """Every recipe runs for two steps, on the beginning of running text. The recipes of GPT-2's
    size are planned as they are and trained with a smaller model."""
    text, more = recipe.read_text(), []
    if recipe.stem == "shakespeare-gpt2-finetune":
        save_random_model(tmp_path / "gpt2", "gpt2")
        more = ["--init-from", f"hf:{tmp_path / 'gpt2'}", "--set", "train.batch_size=4"]
    elif recipe.stem.startswith("gpt2-124m"):
        assert moreish("plan", "--config", recipe, "--gpus", 8, "--gpu", "h100").status == 0
        small = {"model.layers": 2, "model.width": 24, "model.context": 32, "train.batch_size": 4}
        small["train.compile"] = "false"
        more = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
        more += ["--tokenizer", "byte"]
    source = []
    if "shakespeare" in text or "gpt2-124m" in text:
        length = 20_000 if more else 60_000
        Path("beginning.txt").write_text(lecture_text("shakespeare")[:length])
        source = ["beginning.txt"]
    elif "names-lecture" in text:
        lecture_text("names-lecture")
    train = ["train", *source, "--config", recipe, *more, "--steps", 2, "--out", "r", "--json"]
    result = moreish(*train)
    assert result.status == 0, result.err
    assert result.json["splits"]["val"]["loss"] < (99 if "init_from" in text else 6)


def test_stories_are_found(moreish: Moreish) -> None:
    """A folder of texts, from the command line to a sample, with nothing but defaults."""
    Path("tales").mkdir()
    for i in range(2):
        Path(f"tales/{i}.txt").write_text(STORY * 4)
    assert moreish("train", "tales", "--model", "ngram").status == 0
    assert moreish("sample", "runs/tales-ngram", "--max-tokens", 20).status == 0


def test_an_impossible_text_is_null_in_json(moreish: Moreish) -> None:
    Path("l.txt").write_text("\n".join(["ab", "aab", "abb", "aabb"] * 5))
    moreish("train", "l.txt", "--model", "ngram", "--set", "model.add_k=0", "--out", "r")
    found = moreish("eval", "r", "--text", "ba", "--json")
    assert found.status == 0
    assert found.json["nats"] is None
    assert None in [token["nats"] for token in found.json["tokens"]]
    assert "inf nats" in moreish("eval", "r", "--text", "ba").out


def test_a_short_name_of_a_model_goes_with_its_other_settings(
    moreish: Moreish, few_names: Path
) -> None:
    """--set model=mlp must not forget --context."""
    moreish("train", few_names, "--context", 5, "--set", "model=mlp", "--steps", 1, "--out", "r")
    config = Run.open("r").config
    assert (config.model.name, config.model.context) == ("mlp", 5)


def test_the_current_folder_may_be_a_run(
    moreish: Moreish, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ". is not a run folder" in moreish("sample", ".").err
    monkeypatch.chdir(small_run.path)
    assert moreish("sample", ".", "-n", 2).out == moreish("sample", small_run.path, "-n", 2).out


def test_paths_are_printed_as_they_are_and_can_be_copied(moreish: Moreish) -> None:
    Path("l.txt").write_text("\n".join(f"[/x]{i}" for i in range(30)))
    result = moreish("train", "l.txt", "--model", "ngram", "--out", "a [bold]run[/bold] :cat:")
    assert "moreish sample 'a [bold]run[/bold] :cat:'" in result.out
    out = moreish(
        "eval", "a [bold]run[/bold] :cat:", "--text", "[/x]1é\n[/x]2", "--unknown", "drop"
    )
    assert out.status == 0
    assert "[/x]" in out.out


def test_unknown_characters_of_a_text_can_be_dropped(moreish: Moreish, small_run: Run) -> None:
    assert moreish("eval", small_run.path, "--text", "Émma").status == 2
    dropped = moreish("eval", small_run.path, "--text", "Émma", "--unknown", "drop", "--json").json
    assert [token["token"] for token in dropped["tokens"]] == [*"mma", "·"]


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.soak
def test_output_that_is_limited_to_ascii(tmp_path: Path) -> None:
    source = tmp_path / "l.txt"
    source.write_text("\n".join(f"é{i}" for i in range(40)), encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    trained = run_program("train", "l.txt", "--model", "ngram", "--out", "r", cwd=tmp_path, env=env)
    assert (trained.returncode, trained.stderr) == (0, "")
    assert "?" in trained.stdout
    samples = json.loads(run_program("sample", "r", "--json", cwd=tmp_path, env=env).stdout)
    assert any("é" in text for text in samples["samples"])


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.soak
def test_training_continues_after_its_reader_exits(few_names: Path, tmp_path: Path) -> None:
    train = shlex.join(program("train", few_names, "--steps", 60, "--out", "r", *TINY))
    done = run_bash(f"{train} | head -n 1", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "finished"


def catches_hangup(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("SigCgt:")[2].split()[0], 16) & (1 << signal.SIGHUP - 1) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the signals of a process are in /proc")
@pytest.mark.parametrize("after", [b"", b"%"], ids=["at-once", "while-it-trains"])
@pytest.mark.soak
def test_training_continues_after_its_terminal_is_closed(
    few_names: Path, tmp_path: Path, after: bytes
) -> None:
    """The system sends SIGHUP, and writing to the terminal fails."""
    command = program("train", few_names, "--steps", 200, "--out", tmp_path / "r")
    parent, child = pty.openpty()
    begin = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.setsid(); "
        "os.open(sys.argv[1], os.O_RDWR); os.execv(*eval(sys.argv[2]))"
    )
    script = [sys.executable, "-c", begin, os.ttyname(child)]
    process = subprocess.Popen(
        [*script, repr((sys.executable, [*command, *TINY]))],
        stdin=child, stdout=child, stderr=child,
    )  # fmt: skip
    os.close(child)
    shown = b""
    while after not in shown:  # the bar has begun
        shown += os.read(parent, 1000)
    if not after:  # while it imports PyTorch
        wait_until(lambda: catches_hangup(process.pid))
    os.close(parent)
    assert process.wait(timeout=5 * GENEROUS_DEADLINE_S) == 0
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["step"] for line in lines) == 200
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "finished"


@pytest.mark.usefixtures("quick_processes")
def test_samples_do_not_control_the_terminal(moreish: Moreish, tmp_path: Path) -> None:
    """Control characters are replaced on a terminal, and unchanged in a file."""
    source = tmp_path / "l.txt"
    source.write_text("\x1b[31mred\n" * 3000 + "\x1b[0mend\nplain\n", encoding="utf-8")
    moreish("train", "l.txt", "--model", "ngram", "--as", "lines", "--out", "r")
    assert "\x1b" in moreish("sample", "r").out
    parent, child = pty.openpty()
    subprocess.run(program("sample", "r"), stdout=child, cwd=tmp_path, check=True)
    os.close(child)
    shown = os.read(parent, 10_000).decode()
    os.close(parent)
    assert "\x1b" not in shown
    assert "␛" in shown


def test_a_command_group_alone_prints_its_help(moreish: Moreish) -> None:
    result = moreish("data")
    assert "show" in result.out
    assert result.err == ""


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.parametrize(
    ("arguments", "closed", "status"),
    [
        (["data", "list"], ">&-", 0),
        (["sample", "nowhere"], "2>&-", 2),
        (["data", "list"], ">&- 2>&-", 0),
        (["sample", "nowhere"], ">&- 2>&-", 2),
    ],
)
def test_closed_streams_cause_no_traceback(
    tmp_path: Path, arguments: list[str], closed: str, status: int
) -> None:
    done = run_bash(f"{shlex.join(program(*arguments))} {closed}", tmp_path)
    assert done.returncode == status
    assert "Traceback" not in done.stdout + done.stderr


def test_standard_input_in_another_encoding(
    moreish: Moreish, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_stdin(*options: str) -> Result:
        raw = io.BytesIO("emma\n".encode("utf-16"))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(raw))
        return moreish("eval", small_run.path, "--text", "-", "--json", *options)

    found = evaluate_stdin("--encoding", "utf-16").json
    assert "--encoding utf-16" in evaluate_stdin().err
    assert found["nats"] == moreish("eval", small_run.path, "--text", "emma", "--json").json["nats"]


def test_an_infinite_loss_is_infinite_in_every_table(moreish: Moreish) -> None:
    Path("list.txt").write_text("\n".join(["ab", "ba", "abc", "cab", "bca", "cc"]))
    trained = moreish("train", "list.txt", "--model", "ngram", "--set", "model.add_k=0")
    evaluated = moreish("eval", "runs/list-ngram")
    rows = [line for line in trained.out.splitlines() if line.startswith("validation")]
    assert "inf" in rows[0]
    assert rows[0] in evaluated.out
    assert "nan" not in trained.out + evaluated.out


@pytest.mark.parametrize("verb", ["train", "sample", "eval"])
def test_control_c_outside_the_loop_prints_a_message(
    moreish: Moreish, small_run: Run, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    for name in ("moreish.api.train", "moreish.runs.Run.sample", "moreish.runs.Run.evaluate"):
        monkeypatch.setattr(name, interrupt)
    result = moreish(verb, *([] if verb == "train" else [small_run.path]))
    assert result.status == 130
    assert result.err == "moreish: interrupted\n"


def test_json_of_an_interrupted_run_names_its_folder(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("l.txt").write_text("\n".join(f"item{i}" for i in range(30)))
    monkeypatch.setattr(Run, "score", interrupt)
    result = moreish("train", "l.txt", "--model", "ngram", "--json")
    assert result.status == 130
    assert (result.json["run"], result.json["status"]) == ("runs/l-ngram", "interrupted")
    assert "--resume runs/l-ngram" in result.err


def test_items_of_bytes_stay_on_their_lines(moreish: Moreish) -> None:
    Path("l.txt").write_text("\n".join(f"é{i}" for i in range(30)))
    settings = ("--tokenizer", "byte", "--set", "model.add_k=3")
    moreish("train", "l.txt", "--model", "ngram", *settings)
    options = ("sample", "runs/l-ngram", "-n", 300, "--unique", "--new-only")
    texts = moreish(*options, "--json").json["samples"]
    assert any("\n" in text for text in texts)
    assert len(set(texts)) == 300
    assert "" not in texts
    printed = moreish(*options).out
    assert printed.count("\n") == 300


@pytest.mark.parametrize("verb", ["train", "plan", "lr-range", "prepare"])
def test_vocab_size_is_rejected_for_tokenizers_of_fixed_size(moreish: Moreish, verb: str) -> None:
    Path("a.txt").write_text(STORY * 20)
    own = tokenizer_builder("byte").build([], boundary=False)
    Path("own.json").write_bytes(encode_json(own.to_json()))
    out = ["--out", "x"] if verb == "prepare" else []
    for name in ("gpt2", "byte", "char", "own.json"):
        result = moreish(verb, "a.txt", *out, "--tokenizer", name, "--vocab-size", 99)
        assert result.status == 2 and result.err.count("\n") == 1
        assert f"--vocab-size 99: the vocabulary of {name} has a fixed size" in result.err
    assert not Path("x").exists() and not Path("runs").exists()


def test_quiet_prints_the_run_only(moreish: Moreish, few_names: Path) -> None:
    result = moreish("train", few_names, "--model", "ngram", "--out", "r", "--quiet")
    assert (result.status, result.out, result.err) == (0, "r\n", "")


def test_runs_are_listed_renamed_and_removed(moreish: Moreish, few_names: Path) -> None:
    assert "There are no runs" in moreish("runs").out
    for name in ("a", "b"):
        moreish("train", few_names, "--model", "ngram", "--out", f"runs/{name}")
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text("{")
    os.utime("runs/broken/run.json", (0, 0))
    lines = moreish("runs").out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {"runs/a", "runs/b", "runs/broken"}
    assert moreish("runs", "list").out == moreish("runs").out
    found = {entry["run"]: entry for entry in moreish("runs", "--json").json["runs"]}
    assert found["runs/a"]["loss"] == Run.open("runs/a").scores["val"].loss
    assert found["runs/broken"]["status"] == "damaged"
    newest = moreish("sample", "-n", 2, "--seed", 1)
    assert newest.err == "Run: runs/b (the newest)\n"
    assert newest.out == moreish("sample", "b", "-n", 2, "--seed", 1).out  # its name is enough
    assert "no run at" not in moreish("compare", "a", "b").err  # but they are the same
    assert "runs/b cannot be resumed: its status is" in moreish("train", "--resume", "b").err
    assert "counting cannot start from another run" in moreish("train", "--init-from", "b").err
    assert moreish("runs", "rename", "a", "b").status == 2  # taken
    assert moreish("runs", "rename", "a", "../c").status == 2
    assert moreish("runs", "rename", "a", "c").out == "Renamed runs/a to runs/c.\n"
    assert moreish("runs", "rm", "c", "runs/b", "-y").status == 0
    assert moreish("runs", "rm", "nothing", "-y").status == 2
    assert [path.name for path in Path("runs").iterdir()] == ["broken"]


def test_a_short_text_needs_a_lower_temperature(moreish: Moreish) -> None:
    Path("note.txt").write_text(STORY * 2)
    out = moreish("train", "note.txt", "--as", "text", "--model", "kneser-ney", "--out", "r").out
    assert f"The text is short ({2 * len(STORY):,} characters)" in out
    assert "\n" not in out.partition("The text is short")[2].partition("--temperature 0.7")[0]
    Path("long.txt").write_text(STORY * 20)
    long = moreish("train", "long.txt", "--as", "text", "--model", "kneser-ney", "--out", "s").out
    assert "short" not in long


@pytest.mark.parametrize("name", ["r", "a name that is so long that no command fits on a line"])
def test_commands_on_a_terminal_can_be_copied(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(small_run.path, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    run = Run.open(Path("runs") / name)
    shown = io.StringIO()
    out = Console(file=shown, width=80, force_terminal=True, no_color=True, highlight=False)
    print_result(out, run)
    report = shlex.join(["moreish", "report", f"runs/{name}"])
    print_message(out, f"A sentence of a few words with a command at its end: {report}")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).splitlines()
    for verb in ("sample", "serve", "report"):
        command = shlex.join(["moreish", verb, f"runs/{name}"])
        assert any(line.strip() == command if name != "r" else command in line for line in lines)
    assert (report in lines) == (name != "r")


def test_the_end_of_training_compares_and_explains(moreish: Moreish, few_names: Path) -> None:
    out = moreish("train", few_names, "--model", "kneser-ney", "--out", "r").out
    run = Run.open("r")
    guessing = math.log(run.tokenizer.vocab_size)
    assert re.search(rf"^guessing +{guessing:.4f}$", out, re.MULTILINE)
    counts = np.ones((run.tokenizer.vocab_size,) * 2)
    ids = run.split("train").ids_N[:].astype(int)
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    shares = counts / counts.sum(1, keepdims=True)
    val = run.split("val").ids_N[:].astype(int)
    pairs = -np.log(shares[val[:-1], val[1:]]).mean()
    assert run.baselines["letter pairs"] == pytest.approx(pairs)
    assert f"{pairs:.4f}" in out and f"{run.scores['val'].loss:.4f}" in out
    assert "The training loss is" in out
    for verb in ("sample", "serve", "report"):
        assert f"moreish {verb} r " in out
