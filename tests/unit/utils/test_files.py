"""Clean-up removes only what this process owns; names are never patterns."""

import os
import shutil
from pathlib import Path

import pytest

from conftest import STORY
from moreish import api
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.training.events import ignore
from moreish.utils.files import LOCK, file_lock, partial_folder, remove_partial_files, user_path

HOSTILE_NAMES = ["[!x]*", "*", "?", "**", "a", "a.b", "[", "{a,b}", ".", "..", "\\*", "%", "(a|b)+"]


@pytest.mark.parametrize("name", [n for n in HOSTILE_NAMES if n.strip(".")])
def test_a_run_leaves_all_other_folders_alone(tmp_path: Path, name: str) -> None:
    """Those that other runs fill now, and those that look like unfinished ones."""
    source = tmp_path / "story.txt"
    source.write_text(STORY * 3)
    others = [
        ".x.1.part",
        f".{name}.b.1.part",
        f".{name}.1.part.old",
        f".{name}.part",
    ]
    others += [f"{name}.1.part", f".{name}.x.part", f".{name}.1.partial"]
    for other in others:
        (tmp_path / other).mkdir()
        (tmp_path / other / "thesis.txt").write_text("years")
    api.train(source, model="ngram", out=tmp_path / name, report=ignore)
    api.train(source, model="ngram", out=tmp_path / name, overwrite=True, report=ignore)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, name, "story.txt"])
    assert all((tmp_path / other / "thesis.txt").read_text() == "years" for other in others)


def test_a_folder_that_another_process_fills_is_not_removed(tmp_path: Path) -> None:
    """Two processes create the same path; one that was killed holds no lock."""
    filled, abandoned = tmp_path / ".run.1.part", tmp_path / ".run.2.part"
    for folder in (filled, abandoned):
        folder.mkdir()
        (folder / "data").write_text("half")
    with file_lock(filled / LOCK, "it is being filled"):
        with partial_folder(tmp_path / "run") as folder:
            assert folder == tmp_path / f".run.{os.getpid()}.part"
        assert (filled / "data").exists() and not abandoned.exists()
    assert folder.exists()


def test_an_error_removes_the_partial_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), partial_folder(tmp_path / "run"):
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []


def test_only_partial_files_of_the_given_names_are_removed(tmp_path: Path) -> None:
    removed = ["a.json.12.part", "step-000001.7.old.part"]
    kept = ["a.json", "a.json.part", "b.json.12.part", "a.json.x.part", "xa.json.12.part.txt"]
    for name in [*removed, *kept]:
        (tmp_path / name).write_text("half")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.json.3.part").write_text("half")
    remove_partial_files(tmp_path, "a.json", "step-000001")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "figures"])
    assert (tmp_path / "figures" / "a.json.3.part").exists()


def test_resuming_leaves_what_other_processes_write(small_run: Run, tmp_path: Path) -> None:
    """Figures and reports are written without the lock of the training run."""
    run = Run.open(shutil.copytree(small_run.path, tmp_path / "run"))
    run.update(status="interrupted")
    (run.path / "figures").mkdir(exist_ok=True)
    mine = [run.path / "model.safetensors.1.part", run.checkpoints / "step-000009.1.part"]
    theirs = [run.path / "report.html.1.part", run.path / "figures" / "loss.svg.1.part"]
    for path in [*mine, *theirs, run.path / "run.json.1.part"]:
        path.write_text("half")
    api.resume(run.path, report=ignore)
    assert not any(path.exists() for path in [*mine, run.path / "run.json.1.part"])
    assert all(path.exists() for path in theirs)


def test_a_run_is_not_named_like_an_unfinished_folder(tmp_path: Path) -> None:
    with pytest.raises(MoreishError, match=r"unfinished folders end in \.part"):
        api.train("names", model="ngram", out=tmp_path / ".a.1.part", report=ignore)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_users_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert user_path("~/a") == Path("/home/anna/a")
    assert user_path("a/~b") == Path("a/~b")
    for text, message in {
        "~nosuchuser/x": r"write the whole path, or \./~nosuchuser/x",
        "a\0b": "no file can have this name",
        "\ud800": "no file can have this name",
        " ": "the path is blank",
    }.items():
        with pytest.raises(MoreishError, match=message):
            user_path(text)


def test_an_interrupted_replacement_is_completed_or_explained(
    small_run: Run, tmp_path: Path
) -> None:
    """After a kill between the two renames of a replacement."""
    path, backup = tmp_path / "run", tmp_path / ".run.replaced"
    source = tmp_path / "story.txt"
    source.write_text(STORY * 3)
    shutil.copytree(small_run.path, backup)
    with pytest.raises(MoreishError, match=r"replacing .* was interrupted; the old run is still"):
        api.train(source, model="ngram", out=path, report=ignore)
    assert Run.open(backup).has_weights and not path.exists()
    with pytest.raises(MoreishError):  # the old run is restored when the new one fails
        api.train(
            source,
            model="gpt",
            steps=1,
            out=path,
            overwrite=True,
            report=ignore,
            settings={"train": {"lr": 1e300, "warmup": 0}, "model": {"width": 8, "heads": 1}},
        )
    assert Run.open(path).record.sha256 == small_run.record.sha256
    path.rename(backup)
    api.train(source, model="ngram", out=path, overwrite=True, report=ignore)
    assert Run.open(path).config.model.name == "ngram" and not backup.exists()
