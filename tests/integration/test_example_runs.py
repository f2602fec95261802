"""Runs of examples, from the command line, from Python and over HTTP."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import moreish as library
from conftest import Moreish
from moreish import api
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.tasks import register
from moreish.training.events import ignore
from support.example_data import TINY_ENCODER_DECODER, WORDS, write_labels, write_pairs
from support.interrupts import Killed, kill_at
from support.serving import serving

TINY = ["layers=1", "encoder_layers=1", "width=16", "heads=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def labels(folder: Path) -> Run:
    """Whether a text has a good word in it."""
    return api.train(write_labels(folder / "labels.csv"), out=folder / "labels", report=ignore)


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Run:
    """Words and the same words backward."""
    return api.train(
        write_pairs(folder / "pairs.jsonl"),
        model="encoder-decoder",
        steps=30,
        settings={"model": TINY_ENCODER_DECODER},
        out=folder / "pairs",
        report=ignore,
    )


def test_labels_are_counted(labels: Run) -> None:
    assert labels.config.model.name == "nb-svm"
    assert labels.config.data.tokenizer == "char"
    assert labels.config.model.word_order == 2
    assert labels.scores["val"].accuracy == 1
    found = labels.predict(["red blue gold", "gold blue", "RED"])
    assert [p.target for p in found] == ["good", "bad", "good"]
    for prediction in found:
        others = sum(probability for _, probability in prediction.alternatives)
        assert prediction.probability + others == pytest.approx(1)


def test_inputs_are_read_in_the_case_of_the_data(folder: Path) -> None:
    for name, source, fold in (("low", "ab", True), ("mixed", "aB", False)):
        rows = [f"{source * n},{'odd' if n % 2 else 'EVEN'}" for n in range(1, 40)]
        path = folder / f"{name}.csv"
        path.write_text("input,target\n" + "\n".join(rows))
        run = api.train(
            path, kind="examples", model="naive-bayes", out=folder / name, report=ignore
        )
        assert bool(run.config.data.fold_case) == fold
        if fold:
            assert run.predict("ABAB")[0].target == run.predict("abab")[0].target
        else:
            assert run.tokenizer.find_unknown("ABAB") == ["A"]


def test_unknown_words_are_read_and_inputs_stay_as_they_were(folder: Path, labels: Run) -> None:
    run = api.train(folder / "labels.csv", model="nb-svm", out=folder / "svm", report=ignore)
    assert run.config.data.tokenizer == "word"
    texts = ["Red  unheard gold", "RED"]
    found = run.predict(texts)
    assert [p.input for p in found] == texts
    assert [p.target for p in found] == ["good", "good"]
    without = run.predict(["red gold"])[0].probability
    assert found[0].probability != without
    assert run.predict("Red unheard gold", unknown="drop")[0].probability == without
    # Characters have no token for unknown ones: they are left out.
    (found,) = labels.predict("Red ☃gold")
    assert found.input == "Red ☃gold" and found.target == "good"
    assert found.probability == labels.predict("red gold")[0].probability


def test_the_whole_validation_split_is_scored_after_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations during training see a part of it."""
    monkeypatch.setattr("moreish.runs.run.MAX_VALIDATION_LOGITS", 0)
    for name in ("MIN_VALIDATION_PREDICTIONS", "MIN_VALIDATION_EXAMPLES"):
        monkeypatch.setattr(f"moreish.runs.run.{name}", 5)
    run = api.train(
        write_labels(folder / "whole.csv"), model="encoder", steps=4, out=folder / "whole",
        settings={"model": {"width": 8, "layers": 1}, "train": {"eval_every": 2}}, report=ignore,
    )  # fmt: skip
    examples = len(run.split("val").separators)
    assert len(run.validation_sample.separators) == 5
    assert run.scores["val"].tokens == run.scores["val"].predicted == examples > 20
    assert {e["val"]["tokens"] for e in run.read_metrics() if "val" in e} == {5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nb-svm", "--set", "data.target_form=text"], "predicts labels"),
        (["--model", "encoder", "--set", "data.mask_inputs=false"], "predicts targets only"),
        (["--model", "nb-svm", "--set", "model.word_order=2"], "use --tokenizer char"),
    ],
)
def test_models_of_labels_refuse_other_targets(
    moreish: Moreish, folder: Path, arguments: list[str], message: str
) -> None:
    done = moreish("train", write_labels(folder / "refused.csv"), "--steps", "1", *arguments)
    assert done.status == 2 and message in done.err and done.err.count("\n") == 1


