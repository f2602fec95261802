"""ONNX export: the same logits at once and step by step, and generation without PyTorch."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import STORY, Moreish, needs_gpt2
from moreish import api
from moreish.convert.onnx import counts, generate_template
from moreish.convert.onnx import export as onnx_export
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.tokenizers import VocabularyLimits, tokenizer_builder, tokenizer_from_json
from moreish.utils.files import encode_json
from support.exports import GPT, LLAMA, MODELS, QWEN_2, foreign_bpe, train_model

QUICK: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lstm of bytes": ("byte", "text", {"name": "lstm", "width": 16}),
    "hybrid of characters": (
        "char", "lines", {"name": "hybrid", "layers": 1, "heads": 2, "width": 16, "context": 20},
    ),
}  # fmt: skip
"""The hybrid has learned positions, so its state restarts when the context is full."""

SLOW: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rotary gpt of pairs, n-grams": (
        "bpe", "text",
        {**GPT, **LLAMA, "layers": 1, "kv_heads": 2,
         "ngram_embedding": 3, "ngram_embedding_rows": 100},
    ),
    **{
        f"{name} in {kind}": ("char", kind, model)
        for name, model in MODELS.items()
        for kind in ("lines", "text")
    },
}  # fmt: skip

WITHOUT_PACKAGES = """
import runpy, sys
sys.modules["torch"] = sys.modules["moreish"] = sys.modules["tokenizers"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script in which these packages cannot be imported."""


def trained(folder: Path, tokenizer: str, kind: str, model: dict[str, Any], steps: int = 1) -> Run:
    counted = model["name"] in ("ngram", "kneser-ney")
    steps = None if counted else steps
    return train_model(folder, model, kind=kind, tokenizer=tokenizer, steps=steps)


def run_generate_script(folder: Path, *options: str) -> str:
    """Returns what generate.py of an export prints."""
    line = [sys.executable, "-c", WITHOUT_PACKAGES, str(folder / "generate.py"), *options]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.removesuffix("\n")


OTHERS = ["hybrid of characters", *SLOW]


@pytest.mark.parametrize(
    "name", ["lstm of bytes", *(pytest.param(name, marks=pytest.mark.soak) for name in OTHERS)]
)
def test_onnx_runtime_reproduces_the_run(name: str, tmp_path: Path, moreish: Moreish) -> None:
    run = trained(tmp_path, *{**QUICK, **SLOW}[name], steps=30)
    shown = moreish("export", run.path, "--to", "onnx", "--out", "o", "--license", "mit", "--json")
    assert shown.json["logit_difference"] < 1e-4 and shown.json["tokens_alike"] == 200
    assert shown.json["program"] == "ONNX Runtime" and shown.json["compared"] == "logits"
    _same_logits(run, Path("o/model.onnx"))
    # Also beyond the context, as the run itself continues there.
    text = run.sample(1, prompt="the", temperature=0, max_tokens=90)[0]
    options = ("--prompt", "the", "--temperature", "0", "--max-tokens", "90")
    assert run_generate_script(Path("o"), *options) == text
    card = Path("o/README.md").read_text()
    assert "license: mit" in card and run.record.data.sha256["train"] in card
    again = moreish("export", run.path, "--to", "onnx", "--out", "o")
    assert again.status == 2 and "--overwrite replaces" in again.err


@torch.inference_mode()
def _same_logits(run: Run, path: Path) -> None:
    """Compares through the interface that the model card describes."""
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


def load_standalone(tokenizer: Any, folder: Path) -> generate_template.StandaloneTokenizer:
    path = folder / "tokenizer.json"
    path.write_bytes(encode_json(tokenizer.to_json()))
    return generate_template.StandaloneTokenizer(path)


@pytest.mark.parametrize("boundary", [True, False])
@pytest.mark.parametrize("name", ["byte", "char", "word", "bpe", "gpt2"])
def test_the_script_has_equal_tokenization(
    name: str, boundary: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if name == "gpt2":
        needs_gpt2()
    limits = VocabularyLimits(min_word_count=1, vocab_size=None)
    ours = tokenizer_builder(name).build(
        [STORY * 4 + "½é’²\u3000'"], boundary=boundary, limits=limits
    )
    standalone = load_standalone(ours, tmp_path_factory.mktemp("standalone"))
    words = st.sampled_from(["the", " cat", "'s", "'ll", "\n\n", "  ", "\u3000", "½", "é", "’s"])
    characters = st.characters(exclude_categories=["Cs"]).map(str)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(words | characters, max_size=20).map("".join))
    def same(text: str) -> None:
        if name == "char":
            text = ours.drop_unknown(text)
        ids = ours.encode(text).tolist()
        assert standalone.encode(text) == ids
        assert standalone.decode(ids) == ours.decode(np.array(ids, dtype=np.int64))

    same()


@pytest.mark.parametrize(
    ("name", "prompt", "unknown"),
    [
        ("char", "a 語 é 語", "'語' 'é'"),
        ("word", "The zebra, the cat\tof zebra", "'zebra' '\\t'"),
    ],
)
def test_the_script_names_unknown_characters_and_words(
    name: str, prompt: str, unknown: str, tmp_path: Path
) -> None:
    run = trained(tmp_path, name, "text", {"name": "bigram"})
    api.export(run, tmp_path / "o", to="onnx")
    line = [sys.executable, tmp_path / "o" / "generate.py", "--prompt", prompt]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.endswith(f"--prompt: not in the vocabulary: {unknown}\n")
    if name == "char":
        standalone = generate_template.StandaloneTokenizer(tmp_path / "o" / "tokenizer.json")
        with pytest.raises(ValueError, match="'語' is not in the model's vocabulary"):
            standalone.encode(prompt)


def test_other_pre_tokenization_needs_a_library(tmp_path: Path) -> None:
    ours = tokenizer_from_json(foreign_bpe(QWEN_2), boundary=True)
    text = "I'LL  be 123\r\n\r\n there!"
    assert load_standalone(ours, tmp_path).encode(text) == ours.encode(text).tolist()


def test_an_export_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, "char", "text", {"name": "bigram"})
    refused = r"ONNX Runtime does not reproduce this run \(.*"

    def fails(why: str) -> None:
        with pytest.raises(MoreishError, match=refused + why):
            api.export(run, tmp_path / "o", to="onnx")
        assert not list(tmp_path.glob("*o"))

    correct = onnx_export.make_exportable

    def wrong_weights(model: Any) -> Any:
        exportable = correct(model)
        exportable.model.table.weight.data[3, 4] += 0.01
        return exportable

    with monkeypatch.context() as changed:
        changed.setattr(onnx_export, "make_exportable", wrong_weights)
        fails("logits differ by 0.01")
    with monkeypatch.context() as changed:
        data = run.tokenizer.to_json()
        reversed_ = {**data, "characters": data["characters"][::-1]}
        changed.setattr(type(run.tokenizer), "to_json", lambda self: reversed_)
        fails("encodes .* differently")


def test_large_weights_are_a_separate_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, "char", "text", {"name": "bigram"})
    monkeypatch.setattr(onnx_export, "MAX_INLINE_BYTES", 100)
    api.export(run, tmp_path / "o", to="onnx")
    size = run.model.vocab_size**2 * 4
    assert (tmp_path / "o" / "model.onnx.data").stat().st_size >= size
    assert (tmp_path / "o" / "model.onnx").stat().st_size < size
    _same_logits(run, tmp_path / "o" / "model.onnx")


def test_a_model_without_an_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, "char", "text", {"name": "bigram"})
    monkeypatch.setattr(counts, "EXPORTABLE", {})
    with pytest.raises(MoreishError, match="not implemented for Bigram"):
        api.export(run, tmp_path / "o", to="onnx")
    assert not list(tmp_path.glob("*o"))


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, "char", "text", GPT)
    for to, library in (("onnx", "onnxscript"), ("gguf", "xllamacpp"), ("hf", "transformers")):
        with monkeypatch.context() as changed:
            changed.setitem(sys.modules, library, None)
            with pytest.raises(MoreishError, match=rf"\({library}\): pip install 'moreish\[{to}\]"):
                api.export(run, tmp_path / "o", to=to)
    assert not list(tmp_path.glob("*o"))


def test_the_format_is_chosen_for_the_model(tmp_path: Path, moreish: Moreish) -> None:
    run = trained(tmp_path, "char", "lines", {"name": "kneser-ney"})
    shown = moreish("export", run.path, "--out", "o")
    assert shown.status == 0 and shown.out.startswith("Format: onnx (ONNX Runtime)\n")
    items = run.training_bytes.decode().split("\n")
    (beginning, _), *_ = Counter(item[:2] for item in items).most_common(1)
    card = Path("o/README.md").read_text()
    assert f"`python generate.py --prompt {beginning} --temperature 0.8`" in card
    folder = tmp_path / "words"
    folder.mkdir()
    words = train_model(folder, GPT, kind="text", tokenizer="word", steps=1)
    assert api.export(words, tmp_path / "w").format == "onnx"
    with pytest.raises(MoreishError, match="transformers has no kneser-ney model"):
        api.export(run, tmp_path / "p", to="hf")


def test_the_help_names_the_programs(moreish: Moreish) -> None:
    shown = " ".join(moreish("export", "--help").out.split())
    for word in ("hf", "transformers", "gguf", "llama.cpp", "onnx", "ONNX Runtime"):
        assert word in shown
