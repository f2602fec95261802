"""Bad input: one clear line on standard error, status 2, nothing half-written."""

import re
import resource
import subprocess
from pathlib import Path

import pytest

from conftest import Moreish
from moreish.runs.run import Run


def files() -> set[Path]:
    return set(Path().rglob("*"))


SOURCES: dict[str, bytes] = {
    "empty.txt": b"",
    "blank.txt": b"\n \n\t\n",
    "one.txt": b"a",
    "two-lines.txt": b"emma\nolivia\n",
    "two.txt": b"emma\nolivia\n",
    "latin.txt": "café\nthé\nlatté\n".encode("latin-1"),
    "nul.txt": b"emma\0olivia\n" * 9,
    "utf16.txt": "emma\nolivia\nava\n".encode("utf-16"),
    "fine.txt": b"emma\nolivia\nava\nmia\nzoe\n" * 3,
    "surrogate.txt": rb"a\ud800b" * 30,
    "deep.toml": b"x = " + b"[" * 100_000,
    "bad.toml": b"[train",
    "wrong.toml": b"[train]\nlearning_rate = 1\n",
}


@pytest.fixture(autouse=True)
def sources(moreish: Moreish) -> None:
    for name, content in SOURCES.items():
        Path(name).write_bytes(content)
    Path("folder").mkdir()
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("years")


MISSING_DEVICES = ("meta", "hpu", "privateuseone", "vulkan")

TRAIN = [
    (["missing.txt"], "no file, folder or built-in data set 'missing.txt'"),
    (["nmaes"], "did you mean 'names'"),
    (["folder"], "no text files in folder"),
    (["empty.txt"], "is empty"),
    (["blank.txt"], "is empty"),
    (["one.txt"], "too short to split: give 40 or more"),
    (["two-lines.txt"], "cannot be split"),
    (["two.txt"], "2 lines cannot be split"),
    (
        ["fine.txt", "--split", "lecture", "--as", "text", "--context", "0"],
        "moreish: --context 0: ",
    ),
    (["latin.txt"], "byte 0xe9 at offset 3"),
    (["nul.txt"], "NUL at character 4"),
    (["utf16.txt"], "--encoding utf-16"),
    (["fine.txt", "--encoding", "klingon"], "unknown encoding"),
    (["fine.txt", "--model", "gtp"], "did you mean 'gpt'"),
    (["fine.txt", "--tokenizer", "chat"], "did you mean 'char'"),
    (["fine.txt", "--as", "prose"], "moreish: --as prose: "),
    (["fine.txt", "--set", "train.lrr=1"], "did you mean 'lr'"),
    (["fine.txt", "--set", "model.depth=1"], "unknown setting model.depth"),
    (["fine.txt", "--set", "heads=3"], "did you mean 'model.heads'?"),
    (["fine.txt", "--set", "lr=3"], "did you mean 'train.lr'?"),
    (["fine.txt", "--set", "learning_rate=3"], "did you mean 'train.lr'?"),
    (["fine.txt", "--set", "model.n_layer=3"], "did you mean 'model.layers'?"),
    (["fine.txt", "--set", "train.lr"], "name=value"),
    (["fine.txt", "--set", "train.lr=-1"], "train.lr=-1"),
    (["fine.txt", "--set", "train.lr=nan"], "train.lr=nan"),
    (["fine.txt", "--set", "train.optimizer=adam"], "did you mean 'adamw'"),
    (["fine.txt", "--set", "train.device=abacus"], "this device is not available"),
    *(
        (["fine.txt", "--set", f"train.device={d}"], "this device is not available")
        for d in MISSING_DEVICES
    ),
    (["fine.txt", "--set", "train.batch_size=true"], "train.batch_size=True"),
    (["fine.txt", "--config", "deep.toml"], "not a valid TOML"),
    (["fine.txt", "--set", f"train.lr={'[' * 9999}"], "train.lr="),
    (["surrogate.txt", "--encoding", "unicode_escape"], "half a character"),
    ([""], "the source is empty"),
    (["fine.txt", "--set", "model.heads=3"], "is not divisible by 3 heads"),
    (["fine.txt", "--steps", "0"], "moreish: --steps 0: "),
    (["fine.txt", "--minutes", "-1"], "moreish: --minutes -1: "),
    (["fine.txt", "--minutes", "1", "--steps", "5"], "one of steps and minutes"),
    (["fine.txt", "--seed", "-1"], "moreish: --seed -1: "),
    (["fine.txt", "--config", "none.toml"], "no such recipe"),
    (["fine.txt", "--config", "bad.toml"], "not a valid TOML"),
    (["fine.txt", "--config", "wrong.toml"], "learning_rate: did you mean 'train.lr'?"),
    (["fine.txt", "--out", "taken"], "taken exists"),
    (["fine.txt", "--out", "taken", "--overwrite"], "not a run folder"),
    (["fine.txt", "--out", "fine.txt"], "fine.txt exists"),
    (["fine.txt", "--out", "fine.txt/run"], "fine.txt"),
    (["fine.txt", "--resume", "folder"], "takes no other settings"),
    (["--resume", "folder"], "not a run folder"),
    (["--resume", "nowhere"], "no run at nowhere"),
    (["fine.txt", "--steps", "many"], "'--steps'"),
    (["fine.txt", "--stpes", "3"], "--steps"),
    (["fine.txt", "extra"], "extra"),
    (["/dev/null"], "neither a file nor a folder"),
    (["fine.txt", "--model", "ngram", "--set", "model.order=30"], "use 19 or less"),
    (["fine.txt", "--out", "."], "a folder of its own"),
    (["fine.txt", "--out", ".."], "a folder of its own"),
    (["fine.txt", "--out", ""], "a folder of its own"),
    (["fine.txt", "--set", "train.batch_size=0"], "train.batch_size=0: give 1 or more, or all"),
    (["fine.txt", "--epochs", "1e300"], "moreish: --epochs 1e+300: "),
    (["fine.txt", "--set", "model.width=1048576"], "make it smaller"),
    (["fine.txt", "--set", "model=mlp", "--context", "0"], "moreish: --context 0: "),
]


