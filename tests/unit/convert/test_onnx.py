"""Runs in ONNX Runtime: the same logits at once and step by step, and texts without PyTorch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gguf import QWEN_2, of_others
from test_onnx_step import GPT, MODELS, ROTARY

from conftest import STORY, Moreish, needs_gpt2
from moreish import api
from moreish.convert.onnx import export as onnx_export
from moreish.convert.onnx import generate_template as onnx_generate
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.tokenizers import VocabularyLimits, tokenizer_builder
from moreish.training.events import silent
from moreish.utils.files import encode_json

QUICK: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lstm of bytes": ("byte", "text", {"name": "lstm", "width": 16}),
    "hybrid of characters": (
        "char", "lines", {"name": "hybrid", "layers": 1, "heads": 2, "width": 16, "context": 20},
    ),
}  # fmt: skip
"""Learned positions, which are begun anew, are the hybrid's."""

SLOW: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rotary gpt of pairs, n-grams": (
        "bpe", "text",
        {**GPT, **ROTARY, "layers": 1, "kv_heads": 2,
         "ngram_embedding": 3, "ngram_embedding_rows": 100},
    ),
    **{
        f"{name} in {kind}": ("char", kind, model)
        for name, model in MODELS.items()
        for kind in ("lines", "text")
    },
}  # fmt: skip

ALONE = """
import runpy, sys
sys.modules["torch"] = sys.modules["moreish"] = sys.modules["tokenizers"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script where these cannot be imported."""


def trained(folder: Path, tokenizer: str, kind: str, model: dict[str, Any]) -> Run:
    (folder / "story.txt").write_text(STORY * 4, encoding="utf-8")
    counted = model["name"] in ("ngram", "kneser-ney")
    return api.train(
        folder / "story.txt", kind=kind, tokenizer=tokenizer, out=folder / "run", report=silent,
        settings={"model": model}, steps=None if counted else 60,
    )  # fmt: skip


def written_alone(folder: Path, *options: str) -> str:
    """What the example in an export prints, in a process of its own."""
    line = [sys.executable, "-c", ALONE, str(folder / "generate.py"), *options]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.soak) for n in SLOW)])
def test_runs_go_to_onnx_runtime(name: str, tmp_path: Path, moreish: Moreish) -> None:
    run = trained(tmp_path, *{**QUICK, **SLOW}[name])
    told = moreish("export", run.path, "--to", "onnx", "--out", "o", "--licence", "mit", "--json")
    assert told.json["logit_difference"] < 1e-4 and told.json["tokens_alike"] == 200
    assert told.json["program"] == "ONNX Runtime" and told.json["compared"] == "logits"
    _same_logits(run, Path("o/model.onnx"))
    # Past what the model holds too, as the run itself writes there.
    text = run.sample(1, prompt="the", temperature=0, max_tokens=90)[0]
    assert written_alone(Path("o"), "--prompt", "the", "--temperature", "0", "--tokens", "90") == (
        text
    )
    card = Path("o/README.md").read_text()
    assert "license: mit" in card and run.record.data.sha256["train"] in card
    again = moreish("export", run.path, "--to", "onnx", "--out", "o")
    assert again.status == 2 and "--overwrite replaces" in again.err


@torch.inference_mode()
def _same_logits(run: Run, path: Path) -> None:
    """By the plain interface, as the model card tells it; at several lengths, and with a state."""
    session = onnxruntime.InferenceSession(str(path))
    names = [given.name for given in session.get_inputs()]
    assert names[0] == "tokens" and session.get_inputs()[0].shape == ["batch", "length"]
    assert [o.name for o in session.get_outputs()] == ["logits", *(f"new_{n}" for n in names[1:])]

    def zeros(batch: int) -> list[np.ndarray]:
        sizes = {"batch": batch, "past": 0}
        return [
            np.zeros([sizes.get(size, size) for size in given.shape], given.type[7:-1])
            if given.type != "tensor(float)"
            else np.zeros([sizes.get(size, size) for size in given.shape], np.float32)
            for given in session.get_inputs()[1:]
        ]

    for batch, lengths in ((1, [1]), (3, [8]), (2, [15]), (2, [4, 1, 6, 1, 1])):
        tokens_BT = torch.randint(run.model.vocab_size, (batch, sum(lengths)))
        state, own = zeros(batch), None
        for piece_BT in tokens_BT.split(lengths, dim=1):
            given = dict(zip(names, [piece_BT.numpy(), *state], strict=True))
            logits, *state = session.run(None, given)
            expected, own = run.model(piece_BT, own)
            torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4)


def tokenizer_alone(tokenizer: Any, folder: Path) -> onnx_generate.Tokenizer:
    path = folder / "tokenizer.json"
    path.write_bytes(encode_json(tokenizer.to_json()))
    return onnx_generate.Tokenizer(path)


