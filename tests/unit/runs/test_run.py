"""The run folder: whole, self-sufficient, and refused when it is not what it says."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from moreish import api
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.training.events import ignore


@pytest.fixture
def copy(small_run: Run, tmp_path: Path) -> Path:
    """A run to spoil."""
    return Path(shutil.copytree(small_run.path, tmp_path / "copy"))


def test_it_holds_what_the_design_says_and_no_pickle(small_run: Run) -> None:
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


def test_it_works_without_the_source_text(tmp_path: Path) -> None:
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


def test_the_test_split_is_counted(copy: Path) -> None:
    assert list(Run.open(copy).evaluate(test=True)) == ["train", "val", "test"]
    Run.open(copy).evaluate()
    Run.open(copy).evaluate(test=True)
    assert json.loads((copy / "run.json").read_text())["test_evaluations"] == 2


def test_what_is_no_run_is_refused_and_its_neighbours_named(copy: Path) -> None:
    with pytest.raises(MoreishError, match=re.escape(f"there are {copy}")):
        Run.open(copy.parent / "cpoy")
    with pytest.raises(MoreishError, match=r"has no run\.json"):
        Run.open(copy / "data")


def spoil_json(path: Path) -> None:
    (path / "run.json").write_text('{"format": 1')


def spoil_record(path: Path) -> None:
    (path / "run.json").write_text('{"format": 1}')


def spoil_setting(path: Path) -> None:
    record = json.loads((path / "run.json").read_text())
    record["config"]["train"]["lr"] = "fast"
    (path / "run.json").write_text(json.dumps(record))


def spoil_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").write_text("{}")


def swap_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").write_text('{"name": "char", "boundary": true, "characters": "ab"}')


def cut_weights(path: Path) -> None:
    raw = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def lose_weight(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    weights.popitem()
    save_file(weights, path / "model.safetensors")


def change_weight(path: Path) -> None:
    """One bit of one weight: nothing but a hash can notice."""
    raw = bytearray((path / "model.safetensors").read_bytes())
    raw[-7] ^= 1
    (path / "model.safetensors").write_bytes(raw)


def foreign_weights(path: Path) -> None:
    save_file(load_file(path / "model.safetensors"), path / "model.safetensors")


def no_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()


def cut_data(path: Path) -> None:
    raw = (path / "data" / "val.npy").read_bytes()
    (path / "data" / "val.npy").write_bytes(raw[:200])


def no_data(path: Path) -> None:
    (path / "data" / "val.npy").unlink()


def empty_data(path: Path) -> None:
    (path / "data" / "val.npy").write_bytes(b"")


def zipped_data(path: Path) -> None:
    np.savez(path / "data" / "val.npz", np.arange(3))
    (path / "data" / "val.npz").rename(path / "data" / "val.npy")


def nested_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").write_text("[" * 100_000)


def change_ids(path: Path) -> None:
    """As many tokens, all of them in the vocabulary, but others."""
    ids = np.load(path / "data" / "val.npy")
    np.save(path / "data" / "val.npy", ids[::-1].copy())


def wild_ids(path: Path) -> None:
    ids = np.load(path / "data" / "val.npy")
    ids[5] = 200
    np.save(path / "data" / "val.npy", ids)


def without(*keys: str) -> Callable[[Path], None]:
    """Takes an entry out of run.json."""

    def spoil(path: Path) -> None:
        record = json.loads((path / "run.json").read_text())
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        (path / "run.json").write_text(json.dumps(record))

    return spoil


def edited(value: object, *keys: str) -> Callable[[Path], None]:
    """Changes an entry of run.json to another that is as good by itself."""

    def spoil(path: Path) -> None:
        record = json.loads((path / "run.json").read_text())
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (path / "run.json").write_text(json.dumps(record))

    return spoil


def newer(path: Path) -> None:
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, "format": 99}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_json, "run.json is damaged"),
        (spoil_record, "run.json is damaged"),
        (spoil_setting, "run.json was edited"),
        (edited("text", "data", "kind"), "run.json was edited"),
        (edited({}, "data", "tokens"), "run.json was edited"),
        (edited(2, "config", "model", "layers"), "run.json was edited"),
        (edited("gtp", "config", "model", "name"), "run.json was edited"),
        (edited("0" * 64, "sha256"), "run.json was edited"),
        (spoil_tokenizer, "tokenizer file is damaged"),
        (swap_tokenizer, "not the tokenizer that this run was trained with"),
        (cut_weights, "model.safetensors is damaged"),
        (lose_weight, "model.safetensors is damaged"),
        (change_weight, "model.safetensors is damaged.*sha256"),
        (foreign_weights, "model.safetensors is damaged"),
        (no_weights, "its model.safetensors is missing"),
        (cut_data, "val.npy is damaged"),
        (empty_data, "val.npy is damaged"),
        (zipped_data, "val.npy is damaged"),
        (nested_tokenizer, "tokenizer.json is damaged"),
        (change_ids, "val.npy is damaged: its sha256"),
        (wild_ids, "val.npy is damaged: its sha256"),
        (without("data"), r"run.json is damaged \(data:"),
        (without("data", "tokens"), r"run.json is damaged \(data.tokens:"),
        (without("data", "sha256"), r"run.json is damaged \(data.sha256:"),
        (without("tokenizer"), r"run.json is damaged \(tokenizer:"),
        (without("config"), r"run.json is damaged \(config:"),
        (no_data, "val.npy is damaged"),
        (newer, "written by a newer Moreish"),
    ],
)
def test_damage_is_named(copy: Path, spoil, message: str) -> None:
    spoil(copy)
    with pytest.raises(MoreishError, match=message):
        Run.open(copy).evaluate()


def test_a_run_in_its_place_is_not_replaced_by_chance(copy: Path, tmp_path: Path) -> None:
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


def test_overwrite_never_removes_what_is_no_run(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.txt").write_text("years of work")
    with pytest.raises(MoreishError, match="is not a run folder"):
        api.train("names", model="ngram", out=precious, overwrite=True, report=ignore)
    assert (precious / "chapter1.txt").exists()


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"3", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
def test_any_rubbish_in_run_json_is_one_line(copy: Path, raw: bytes) -> None:
    (copy / "run.json").write_bytes(raw)
    with pytest.raises(MoreishError, match=r"run\.json is damaged"):
        Run.open(copy)


def test_equal_runs_have_equal_bytes(small_run: Run, tmp_path: Path) -> None:
    before = (small_run.path / "model.safetensors").read_bytes()
    other = Run.open(shutil.copytree(small_run.path, tmp_path / "again"))
    for _ in range(5):
        other.save_weights(small_run.model)
        assert (other.path / "model.safetensors").read_bytes() == before


def test_no_damage_is_a_traceback_or_goes_unnoticed(small_run: Run, tmp_path: Path) -> None:
    """Random damage to any file: a clear refusal, or the same results as before."""
    random = np.random.default_rng(0)
    files = [p for p in sorted(small_run.path.rglob("*")) if p.suffix in KINDS]
    files = [p.relative_to(small_run.path) for p in files if "checkpoints" not in p.parts]
    before = (small_run.evaluate(), small_run.sample(2))
    refused = 0
    for number in range(80):
        copy = Path(shutil.copytree(small_run.path, tmp_path / str(number)))
        damage(copy / files[random.integers(len(files))], random)
        try:
            run = Run.open(copy)
            assert (run.evaluate(), run.sample(2)) == before
        except MoreishError:
            refused += 1
        shutil.rmtree(copy)
    assert refused > 50


KINDS = (".json", ".npy", ".safetensors")


def damage(path: Path, random: np.random.Generator) -> None:
    raw = bytearray(path.read_bytes())
    place = int(random.integers(min(len(raw), 1000)))
    match random.integers(4):
        case 0:
            raw[place] ^= 1 << int(random.integers(8))
        case 1:
            del raw[place:]
        case 2:
            raw[place:place] = random.bytes(5)
        case 3:
            raw[place : place + 8] = bytes(8)
    path.write_bytes(raw)


def test_overwrite_never_takes_the_ground_away(
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


def test_a_run_holds_no_other(copy: Path) -> None:
    with pytest.raises(MoreishError, match="is a run folder, which cannot hold another"):
        api.train("names", model="ngram", out=copy / "inner", report=ignore)


def test_metrics_of_older_runs_are_read_by_their_present_names(
    tmp_path: Path, small_run: Run
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run.path, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 99, "utilisation": 0.25}\n{"step": 98, "went_back": "the loss is nan"}\n'
        )
    entries = list(Run.open(folder).read_metrics())
    assert entries[-2:] == [{"step": 99, "mfu": 0.25}, {"step": 98, "rollback": "the loss is nan"}]