def test_epochs_of_a_task_are_those_of_its_sample(moreish: Moreish) -> None:
    done = moreish("plan", "task:addition", "--epochs", "1", "--set", "task.digits=1")
    assert done.status == 0, done.err


def test_examples_have_no_stride(pairs: Run) -> None:
    with pytest.raises(MoreishError, match="leave it out"):
        pairs.evaluate(stride=3)


def test_doctor_finds_inputs_of_several_splits(moreish: Moreish, tmp_path: Path) -> None:
    for name, words in (("train", "abc"), ("val", "cde"), ("test", "efg")):
        rows = [f"{word * 3},{word}" for word in words]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    files = [tmp_path / f"{name}.csv" for name in ("train", "val", "test")]
    done = moreish("doctor", files[0], "--validation-file", files[1], "--test-file", files[2])
    assert done.status == 0 and "2 examples of validation and test" in done.out


def test_words_are_counted_in_characters(folder: Path) -> None:
    path = write_labels(folder / "words.csv")
    settings = {"model": {"name": "naive-bayes", "order": 1, "word_order": 1}}
    run = api.train(path, settings=settings, tokenizer="char", out=folder / "words", report=ignore)
    letters = api.train(
        path, settings={"model": {"name": "naive-bayes", "order": 1}}, tokenizer="char",
        out=folder / "letters", report=ignore,
    )  # fmt: skip
    # Six words and the boundary; the separator is white space.
    assert len(run.model.ngrams_F) - len(letters.model.ngrams_F) == 7
    assert run.scores["val"].loss < letters.scores["val"].loss
    assert run.predict("red blue gold")[0].target == "good"


def test_predict_prints_what_it_finds(labels: Run, moreish: Moreish, tmp_path: Path) -> None:
    (tmp_path / "inputs.txt").write_text("red gold\nblue\n")
    done = moreish("predict", labels.path, tmp_path / "inputs.txt")
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert done.status == 0
    assert [line[:2] for line in lines] == [["red gold", "good"], ["blue", "bad"]]
    done = moreish("predict", labels.path, tmp_path / "inputs.txt", "--json")
    found = json.loads(done.out)["predictions"]
    assert [p["target"] for p in found] == ["good", "bad"]
    assert all(0.5 < p["probability"] <= 1 for p in found)
    done = moreish("predict", labels.path, "--text", "red", "--text", "blue", "--json")
    assert [p["target"] for p in json.loads(done.out)["predictions"]] == ["good", "bad"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.txt"], "no file absent.txt"),
        (["empty.txt"], "there are no inputs"),
        (["--text", "a", "--beams", "0"], "--beams 0"),
        (["--text", "a", "--beams", "2", "--temperature", "1"], "search for a target or sample it"),
        (["--text", "a", "--temperature", "-1"], "--temperature -1"),
    ],
)
def test_errors_are_one_line(
    labels: Run, moreish: Moreish, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty.txt").write_text("")
    done = moreish("predict", labels.path, *arguments)
    assert done.status == 2 and message in done.err and done.err.count("\n") == 1


def test_commands_of_texts_refuse_and_name_the_right_one(labels: Run, moreish: Moreish) -> None:
    for command in (["sample"], ["novelty"], ["eval", "--text", "red"], ["eval", "--code"]):
        verb, *rest = command
        done = moreish(verb, labels.path, *rest)
        assert done.status == 2 and f"moreish predict {labels.path}" in done.err
    done = moreish("export", labels.path, "--to", "onnx", "--out", "x")
    assert done.status == 2 and "cannot be exported yet" in done.err
    with pytest.raises(MoreishError, match="predict"):
        labels.next("red")


def test_eval_prints_measures_of_predictions(labels: Run, pairs: Run, moreish: Moreish) -> None:
    found = json.loads(moreish("eval", labels.path, "--test", "--json").out)["splits"]
    for split in ("val", "test"):
        assert {"accuracy", "accuracy_stderr", "macro_f1", "calibration_error"} <= set(found[split])
        assert "exact_match" not in found[split]
    found = json.loads(moreish("eval", pairs.path, "--json").out)["splits"]["val"]
    assert {"exact_match", "exact_match_stderr", "char_error_rate"} <= set(found)
    shown = moreish("eval", labels.path).out
    assert "labels right (%)" in shown and "macro F1" in shown


def test_compare_pairs_predictions(labels: Run, moreish: Moreish, folder: Path) -> None:
    other = api.train(
        folder / "labels.csv", model="naive-bayes", tokenizer="char", out=folder / "bayes",
        settings={"data": {"fold_case": True}}, report=ignore,
    )  # fmt: skip
    done = moreish("compare", labels.path, other.path, "--json")
    (found,) = json.loads(done.out)["predictions"]
    assert found["shares"] == [1, 1] and found["stderr"] == 0 and found["examples"] > 10
    (losses,) = json.loads(done.out)["comparisons"]
    expected = abs(labels.scores["val"].loss - other.scores["val"].loss)
    assert losses["difference"] == pytest.approx(expected, rel=1e-3)


def test_a_text_has_no_predictions(moreish: Moreish, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(["anna", "otto", "emma"] * 20))
    assert moreish("train", "names.txt", "--model", "ngram", "--out", "run", "-q").status == 0
    done = moreish("predict", "run", "--text", "anna")
    assert done.status == 2 and "was trained on a text" in done.err


def test_options_overrule_the_guess(moreish: Moreish, tmp_path: Path) -> None:
    rows = [f"{word} {n},{word}" for n in range(20) for word in WORDS]
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(rows))
    model = ["--model", "ngram", "-q"]
    assert moreish("train", "data.csv", "--as", "lines", *model, "--out", "lines").status == 0
    assert Run.open(tmp_path / "lines").kind == "lines"
    done = moreish("train", "data.csv", "--as", "lines", "--input", "text", *model)
    assert done.status == 2 and "--input and --target are for examples" in done.err
    done = moreish("train", "data.csv", "--as", "examples", *model, "--out", "examples")
    assert done.status == 0 and Run.open(tmp_path / "examples").kind == "examples"
    done = moreish("train", "data.csv", "--set", "task.digits=3")
    assert done.status == 2 and "is no task" in done.err
    done = moreish("train", "task:adition")
    assert done.status == 2 and "did you mean 'addition'?" in done.err
    for kind in ("text", "lines"):
        for model in ("encoder", "encoder-decoder", "naive-bayes", "nb-svm"):
            done = moreish("train", "data.csv", "--as", kind, "--model", model)
            assert done.status == 2 and "it needs examples" in done.err