@pytest.mark.parametrize("boundary", [True, False])
@pytest.mark.parametrize("name", ["byte", "char", "word", "bpe", "gpt2"])
def test_the_example_makes_the_same_tokens(
    name: str, boundary: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if name == "gpt2":
        needs_gpt2()
    limits = VocabularyLimits(min_word_count=1, vocab_size=None)
    ours = tokenizer_builder(name).build(
        [STORY * 4 + "½é’²\u3000'"], boundary=boundary, limits=limits
    )
    alone = tokenizer_alone(ours, tmp_path_factory.mktemp("alone"))
    words = st.sampled_from(["the", " cat", "'s", "'ll", "\n\n", "  ", "\u3000", "½", "é", "’s"])
    characters = st.characters(exclude_categories=["Cs"]).map(str)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(words | characters, max_size=20).map("".join))
    def same(text: str) -> None:
        if name == "char":
            text = ours.drop_unknown(text)
        ids = ours.encode(text).tolist()
        assert alone.encode(text) == ids
        assert alone.decode(ids) == ours.decode(np.array(ids, dtype=np.int64))

    same()


@pytest.mark.parametrize(
    ("name", "prompt", "unknown"),
    [
        ("char", "a 語 é 語", "'語' 'é'"),
        ("word", "The zebra, the cat\tof zebra", "' zebra' '\\t' 'of'"),
    ],
)
def test_the_example_says_what_it_cannot_read(
    name: str, prompt: str, unknown: str, tmp_path: Path
) -> None:
    run = trained(tmp_path, name, "text", {"name": "bigram"})
    api.export(run, tmp_path / "o", to="onnx")
    line = [sys.executable, tmp_path / "o" / "generate.py", "--prompt", prompt]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.endswith(f"--prompt: the model never saw {unknown}\n")
    if name == "char":
        alone = onnx_generate.Tokenizer(tmp_path / "o" / "tokenizer.json")
        with pytest.raises(ValueError, match="never saw '語'"):
            alone.encode(prompt)


def test_words_of_others_need_a_library(tmp_path: Path) -> None:
    from moreish.tokenizers import tokenizer_from_json

    ours = tokenizer_from_json(of_others(QWEN_2), boundary=True)
    text = "I'LL  be 123\r\n\r\n there!"
    assert tokenizer_alone(ours, tmp_path).encode(text) == ours.encode(text).tolist()


def test_an_export_that_disagrees_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, "char", "text", {"name": "bigram"})
    refused = r"ONNX Runtime does not agree with this run \(.*"

    def fails(why: str) -> None:
        with pytest.raises(MoreishError, match=refused + why):
            api.export(run, tmp_path / "o", to="onnx")
        assert not list(tmp_path.glob("*o"))

    right = onnx_export.stepwise

    def off(model: Any) -> Any:
        steps = right(model)
        steps.model.table.weight.data[3, 4] += 0.01
        return steps

    with monkeypatch.context() as changed:
        changed.setattr(onnx_export, "stepwise", off)
        fails("logits differ by 0.01")
    with monkeypatch.context() as changed:
        data = run.tokenizer.to_json()
        turned = {**data, "characters": data["characters"][::-1]}
        changed.setattr(type(run.tokenizer), "to_json", lambda self: turned)
        fails("becomes other tokens")


def test_large_weights_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, "char", "text", {"name": "bigram"})
    monkeypatch.setattr(onnx_export, "LARGEST", 100)
    api.export(run, tmp_path / "o", to="onnx")
    size = run.model.vocab_size**2 * 4
    assert (tmp_path / "o" / "model.onnx.data").stat().st_size >= size
    assert (tmp_path / "o" / "model.onnx").stat().st_size < size
    _same_logits(run, tmp_path / "o" / "model.onnx")


def test_a_model_that_nobody_has_said_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moreish.convert.onnx import networks as stepwise_networks

    run = trained(tmp_path, "char", "text", {"name": "bigram"})
    monkeypatch.setattr(stepwise_networks, "KINDS", {})
    with pytest.raises(MoreishError, match="nobody has said how Bigram goes step by step"):
        api.export(run, tmp_path / "o", to="onnx")
    assert not list(tmp_path.glob("*o"))


def test_libraries_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, "char", "text", GPT)
    for to, library in (("onnx", "onnxscript"), ("gguf", "xllamacpp"), ("hf", "transformers")):
        with monkeypatch.context() as changed:
            changed.setitem(sys.modules, library, None)
            with pytest.raises(MoreishError, match=rf"\({library}\): pip install 'moreish\[{to}\]"):
                api.export(run, tmp_path / "o", to=to)
    assert not list(tmp_path.glob("*o"))


def test_the_help_names_the_programs(moreish: Moreish) -> None:
    shown = " ".join(moreish("export", "--help").out.split())
    for word in ("hf", "transformers", "gguf", "llama.cpp", "onnx", "ONNX Runtime"):
        assert word in shown
