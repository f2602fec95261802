"""Training runs that start from the weights of others."""

from pathlib import Path

import pytest
import torch

from conftest import STORY, Moreish
from moreish import api
from moreish.data.token_dataset import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate.metrics import evaluate_losses
from moreish.runs.run import Run
from moreish.training.events import ignore
from support.random_transformers import save_random_model

GPT = {"name": "gpt", "layers": 2, "heads": 2, "width": 16, "context": 24}
STILL = {"train": {"lr": 1e-12}}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Text of the same characters."""
    path = tmp_path / "other.txt"
    path.write_text("".join(reversed(STORY)) * 6, encoding="utf-8")
    return path


@pytest.fixture
def learned(tmp_path: Path) -> Run:
    path = tmp_path / "story.txt"
    path.write_text(STORY * 6, encoding="utf-8")
    settings = {"model": GPT, "train": {"optimizer": "muon"}}
    return api.train(path, steps=60, settings=settings, out=tmp_path / "a", report=ignore)


def test_it_starts_where_the_other_ended(learned: Run, other: Path, tmp_path: Path) -> None:
    run = api.train(other, init_from=learned.path, steps=1, settings=STILL, out=tmp_path / "b",
                    report=ignore)  # fmt: skip
    before = evaluate_losses(learned.model, run.split("val")).mean()
    assert run.scores["val"].loss == pytest.approx(float(before), abs=1e-4)
    assert run.config.model == learned.config.model
    assert run.record.tokenizer == learned.record.tokenizer
    further = api.train(other, init_from=learned.path, steps=40, out=tmp_path / "c", report=ignore)
    assert further.scores["val"].loss < run.scores["val"].loss - 0.05
    assert further.config.train.lr == pytest.approx(0.1 * 0.64 / 128)
    tuned = tmp_path / "recipe.toml"
    tuned.write_text(f'init_from = "{learned.path}"\n[train]\nlr = 0.01\n')
    again = api.train(other, config=tuned, steps=2, out=tmp_path / "d", report=ignore)
    assert again.config.init_from == str(learned.path)
    assert again.config.train.lr == 0.01


def test_the_context_is_cropped(learned: Run, other: Path, tmp_path: Path) -> None:
    run = api.train(other, init_from=learned.path, context=10, steps=1, settings=STILL,
                    out=tmp_path / "b", report=ignore)  # fmt: skip
    tokens = TokenDataset(run.split("val").ids_N[:11], items=False)
    assert evaluate_losses(run.model, tokens) == pytest.approx(
        evaluate_losses(learned.model, tokens), abs=1e-4
    )
    assert run.model.max_length == 10
    with pytest.raises(MoreishError, match="a context of 30 is longer than the 24"):
        api.train(other, init_from=learned.path, context=30, steps=1, out=tmp_path / "c",
                  report=ignore)  # fmt: skip


@pytest.mark.parametrize("tokenizer", ["char", "byte", "word"])
def test_from_many_documents_to_one(tokenizer: str, other: Path, tmp_path: Path) -> None:
    """A boundary that is not needed stays, and so does every token."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(STORY * 2 + other.read_text(), encoding="utf-8")
    settings = {"model": GPT}
    before = api.train(folder, steps=2, tokenizer=tokenizer, settings=settings,
                       out=tmp_path / "a", report=ignore)  # fmt: skip
    run = api.train(other, init_from=before.path, steps=2, out=tmp_path / "b", report=ignore)
    assert run.record.tokenizer == before.record.tokenizer and run.tokenizer.boundary_id is not None
    assert not (run.split("val").ids_N == run.tokenizer.boundary_id).any()
    assert run.sample(1, max_tokens=5)