def test_addition_is_told_in_plain_form(moreish: Moreish, tmp_path: Path) -> None:
    done = moreish(
        "train", "task:addition", "--set", "task.digits=1", "--set", "task.held_out=50",
        "--model", "gpt", "--steps", "300", *[f"--set=model.{s}" for s in TINY if "enc" not in s],
        "--out", "run", "--json",
    )  # fmt: skip
    record = json.loads(done.out)
    val = record["splits"]["val"]
    assert val["predicted"] <= 20  # of a hundred problems a tenth is held out
    (tmp_path / "questions.txt").write_text("3+4\n5 + 5\n09+1\n")
    found = json.loads(moreish("predict", "run", "questions.txt", "--json").out)["predictions"]
    assert [p["input"] for p in found] == ["3+4", "5 + 5", "09+1"]
    assert all(p["target"].isdigit() for p in found)
    done = moreish("predict", "run", "--text", "1+1", "--text", "what?")
    assert done.status == 2 and "input 2: 'what?' is not a problem" in done.err


@register("parity")
def parity(random: Any) -> tuple[str, str]:
    """Whether the number of ones is odd."""
    bits = random.choices("01", k=random.randint(1, 6))
    return "".join(bits), "odd" if bits.count("1") % 2 else "even"


def train_parity(folder: Path, name: str, report: Any = ignore) -> Run:
    return api.train(
        "task:parity",
        model="gpt",
        steps=12,
        settings={
            "model": {"layers": 1, "width": 16, "heads": 2},
            "task": {"held_out": 20},
            "train": {"checkpoint_every": 4, "eval_every": 6},
        },
        out=folder / name,
        report=report,
    )


def test_a_killed_run_of_a_task_resumes_with_the_same_problems(tmp_path: Path) -> None:
    whole = train_parity(tmp_path, "whole")
    with suppress(Killed):
        train_parity(tmp_path, "killed", kill_at(7))
    resumed = api.resume(tmp_path / "killed", report=ignore)
    content = [(run.path / "model.safetensors").read_bytes() for run in (whole, resumed)]
    assert content[0] == content[1]
    assert whole.scores == resumed.scores


def test_held_out_files_are_splits_of_their_own(tmp_path: Path) -> None:
    for name, first in (("train", 0), ("val", 100)):
        rows = [f"{n},{2 * n}" for n in range(first, first + 60)]
        (tmp_path / f"{name}.csv").write_text("input,target\n" + "\n".join(rows))
    run = api.train(
        tmp_path / "train.csv",
        input="input",
        target="target",
        validation_file=str(tmp_path / "val.csv"),
        model="kneser-ney",
        out=tmp_path / "run",
        report=ignore,
    )
    assert run.record.data.split_documents == {"train": 60, "val": 60}


