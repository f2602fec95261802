"""GGUF export: llama.cpp gives the same tokens, probabilities and texts, or nothing is exported."""

import json
import os
import random
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from conftest import STORY, Moreish, needs_gpt2
from moreish import api
from moreish.convert import exporter, gguf_export
from moreish.convert.gguf_export import LlamaServer
from moreish.convert.gguf_vocab import gguf_vocabulary
from moreish.errors import MoreishError
from moreish.models import build_model, model_config
from moreish.tokenizers import tokenizer_from_json
from support.exports import GPT, LLAMA, LLAMA_3, QWEN_2, foreign_bpe, train_model

FOREIGN = STORY.replace("cat", "Kätzchen 猫").replace("boots", "“▁boots”")

EXPORTED: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "gpt2 of bytes": ("byte", "text", STORY, {}),
    "gpt2 of bytes in lines": ("byte", "lines", FOREIGN, {"tied": True}),
    "llama of bytes, two for each letter": ("byte", "text", "éàü" * 200, LLAMA),
    "gpt2 of pairs": ("bpe", "text", FOREIGN, {"tied": True, "norm_eps": 1e-3}),
    "gpt2 of characters, no biases": ("char", "lines", FOREIGN, {"bias": False}),
    "llama of pairs": ("bpe", "lines", STORY, {**LLAMA, "kv_heads": 2}),
    "llama of characters": (
        "char",
        "text",
        STORY.replace("a", "\\na"),
        {**LLAMA, "tied": True, "heads": 2},
    ),
}
LARGE = {"llama of gpt2's tokens": ("gpt2", "text", STORY, {**LLAMA, "rotary_base": 500.0})}


@pytest.mark.parametrize(
    "name", [*EXPORTED, *(pytest.param(name, marks=pytest.mark.soak) for name in LARGE)]
)
def test_llama_cpp_reproduces_the_run(name: str, tmp_path: Path, moreish: Moreish) -> None:
    tokenizer, kind, text, model = {**EXPORTED, **LARGE}[name]
    steps = 30
    if tokenizer == "gpt2":
        needs_gpt2()
        steps = 1
    run = train_model(tmp_path, {**GPT, **model}, text, kind=kind, tokenizer=tokenizer, steps=steps)
    shown = moreish("export", run.path, "--to", "gguf", "--out", "g", "--license", "mit", "--json")
    assert shown.json["program"] == "llama.cpp" and shown.json["kind"] == name.split()[0]
    assert shown.json["tokens_alike"] >= 11 and shown.json["compared"] == "log-probabilities"
    assert shown.json["logit_difference"] < (1e-2 if shown.json["kind"] == "gpt2" else 1e-4)
    card = Path("g/README.md").read_text()
    assert "license: mit" in card and run.record.data.sha256["train"] in card
    again = moreish("export", run.path, "--to", "gguf", "--out", "g")
    assert again.status == 2 and "--overwrite replaces" in again.err


def test_metadata_of_the_file(tmp_path: Path) -> None:
    lines = train_model(tmp_path, GPT, kind="lines")
    api.export(lines, tmp_path / "lines", to="gguf")
    text = train_model(tmp_path, GPT, kind="text", tokenizer="byte", out=tmp_path / "other")
    api.export(text, tmp_path / "text", to="gguf")
    files = {name: gguf.GGUFReader(tmp_path / name / "model.gguf") for name in ("lines", "text")}
    metadata = {
        name: {key: field.contents() for key, field in file.fields.items()}
        for name, file in files.items()
    }
    assert metadata["lines"]["gpt2.context_length"] == 20
    # Items begin and end with the boundary; running text has no special tokens.
    assert metadata["lines"]["tokenizer.ggml.bos_token_id"] == 0
    assert metadata["lines"]["tokenizer.ggml.eos_token_id"] == 0
    assert metadata["lines"]["tokenizer.ggml.add_bos_token"] is True
    assert metadata["lines"]["tokenizer.ggml.token_type"][:2] == [3, 1]
    assert metadata["text"]["tokenizer.ggml.add_bos_token"] is False
    assert metadata["text"]["tokenizer.ggml.eos_token_id"] == 0xFF
    assert {t.tensor_type.name for t in files["lines"].tensors} == {"F32"}


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_tokenization_is_equal_for_any_text(tokenizer: str, tmp_path: Path) -> None:
    kinds = [
        "abc xyz 123 's 'll don't \n\n\t  .,!?",
        "äöüß éà 你好 мир 日本 ½²Ⅷ \u3000\u2003\x85\xa0\u2028▁",
        "".join(map(chr, range(1, 0x3000, 41))),
    ]
    alphabet = "".join(kinds) if tokenizer == "char" else STORY
    run = train_model(tmp_path, GPT, alphabet + "\n" + STORY, kind="lines", tokenizer=tokenizer)
    api.export(run, tmp_path / "g", to="gguf")
    rng = random.Random(0)
    exported = tmp_path / "g" / "model.gguf"
    with closing(LlamaServer(exported, run.model, run.tokenizer)) as server:
        for _ in range(200):
            text = "".join(rng.choice(rng.choice(kinds)) for _ in range(20))
            text = run.tokenizer.drop_unknown(text)
            assert server.tokenize(text) == [0, *run.tokenizer.encode(text).tolist()], text