@pytest.mark.parametrize(("arguments", "message"), TRAIN, ids=[" ".join(a) for a, _ in TRAIN])
def test_train_rejects(moreish: Moreish, arguments: list[str], message: str) -> None:
    before = files()
    result = moreish("train", *arguments)
    assert result.status == 2
    assert message in result.err
    assert result.err.startswith("moreish: ")
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert files() == before


TEXT_ALONE = "--text goes with none of --test, --stride, --adaptive, --code"

OTHERS = [
    (["trian"], "train"),
    (["sample"], "there is no run in runs/"),
    (["sample", "nowhere"], "no run at nowhere"),
    (["sample", "folder"], "not a run folder"),
    (["sample", "RUN", "--temperature", "-0.1"], "moreish: --temperature -0.1: "),
    (["sample", "RUN", "--top-k", "0"], "moreish: --top-k 0: "),
    (["sample", "RUN", "--top-p", "0"], "moreish: --top-p 0"),
    (["sample", "RUN", "--top-p", "2"], "moreish: --top-p 2.0: "),
    (["sample", "RUN", "-n", "0"], "-n 0"),
    (["sample", "RUN", "--max-tokens", "0"], "--max-tokens 0"),
    (["sample", "RUN", "--seed", "-1"], "--seed -1"),
    (["sample", "RUN", "--prompt", "Zoë"], "vocabulary: 'Z' 'ë'"),
    (["sample", "RUN", "--unknown", "dorp"], "did you mean 'drop'"),
    (["eval", "RUN", "--text", "Zoë"], "vocabulary: 'Z' 'ë'"),
    (["eval", "RUN", "--text", ""], "no text"),
    (["eval", "RUN", "--stride", "0"], "give 1 to"),
    (["eval", "RUN", "--text", "éé", "--unknown", "drop"], "no text"),
    (["eval", "RUN", "--text", "emma", "--test"], TEXT_ALONE),
    (["eval", "RUN", "--text", "emma", "--stride", "2"], TEXT_ALONE),
    (["eval", "RUN", "--text", "emma", "--adaptive"], TEXT_ALONE),
    (["eval", "RUN", "--text", "emma", "--code"], TEXT_ALONE),
    (["eval", "RUN", "--adaptive"], "adaptive evaluation is for running text"),
    (["sample", "RUN", "--remember", "emma"], "has no memory of recent text"),
    (["sample", "RUN", "--remember", "."], "--remember .: this is not a file"),
    (["sample", "RUN", "--remember", "missing.txt"], "there is no such file"),
    (["eval", "RUN", "--text", "emma", "--unknown", "dorp"], "did you mean 'drop'"),
    (["eval", "nowhere"], "no run at nowhere"),
    (["data", "show", "nmaes"], "did you mean 'names'"),
    (["data", "get", "nmaes"], "did you mean 'names'"),
    (["data", "lst"], "list"),
]


@pytest.mark.parametrize(("arguments", "message"), OTHERS, ids=[" ".join(a) for a, _ in OTHERS])
def test_other_commands_reject(
    moreish: Moreish, small_run: Run, arguments: list[str], message: str
) -> None:
    result = moreish(*[str(small_run.path) if a == "RUN" else a for a in arguments])
    assert result.status == 2
    assert message in result.err
    assert result.err.startswith("moreish: ")
    assert result.err.count("\n") == 1
    assert result.out == ""


def test_divergence_is_a_one_line_error_without_files(moreish: Moreish) -> None:
    before = files()
    for steps in (1, 50):
        result = moreish(
            "train", "fine.txt", "--model", "gpt", "--steps", steps, "--set", "train.lr=1e300"
        )
        assert result.status == 2
        assert "diverged at step" in result.err
        assert result.err.count("\n") == 1
        assert files() == before


def test_failed_overwrite_keeps_the_old_run(moreish: Moreish) -> None:
    moreish("train", "fine.txt", "--model", "ngram", "--out", "r")
    before = files()
    assert moreish("train", "latin.txt", "--out", "r", "--overwrite").status == 2
    assert moreish("train", "fine.txt", "--model", "x", "--out", "r", "--overwrite").status == 2
    assert files() == before
    assert moreish("sample", "r").status == 0


def mount_full_disk(folder: Path) -> bool:
    """Mount a file system of 300 KB; return False if this process may not."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    return subprocess.run(mount, capture_output=True).returncode == 0


def test_full_disk_is_a_one_line_error_without_files(tmp_path: Path, moreish: Moreish) -> None:
    disk = tmp_path / "disk"
    if not mount_full_disk(disk):
        pytest.skip("only root may mount a small file system")
    try:
        result = moreish("train", "names", "--steps", "3", "--out", disk / "r")
        assert result.status == 2
        assert re.search(r"this run takes \d.*B of disk, and \d+ kB are free", result.err)
        assert result.err.count("\n") == 1
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_file_size_limit_is_a_one_line_error(moreish: Moreish, tmp_path: Path) -> None:
    """Writing fails in the middle of a file while the run is created."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        done = moreish("train", "names", "--steps", "3", "--out", "r")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.status == 2
    assert "File too large" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "r").exists()
    assert not list(tmp_path.glob("**/*.part"))