def test_doctor_finds_what_spoils_examples(moreish: Moreish, tmp_path: Path) -> None:
    rows = ["a,yes", "a,no", "b,yes", "b,yes", *(f"c{n},yes" for n in range(60)), "d,maybe"]
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(rows))
    (tmp_path / "val.csv").write_text("text,label\na,yes\nz,no\n")
    done = moreish("doctor", "data.csv", "--as", "examples", "--json")
    names = {finding["name"] for finding in json.loads(done.out)["findings"]}
    assert names == {"duplicates", "conflicting targets", "unbalanced labels", "rare labels"}
    shown = moreish("doctor", "data.csv", "--input", "text", "--target", "label").out
    assert "inputs with more than one target: 1" in shown
    done = moreish(
        "train", "data.csv", "--as", "examples", "--validation-file", "val.csv", "--out", "run"
    )
    assert "whose input is in the training split too" in done.out


def test_figures_and_report_of_examples(labels: Run, pairs: Run, moreish: Moreish) -> None:
    done = moreish("figures", labels.path)
    assert done.status == 0 and "confusion.svg" in done.out and "calibration.svg" in done.out
    done = moreish("figures", pairs.path)
    assert done.status == 0 and "cross-attention.svg" in done.out
    assert moreish("report", labels.path).status == 0
    page = (labels.path / "report.html").read_text()
    assert "labels right (%)" in page and "example" in page


def test_cross_attention_is_a_distribution_over_the_input(pairs: Run) -> None:
    (prediction,) = pairs.predict("redblue")
    source = pairs.predictor().encode_input("redblue")
    tokens = np.concatenate([source, prediction.ids])
    for map_HDI in pairs.model.cross_attention(library_tensor(tokens)):
        assert map_HDI.shape[-1] == len(source) - 1
        assert np.allclose(map_HDI.detach().sum(-1), 1, atol=1e-5)


def library_tensor(ids: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(ids.astype(np.int64))[None]


@pytest.fixture(scope="module")
def http(labels: Run, pairs: Run) -> Iterator[httpx.Client]:
    with (
        serving([labels.path, pairs.path]) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        yield client


def test_the_server_predicts_what_python_does(http: httpx.Client, labels: Run, pairs: Run) -> None:
    for run, inputs in ((labels, ["red gold", "blue"]), (pairs, ["redblue", "gold"])):
        body = {"model": run.path.name, "inputs": inputs, "beams": 2, "attention": True}
        answer = http.post("/api/predict", json=body)
        assert answer.status_code == 200, answer.text
        for found, expected in zip(
            answer.json()["predictions"], run.predict(inputs, beams=2), strict=True
        ):
            assert (found["input"], found["target"]) == (expected.input, expected.target)
            assert found["probability"] == pytest.approx(expected.probability, rel=1e-4)
            attention = found["attention"]
            assert (attention is None) == (run is labels)
            if attention is not None:
                assert len(attention["weights"]) == len(attention["target"]) == len(expected.ids)
                assert all(len(row) == len(attention["input"]) for row in attention["weights"])


def test_the_server_shows_mistakes(http: httpx.Client) -> None:
    found = http.get("/api/mistakes", params={"model": "pairs"}).json()
    assert found["examples"] > 0 and found["wrong"] >= len(found["mistakes"])
    assert all(m["target"] != m["predicted"] for m in found["mistakes"])
    assert found["confusion"] is None
    found = http.get("/api/mistakes", params={"model": "labels"}).json()
    assert found["wrong"] == 0 and found["confusion"]["labels"] == ["bad", "good"]


def test_routes_of_texts_refuse_models_of_examples(http: httpx.Client) -> None:
    for path, body in (
        ("/v1/completions", {"model": "labels", "prompt": "a"}),
        ("/api/write", {"model": "labels", "prompt": "a"}),
        ("/api/next", {"model": "labels"}),
        ("/api/surprisal", {"model": "labels", "text": "a"}),
        ("/api/list", {"model": "labels"}),
    ):
        answer = http.post(path, json=body)
        assert answer.status_code == 400 and "/api/predict" in answer.text, path
    answer = http.post("/api/predict", json={"model": "labels", "inputs": ["a"] * 1000})
    assert answer.status_code == 400 and "exceed the limit" in answer.text


def test_the_package_exports_tasks() -> None:
    assert library.tasks.register is register