@pytest.mark.parametrize(
    ("pattern", "merges", "name"), [(LLAMA_3, True, "llama-bpe"), (QWEN_2, False, "qwen2")]
)
def test_pre_tokenization_of_other_models(
    pattern: str, merges: bool, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(foreign_bpe(pattern, ignore_merges=merges)))
    run = train_model(tmp_path, GPT, kind="text", tokenizer=str(path))
    api.export(run, tmp_path / "g", to="gguf")
    assert gguf_vocabulary(run.tokenizer).pre_tokenizer == name
    texts = ["I'LL  be 12345\r\n\r\n there!!\n\n (soon)", "  \n\t a1b22c333 “x”"]
    exported = tmp_path / "g" / "model.gguf"
    with closing(LlamaServer(exported, run.model, run.tokenizer)) as server:
        for text in texts:
            ids = run.tokenizer.encode(text).tolist()
            assert server.tokenize(text)[-len(ids) :] == ids


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (foreign_bpe("x+"), "does not have the pre_tokenizer"),
        (foreign_bpe(LLAMA_3), "another ignore_merges"),
        (foreign_bpe(QWEN_2, byte_fallback=True), "byte_fallback=True"),
        ({**foreign_bpe(QWEN_2), "normalizer": {"type": "NFC"}}, "does not normalize"),
    ],
)
def test_unsupported_tokenizers_are_refused(data: dict[str, Any], why: str) -> None:
    with pytest.raises(MoreishError, match=why):
        gguf_vocabulary(tokenizer_from_json(data, boundary=True))


@pytest.mark.parametrize(
    ("model", "options", "why"),
    [
        ({"name": "lstm", "width": 8}, {}, "llama.cpp has no lstm"),
        ({"softcap": 9.0}, {}, r"llama.cpp has no model with model.softcap=9"),
        ({"feedforward": "gelu-exact"}, {}, "only model.feedforward=gelu"),
        ({"feedforward": "relu"}, {}, "only model.feedforward=gelu"),
        ({**LLAMA, "width": 12}, {}, "even head width"),
        ({"context": 1}, {}, "context of one token"),
        ({}, {"tokenizer": "word"}, "no tokenizer like 'word'"),
        ({}, {"kind": "text"}, "--tokenizer byte or bpe"),
    ],
)
def test_unsupported_models_are_refused(
    model: dict[str, Any], options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    model = model if "name" in model else {**GPT, **model}
    run = train_model(tmp_path, model, FOREIGN, **{"kind": "lines", **options})
    with pytest.raises(MoreishError, match=why):
        api.export(run, tmp_path / "g", to="gguf")
    assert not list(tmp_path.glob("*g"))


def test_an_export_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_model(tmp_path, {**GPT, **LLAMA}, kind="lines", steps=30)
    refused = "llama.cpp does not reproduce this run"

    def fails(why: str) -> None:
        with pytest.raises(MoreishError, match=rf"{refused} \(.*{why}"):
            api.export(run, tmp_path / "g", to="gguf")
        assert not list(tmp_path.glob("*g"))

    with monkeypatch.context() as changed:
        changed.setattr(gguf_export, "interleave_rotary", lambda weight, head_width: weight)
        fails("log-probabilities differ")
    with monkeypatch.context() as changed:
        correct = gguf_export.gguf_vocabulary(run.tokenizer)
        correct.tokens[1:] = correct.tokens[:0:-1]
        changed.setattr(gguf_export, "gguf_vocabulary", lambda tokenizer: correct)
        fails("encodes .* differently")
    with monkeypatch.context() as changed:
        changed.setattr(gguf_export, "fsync_file", lambda path: os.truncate(path, 2000))
        fails("cannot read the file")
    with monkeypatch.context() as changed:
        changed.setattr(exporter, "check_greedy_decoding", _check_wrong_model)
        fails("another token at position 1")
    api.export(run, tmp_path / "g", to="gguf")


def _check_wrong_model(model: Any, *args: Any) -> int:
    model = deepcopy(model)
    with torch.no_grad():
        model.head.weight.neg_()
    return CHECK(model, *args)


CHECK = exporter.check_greedy_decoding


def test_ties_are_not_differences() -> None:
    bigram = build_model(model_config({"name": "bigram"}), 3).requires_grad_(False)
    bigram.table.weight[1, 2] = 1e-5  # after 0 all tokens are equal, after 1 almost
    assert exporter.check_greedy_decoding(bigram, 0, [0, 1, 2, 1], 1e-4) == 2
    with pytest.raises(exporter.ParityError, match="at position 3"):
        exporter.check_greedy_decoding(bigram, 0, [0, 1, 1], 1e-6)
