"""The run folder: its content, and the detection of damage."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load, save

from moreish import api
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.training.events import ignore


@pytest.fixture
def copy(small_run: Run, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(small_run.path, tmp_path / "copy"))


def test_files_of_a_run(small_run: Run) -> None:
    found = {path.name for path in small_run.path.iterdir()}
    assert {
        "run.json",
        "doctor.json",
        "tokenizer.json",
        "model.safetensors",
        "metrics.jsonl",
        "samples.txt",
        "data",
        "checkpoints",
        ".lock",
        ".record.lock",
    } == found
    kinds = {path.suffix for path in small_run.path.rglob("[!.]*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".jsonl", ".txt", ".npy"}
    record = json.loads((small_run.path / "run.json").read_text())
    for key in ("config", "data", "tokenizer", "versions", "machine", "splits", "seconds"):
        assert record[key]
    assert set(record["data"]["sha256"]) == {"train", "val", "test"}


def test_a_run_works_without_the_source_text(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text("\n".join(f"word{i}" for i in range(50)))
    run = api.train(source, model="ngram", out=tmp_path / "run", report=ignore)
    source.unlink()
    moved = shutil.move(run.path, tmp_path / "elsewhere")
    again = api.load(moved)
    assert len(again.sample(3)) == 3
    assert again.evaluate()["val"].loss == pytest.approx(again.scores["val"].loss)
    assert again.sample(3, new_only=True)


def test_the_recorded_losses_are_the_evaluated_ones(small_run: Run) -> None:
    found = small_run.evaluate()
    assert list(found) == ["train", "val"]
    for name, score in found.items():
        assert score.loss == pytest.approx(small_run.scores[name].loss, abs=1e-6)


def test_evaluations_of_the_test_split_are_counted(copy: Path) -> None:
    assert list(Run.open(copy).evaluate(test=True)) == ["train", "val", "test"]
    Run.open(copy).evaluate()
    Run.open(copy).evaluate(test=True)
    assert json.loads((copy / "run.json").read_text())["test_evaluations"] == 2


def test_the_error_for_a_missing_run_lists_others(copy: Path) -> None:
    with pytest.raises(MoreishError, match=re.escape(f"there are {copy}")):
        Run.open(copy.parent / "cpoy")
    with pytest.raises(MoreishError, match=r"has no run\.json"):
        Run.open(copy / "data")


WEIGHTS = "model.safetensors"


def overwrite(file: str, content: bytes) -> Callable[[Path], object]:
    return lambda path: (path / file).write_bytes(content)


def edit(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: (path / file).write_bytes(change((path / file).read_bytes()))


def delete(file: str) -> Callable[[Path], object]:
    return lambda path: (path / file).unlink()


def flip_bit(content: bytes) -> bytes:
    """Only a hash can detect this in the weights."""
    return content[:-7] + bytes([content[-7] ^ 1]) + content[-6:]


def without_last_tensor(content: bytes) -> bytes:
    weights = load(content)
    weights.popitem()
    return save(weights)


def edit_ids(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        file = path / "data" / "val.npy"
        np.save(file, change(np.load(file)))

    return spoil


def zip_ids(path: Path) -> None:
    np.savez(path / "data" / "val.npz", np.arange(3))
    (path / "data" / "val.npz").rename(path / "data" / "val.npy")


REMOVED = object()


def set_entry(value: object, *keys: str) -> Callable[[Path], object]:
    """Change an entry of run.json to another valid value, or remove it."""

    def spoil(path: Path) -> None:
        record = json.loads((path / "run.json").read_text())
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        if value is REMOVED:
            del inner[keys[-1]]
        (path / "run.json").write_text(json.dumps(record))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        *(
            (overwrite("run.json", content), "run.json is damaged")
            for content in (b"", b"[]", b"null", b"3", b"\xff", b"[" * 100_000, b'{"a": NaN}')
        ),
        (overwrite("run.json", b'{"format": 1'), "run.json is damaged"),
        (overwrite("run.json", b'{"format": 1}'), "run.json is damaged"),
        (set_entry(99, "format"), "written by a newer Moreish"),
        (set_entry("fast", "config", "train", "lr"), "run.json was edited"),
        (set_entry("text", "data", "kind"), "run.json was edited"),
        (set_entry({}, "data", "tokens"), "run.json was edited"),
        (set_entry(2, "config", "model", "layers"), "run.json was edited"),
        (set_entry("gtp", "config", "model", "name"), "run.json was edited"),
        (set_entry("0" * 64, "sha256"), "run.json was edited"),
        (set_entry(REMOVED, "data"), r"run.json is damaged \(data:"),
        (set_entry(REMOVED, "data", "tokens"), "run.json was edited"),
        (set_entry(REMOVED, "data", "sha256"), "run.json was edited"),
        (set_entry(REMOVED, "tokenizer"), r"run.json is damaged \(tokenizer:"),
        (set_entry(REMOVED, "config"), r"run.json is damaged \(config:"),
        (overwrite("tokenizer.json", b"{}"), "tokenizer file is damaged"),
        (overwrite("tokenizer.json", b"[" * 100_000), "tokenizer.json is damaged"),
        (
            overwrite("tokenizer.json", b'{"name": "char", "boundary": true, "characters": "ab"}'),
            "not the tokenizer that this run was trained with",
        ),
        (edit(WEIGHTS, lambda raw: raw[: len(raw) // 2]), "model.safetensors is damaged"),
        (edit(WEIGHTS, without_last_tensor), "model.safetensors is damaged"),
        (edit(WEIGHTS, flip_bit), "model.safetensors is damaged.*sha256"),
        (edit(WEIGHTS, lambda raw: save(load(raw))), "model.safetensors is damaged"),
        (delete(WEIGHTS), "its model.safetensors is missing"),
        (edit("data/val.npy", lambda raw: raw[:200]), "val.npy is damaged"),
        (overwrite("data/val.npy", b""), "val.npy is damaged"),
        (zip_ids, "val.npy is damaged"),
        (edit_ids(lambda ids: ids[::-1].copy()), "val.npy is damaged: its sha256"),
        (edit_ids(lambda ids: np.append(ids[:-1], np.uint8(200))), "val.npy is damaged: its sha"),
        (delete("data/val.npy"), "val.npy is damaged"),
    ],
)
def test_damage_is_detected(copy: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(copy)
    with pytest.raises(MoreishError, match=message):
        Run.open(copy).evaluate()


def test_a_run_is_replaced_only_with_overwrite(copy: Path, tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text("\n".join(f"word{i}" for i in range(50)))

    def again(**options: bool) -> Run:
        return api.train(source, model="ngram", out=copy, report=ignore, **options)

    before = (copy / "run.json").read_bytes()
    with pytest.raises(MoreishError, match="--overwrite"):
        again()
    assert (copy / "run.json").read_bytes() == before
    assert again(overwrite=True).config.model.name == "ngram"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "list.txt"]


def test_overwrite_does_not_remove_other_folders(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.txt").write_text("years of work")
    with pytest.raises(MoreishError, match="is not a run folder"):
        api.train("names", model="ngram", out=precious, overwrite=True, report=ignore)
    assert (precious / "chapter1.txt").exists()


def test_equal_runs_have_equal_bytes(small_run: Run, tmp_path: Path) -> None:
    before = (small_run.path / "model.safetensors").read_bytes()
    other = Run.open(shutil.copytree(small_run.path, tmp_path / "again"))
    for _ in range(5):
        other.save_weights(small_run.model)
        assert (other.path / "model.safetensors").read_bytes() == before


def test_overwrite_rejects_links_and_the_current_folder(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    (tmp_path / "link").symlink_to(inside)
    with pytest.raises(MoreishError, match="not a run folder"):
        api.train("names", model="ngram", out=tmp_path / "link", overwrite=True, report=ignore)
    monkeypatch.chdir(inside / "data")
    with pytest.raises(MoreishError, match="you are inside"):
        api.train("names", model="ngram", out=inside, overwrite=True, report=ignore)
    assert Run.open(inside).sample(1)


def test_a_run_cannot_contain_another(copy: Path) -> None:
    with pytest.raises(MoreishError, match="is a run folder, which cannot hold another"):
        api.train("names", model="ngram", out=copy / "inner", report=ignore)


def test_renamed_metrics_of_older_runs_are_read(tmp_path: Path, small_run: Run) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run.path, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 99, "utilisation": 0.25}\n{"step": 98, "went_back": "the loss is nan"}\n'
        )
    entries = list(Run.open(folder).read_metrics())
    assert entries[-2:] == [{"step": 99, "mfu": 0.25}, {"step": 98, "rollback": "the loss is nan"}]