def test_what_is_elsewhere_is_looked_at_each_time(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def started() -> Run:
        return api.train(other, init_from="hf:tiny", steps=1, settings=STILL, report=ignore)

    save_random_model(Path("tiny"), "gpt2")
    first, again = started(), started()
    assert first.config.init_from == again.config.init_from
    save_random_model(Path("tiny"), "gpt2-wide")
    changed = started()
    assert changed.config.init_from != first.config.init_from
    assert changed.config.model != first.config.model
    assert Run.open(str(changed.config.init_from)).config.data.tokenizer.endswith("tokenizer.json")


def test_what_does_not_go_together(learned: Run, other: Path, tmp_path: Path) -> None:
    for options, why in (
        ({"model": "lstm"}, "model.name=lstm is not that of"),
        ({"settings": {"model": {"width": 32}}}, "model.width=32 is not that of"),
        ({"tokenizer": "byte"}, "leave --tokenizer out"),
        ({"kind": "lines"}, "no token for where an item or a document ends"),
        ({"init_from": tmp_path / "nothing"}, "no run at"),
        ({"init_from": "hf:nothing"}, "no folder nothing"),
    ):
        given = {"init_from": learned.path, "steps": 1, "out": tmp_path / "b", **options}
        with pytest.raises(MoreishError, match=why):
            api.train(other, report=ignore, **given)
        assert not (tmp_path / "b").exists()
    strange = tmp_path / "strange.txt"
    strange.write_text("漢字 " * 50, encoding="utf-8")
    with pytest.raises(MoreishError, match=r"vocabulary: '.' '.'"):
        api.train(strange, init_from=learned.path, steps=1, out=tmp_path / "b", report=ignore)
    counted = api.train(other, model="kneser-ney", out=tmp_path / "k", report=ignore)
    with pytest.raises(MoreishError, match="counting cannot start from another run"):
        api.train(other, init_from=counted.path, out=tmp_path / "b", report=ignore)


def test_it_resumes_to_the_same_bits(learned: Run, other: Path, tmp_path: Path) -> None:
    settings = {"train": {"checkpoint_every": 2}}

    def tuned(out: str, stop_after: int | None) -> Run:
        def told(event: object) -> None:
            if stop_after is not None and getattr(event, "step", 0) == stop_after:
                raise KeyboardInterrupt

        return api.train(other, init_from=learned.path, steps=7, settings=settings,
                             out=tmp_path / out, report=told)  # fmt: skip

    whole = tuned("whole", None)
    for stop_after in (1, 5):  # before there is a checkpoint, and after some
        cut = tuned(f"cut-{stop_after}", stop_after)
        assert cut.record.status == "interrupted"
        resumed = api.resume(cut.path, report=ignore)
        assert resumed.scores["val"].loss == whole.scores["val"].loss
        for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_from_a_model_of_transformers(
    other: Path, tmp_path: Path, moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = save_random_model(tmp_path / "small", "gpt2")
    assert "name a model: a folder" in moreish("train", other, "--init-from", "hf:").err
    args = ["train", other, "--init-from", "hf:small", "--context", "12", "--set", "train.lr=1e-9"]
    shown = moreish(*args, "--steps", "1", "--out", "tuned")
    assert shown.status == 0, shown.err
    run = api.load("tuned")
    tokens = torch.randint(300, (1, 12))
    with torch.inference_mode():
        difference = run.model(tokens)[0] - theirs(tokens).logits
    assert difference.abs().max() < 1e-4
    assert (tmp_path / "runs" / "hf-small" / "run.json").is_file()
    assert moreish(*args, "--steps", "1", "--out", "again").status == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1  # imported once
    save_random_model(tmp_path / "elsewhere" / "small", "gpt2")
    args[3] = "hf:elsewhere/small"
    assert moreish(*args, "--steps", "1", "--out", "third").status == 0
    assert (tmp_path / "runs" / "hf-small-2").is_dir()
    recipe = tmp_path / "r.toml"
    recipe.write_text("init_from = 3")
    assert "init_from" in moreish("train", other, "--config", recipe, "--out", "x").err
    assert moreish("sample", "tuned", "-n", "1", "--max-tokens", "5").status == 0
