"""The native API returns the same numbers as the Python functions and rejects invalid requests."""

import json
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from conftest import ROOT
from moreish import api
from moreish.errors import MoreishError
from moreish.generate.sampling import Sampling, sampling_probabilities
from moreish.runs.run import Run
from moreish.serve.http.limits import Limits
from moreish.serve.native import beginnings, inspect, lists
from moreish.serve.server import Service
from moreish.training.events import ignore
from support.serving import NAMES, is_idle, num_tasks, serving, wait_until

LIMITS = Limits(prompt_characters=2000, max_tokens=200, total_tokens=3000, queue=24)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, served_runs: dict[str, Path], small_run: Run
) -> dict[str, Run]:
    """The runs of `make_runs`, a GPT of a list, a hybrid, and a model without data."""
    folder = tmp_path_factory.mktemp("native")
    names = shutil.copytree(small_run.path, folder / "names")
    source = served_runs["words"].with_name("words.txt")
    settings = {"model": {"layers": 2, "heads": 2, "width": 16, "context": 16}}
    both = api.train(
        source, model="hybrid", steps=4, settings=settings, out=folder / "both", report=ignore
    )
    words, story = Run.open(served_runs["words"]), Run.open(served_runs["story"])
    nothing: Any = {"tokens": {}, "sha256": {}, "split_documents": None}
    bare = Run.create(
        folder / "bare",
        story.config,
        story.tokenizer,
        {},
        story.record.data.model_copy(update=nothing),
        overwrite=False,
    )
    bare.save_weights(story.model)
    bare.update(status="finished")
    return {
        "words": words, "story": story, "names": Run.open(names), "both": both, "bare": bare
    }  # fmt: skip


@pytest.fixture(scope="module")
def service(runs: dict[str, Run]) -> Iterator[Service]:
    paths = [run.path for run in runs.values()]
    with serving(paths, slots=8, limits=LIMITS) as service:
        yield service


class Native:
    """A client whose requests must succeed."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def get(self, what: str, **query: str) -> Any:
        answer = self.http.get(f"/api/{what}", params=query or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask(self, what: str, **body: Any) -> Any:
        answer = self.http.post(f"/api/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def native(service: Service) -> Iterator[Native]:
    with httpx.Client(base_url=service.url, timeout=60) as http:
        yield Native(http)


# --- models ---


def test_models(native: Native, runs: dict[str, Run]) -> None:
    found = native.get("models")
    assert found["training"] is False
    assert found["version"]
    models = {model["name"]: model for model in found["models"]}
    assert list(models) == list(runs)
    names, run = models["names"], runs["names"]
    assert names["losses"]["val"] == run.scores["val"].loss
    assert names["bits_per_byte"] == run.scores["val"].bits_per_byte
    assert names["parameters"] == run.model.num_parameters()
    assert (names["kind"], names["architecture"], names["tokenizer"]) == ("lines", "gpt", "char")
    assert (names["layers"], names["heads"]) == (1, 2)
    assert names["vocabulary"] == run.tokenizer.vocab_size
    assert names["context"] == run.model.context
    has = {name: {what for what, there in m["has"].items() if there} for name, m in models.items()}
    everything = {"data", "attention", "embedding", "pairs", "novelty", "history"}
    assert has["names"] == has["story"] == has["both"] == everything
    assert has["words"] == {"data", "pairs", "novelty"}
    assert has["bare"] == {"attention", "embedding"}
    assert models["words"]["layers"] is models["words"]["heads"] is None
    assert (models["both"]["layers"], models["both"]["heads"]) == (2, 2)
    assert models["bare"]["losses"] == {"train": None, "val": None}


# --- probabilities ---


@pytest.mark.parametrize(
    ("model", "text"), [("story", "The cat € ran"), ("names", "emma"), ("words", "belo")]
)
def test_surprisal(native: Native, runs: dict[str, Run], model: str, text: str) -> None:
    found, run = native.ask("surprisal", model=model, text=text), runs[model]
    expected = run.surprisal(text)
    assert [token["label"] for token in found["tokens"]] == [token.token for token in expected]
    nats = [token.nats for token in expected]
    assert [token["nats"] for token in found["tokens"]] == pytest.approx(nats, abs=1e-5)
    assert found["nats_per_token"] == pytest.approx(np.mean(nats))
    characters = len(text) + (run.kind == "lines")
    assert found["bits_per_character"] == pytest.approx(sum(nats) / np.log(2) / characters)
    ids = np.array([token["id"] for token in found["tokens"]])
    assert run.tokenizer.decode(ids) == text
    shown = "".join(token["text"] for token in found["tokens"] if token["text"] is not None)
    assert shown == text.replace("€", "")  # its bytes are not text
    assert [token["text"] for token in found["tokens"]].count(None) == 3 * ("€" in text)


@pytest.mark.parametrize("model", ["words", "story", "names", "both"])
def test_next_token(native: Native, runs: dict[str, Run], model: str) -> None:
    run, prompt = runs[model], "an"
    ids = np.concatenate(
        [run.initial_context(run.tokenizer.encode(prompt)), run.tokenizer.encode(prompt)]
    )
    with torch.inference_mode():
        logits_1V = run.model(torch.from_numpy(ids)[None])[0][:, -1]
    p_V = logits_1V.softmax(dim=-1)[0]
    settings = {"temperature": 0.7, "top_k": 8, "top_p": 0.99}
    q_V = sampling_probabilities(logits_1V, Sampling.parse(settings, "sample"))[0]
    found = native.ask("next", model=model, prompt=prompt, top=4, **settings)
    assert found["vocabulary"] == len(p_V)
    assert len(found["tokens"]) == 4
    for token in found["tokens"]:
        assert token["p"] == pytest.approx(float(p_V[token["id"]]), abs=1e-5)
        assert token["q"] == pytest.approx(float(q_V[token["id"]]), abs=1e-5)
        assert token["label"] == run.tokenizer.label(token["id"])
    shares = [token["p"] for token in found["tokens"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(float(p_V.max()), abs=1e-5)
    for which in "pq":
        assert sum(share[which] for share in [*found["tokens"], found["rest"]]) == pytest.approx(1)
    by_ids = native.ask(
        "next", model=model, prompt=run.tokenizer.encode(prompt).tolist(), top=4, **settings
    )
    assert by_ids == found


def test_next_matches_generation(native: Native, runs: dict[str, Run]) -> None:
    """For a prompt that is longer than the context, and for none."""
    for model, prompt in (("story", "The cat sat. " * 20), ("names", ""), ("words", "ca" * 30)):
        predicted = native.ask("next", model=model, prompt=prompt, top=3)["tokens"]
        first = events(native, model=model, prompt=prompt, max_tokens=1, logprobs=3)[0]
        if not first["tokens"]:  # the text ended at once
            continue
        top = first["tokens"][0]["top"]
        assert [other["id"] for other in top] == [token["id"] for token in predicted]
        shares = [token["p"] for token in predicted]
        assert [other["p"] for other in top] == pytest.approx(shares, abs=1e-4)


def test_temperature_zero_leaves_one_token(native: Native) -> None:
    found = native.ask("next", model="names", temperature=0, top=3)
    assert [token["q"] for token in found["tokens"]] == [1, 0, 0]
    assert found["rest"]["q"] == 0 < found["rest"]["p"]
    everything = native.ask("next", model="words", top=1000)
    assert len(everything["tokens"]) == everything["vocabulary"]


# --- writing ---


def events(native: Native, **body: Any) -> list[Any]:
    answer = native.http.post("/api/write", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_write_matches_completions(native: Native, runs: dict[str, Run]) -> None:
    body: dict[str, Any] = {"model": "story", "prompt": "The ", "n": 2, "max_tokens": 40}
    body |= {"seed": 1, "logprobs": 3, "echo": True, "temperature": 1.5}
    *steps, done = events(native, **body)
    complete = native.http.post("/v1/completions", json=body).json()
    assert done == {"done": True, "usage": complete["usage"]}
    for choice in complete["choices"]:
        own = [step for step in steps if step["place"] == choice["index"]]
        assert len(own) > 30  # step by step
        assert "".join(step["text"] for step in own) == choice["text"]
        assert own[-1]["finish"] == choice["finish_reason"]
        assert all(step["finish"] is None for step in own[:-1])
        tokens = [token for step in own for token in step["tokens"]]
        logs = choice["logprobs"]["token_logprobs"]
        assert tokens[0]["p"] is logs[0] is None
        shares = [token["p"] for token in tokens[1:]]
        assert shares == pytest.approx(np.exp(logs[1:]).tolist())
        assert [token["offset"] for token in tokens] == choice["logprobs"]["text_offset"]
        for token in tokens:
            assert token["label"] == runs["story"].tokenizer.label(token["id"])
            assert set(token["top"][0] if token["top"] else {}) <= {"id", "text", "label", "p"}
        assert [len(token["top"]) for token in tokens[1:]] == [3] * (len(tokens) - 1)


def test_write_does_not_report_the_boundary(native: Native) -> None:
    body = {"model": "words", "prompt": "anana", "temperature": 0, "max_tokens": 9, "logprobs": 1}
    last = events(native, **body)[-2]
    assert (last["finish"], last["tokens"]) == ("stop", [])
    logprobs = native.http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    assert logprobs["tokens"][-1] == "<|endoftext|>"


def test_write_reports_tokens_unless_logprobs_is_null(native: Native) -> None:
    plain = events(native, model="story", prompt="A", max_tokens=5, seed=2)
    assert [len(step["tokens"]) for step in plain[:-1]] == [1] * (len(plain) - 1)
    assert plain[0]["tokens"][0]["top"] == []
    bare = events(native, model="story", prompt="A", max_tokens=5, seed=2, logprobs=None)
    assert [step["text"] for step in bare[:-1]] == [step["text"] for step in plain[:-1]]
    assert all(step["tokens"] == [] for step in bare[:-1])
    answer = native.http.post("/api/write", json={"model": "story", "stream": True})
    assert answer.json()["error"]["message"] == "unknown parameter: stream"


# --- inside the model ---


@pytest.mark.parametrize("model", ["names", "story", "both", "bare"])
def test_attention(native: Native, runs: dict[str, Run], model: str) -> None:
    """The maps times the values give what the forward pass computed."""
    run, text = runs[model], "cana" if model != "story" else "The cat sat on the mat. " * 20
    layer = 0 if model == "names" else 1
    found = native.ask("attention", model=model, text=text, layer=layer)
    ids = run.tokenizer.encode(text)
    ids_T = np.concatenate([run.initial_context(ids), ids])[-run.model.context :]
    assert found["tokens"] == [run.tokenizer.label(int(token)) for token in ids_T]
    assert found["total"] == len(run.initial_context(ids)) + len(ids) >= len(ids_T)
    assert len(found["maps"]) == found["heads"] == 2
    network = run.model.network if model == "both" else run.model
    assert found["layers"] == len(network.blocks)
    maps_HTT = torch.tensor(found["maps"], dtype=torch.float64)
    assert maps_HTT.sum(dim=-1) == pytest.approx(1, abs=1e-4 * len(ids_T))
    assert not maps_HTT.triu(1).any()
    attention = network.blocks[layer].attention
    seen: list[Any] = []
    hooks = [
        attention.register_forward_hook(lambda module, given, gave: seen.append(gave[1][1])),
        attention.out.register_forward_pre_hook(lambda module, given: seen.append(given[0])),
    ]
    with torch.inference_mode():
        run.model(torch.from_numpy(ids_T)[None])
    for hook in hooks:
        hook.remove()
    gathered_BTC, v_BHTD = seen
    expected_TC = (maps_HTT.float() @ v_BHTD[0]).transpose(0, 1).flatten(1)
    assert torch.allclose(expected_TC, gathered_BTC[0], atol=5e-3)


def test_embedding(native: Native, runs: dict[str, Run]) -> None:
    run = runs["names"]
    found = native.get("embedding", model="names")
    tokens = found["tokens"]
    ids = run.split("train").ids_N[:-1].tolist()
    assert {token["id"]: token["count"] for token in tokens} == {
        **dict.fromkeys(range(run.tokenizer.vocab_size), 0),
        **Counter(ids),
    }
    counts = [token["count"] for token in tokens]
    assert counts == sorted(counts, reverse=True)
    weight_VC = run.model.embedding.weight.detach().double().numpy()
    weight_VC = weight_VC[[token["id"] for token in tokens]]
    spread = np.linalg.eigvalsh(np.cov(weight_VC.T))[::-1]
    assert found["explained_variance_ratio"] == pytest.approx((spread / spread.sum())[:2], rel=1e-4)
    for axis, width in zip("xy", spread, strict=False):
        assert np.var([token[axis] for token in tokens], ddof=1) == pytest.approx(width, rel=1e-4)
    unknown = native.get("embedding", model="bare")
    assert [token["count"] for token in unknown["tokens"]] == [None] * 256
    unit_VC = weight_VC / np.linalg.norm(weight_VC, axis=1, keepdims=True)
    for row, token in enumerate(tokens):
        similarity = {at: unit_VC[row] @ unit for at, unit in enumerate(unit_VC) if at != row}
        neighbors = token["neighbors"]
        assert len(neighbors) == inspect.MAX_NEIGHBORS
        expected = sorted(similarity.values(), reverse=True)[: len(neighbors)]
        assert [one["similarity"] for one in neighbors] == pytest.approx(expected, abs=1e-5)
        for one in neighbors:
            assert one["similarity"] == pytest.approx(similarity[one["index"]], abs=1e-5)


def test_beginnings(native: Native) -> None:
    assert native.get("beginnings", model="story")["texts"] == ["The cat sat "]
    for model in ("names", "bare"):
        assert native.get("beginnings", model=model)["texts"] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("To be, or not to be\n", "To be, or "),
        ("ROMEO:\n", "ROMEO:\n"),
        ("ROMEO: \n", "ROMEO:\n"),
        ("  indented line of code\n", ""),
        ("a  b c\n", ""),
        ("\n", ""),
        ("* * *\n", ""),
    ],
)
def test_the_beginning_of_a_line(line: str, expected: str) -> None:
    assert beginnings._beginning(line) == expected


def test_pairs(native: Native, runs: dict[str, Run]) -> None:
    run = runs["names"]
    found = native.get("pairs", model="names")
    items = run.training_bytes.decode().split("\n")
    pairs = Counter(pair for item in items for pair in zip("·" + item, item + "·", strict=True))
    labels = found["labels"]
    assert set(labels) == {"·", *"".join(items)}
    assert found["counts"] == [[pairs[row, column] for column in labels] for row in labels]
    expected = torch.tensor(found["expected"])
    assert expected.sum(dim=1) == pytest.approx(1, abs=1e-5)  # here, all tokens are shown
    row = labels.index("a")
    ids = run.tokenizer.encode("a")
    with torch.inference_mode():
        shares_V = run.model(torch.from_numpy(ids)[None])[0][0, 0].softmax(dim=-1)
    assert expected[row].sort()[0] == pytest.approx(shares_V.sort()[0], abs=1e-6)


def test_few_pairs_of_many_tokens(native: Native, runs: dict[str, Run]) -> None:
    found = native.get("pairs", model="story")
    assert len(found["labels"]) == len(found["counts"]) == len(found["counts"][0]) == 30
    data = runs["story"].training_bytes
    space, t = found["labels"].index("␣"), found["labels"].index("t")
    assert found["counts"][space][t] == data.count(b" t")


def test_history(native: Native, runs: dict[str, Run]) -> None:
    run = runs["names"]
    found = native.get("history", model="names")
    logged = list(run.read_metrics())
    losses = [{"step": e["step"], "loss": e["loss"]} for e in logged if "loss" in e]
    assert found["steps"] == losses != []
    vals = [(e["step"], e["val"]["loss"]) for e in logged if "val" in e]
    assert [(e["step"], e["val"]) for e in found["evaluations"]] == vals != []
    assert found["samples"][-1]["text"].split("\n") == logged[-1]["samples"]
    assert found["settings"]["model"]["width"] == 16
    assert found["settings"]["train"]["steps"] == 60
    assert found["tokens_per_step"] == round(
        max(e["tokens"] for e in logged if "tokens" in e) / found["steps"][-1]["step"]
    )
    val = next(e["val"] for e in logged if "val" in e)  # the factor is the same for all of them
    assert found["bits_per_byte"] == pytest.approx(val["bits_per_byte"] / val["loss"])
    counted = native.get("history", model="words")
    assert counted["steps"] == [] and counted["bits_per_byte"] is None


# --- lists and novelty ---


@pytest.mark.parametrize(
    "options",
    [
        {"n": 50, "seed": 3},  # more than the queue holds
        {"n": 10, "seed": 1, "new_only": True, "unique": True, "temperature": 1.3},
        {"n": 6, "seed": 2, "starts": "b", "ends": "a", "unique": True},
        {"n": 5, "seed": 4, "regex": "(an|be).*", "length": "3..6", "top_k": 9},
        {"n": 3, "seed": 5, "contains": "el", "temperature": 0},
    ],
)
def test_lists_match_sample(native: Native, runs: dict[str, Run], options: dict[str, Any]) -> None:
    as_sampled = {"prompt" if key == "starts" else key: value for key, value in options.items()}
    for name in ("words", "names"):
        found = native.ask("list", model=name, **options)
        run = runs[name]
        assert found["seed"] == options["seed"]
        assert [item["text"] for item in found["items"]] == run.sample(**as_sampled)
        for item in found["items"]:
            assert item["known"] == (item["text"].encode() in run.training_index)
            assert (item["nearest"], item["distance"]) == run.nearest_item_index.nearest(
                item["text"]
            )


def test_a_list_may_be_shorter(native: Native) -> None:
    """If fewer items match, it returns those."""
    found = native.ask("list", model="words", n=5, regex="an[ae]na", unique=True)
    assert {item["text"] for item in found["items"]} == {"anana", "anena"}
    again = native.ask("list", model="words", n=5, regex="an[ae]na", seed=found["seed"])
    assert {item["text"] for item in again["items"]} <= {"anana", "anena"}
    assert len(again["items"]) == 5
    both = {"starts": "anana", "length": "5", "new_only": True}
    answer = native.http.post("/api/list", json={"model": "words", "n": 2, **both})
    assert answer.status_code == 400
    assert "no item found in 144 attempts" in answer.json()["error"]["message"]


def test_a_list_has_a_limit_of_tokens(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the limit of attempts."""
    monkeypatch.setattr(lists, "ATTEMPTS_PER_ITEM", 10**9)
    monkeypatch.setattr(lists, "LIST_FACTOR", 0.2)
    options = {"n": 2, "unique": True, "temperature": 0}
    assert len(native.ask("list", model="names", **options)["items"]) == 1


def test_novelty(native: Native, runs: dict[str, Run]) -> None:
    texts = {
        "words": [NAMES[3], "zzz", "anan", ""],
        "story": ["The cat sat", "a € and 😀!", "A dog?"],
    }
    for model, some in texts.items():
        found = native.ask("novelty", model=model, texts=some)["texts"]
        assert found == [vars(one) for one in runs[model].novelty(some)]


def test_missing_libraries(
    native: Native, monkeypatch: pytest.MonkeyPatch, runs: dict[str, Run]
) -> None:
    for library in ("pydivsufsort", "rapidfuzz.distance", "greenery"):
        monkeypatch.setitem(sys.modules, library, None)
    for what, body in (("novelty", {"texts": ["a"]}), ("list", {"ends": "a"})):
        answer = native.http.post(f"/api/{what}", json={"model": "both", **body})
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert "needs a library (" in message
        assert message.endswith("pip install 'moreish[analysis]'")
    (item,) = native.ask("list", model="both", n=1, seed=0)["items"]
    assert [item["text"]] == runs["both"].sample(1, seed=0)
    assert item["nearest"] is item["distance"] is None


# --- concurrency ---


def test_views_do_not_change_generation(native: Native, runs: dict[str, Run]) -> None:
    """All requests run at the same time on the same models."""
    body = {"prompt": "a", "n": 4, "max_tokens": 30, "seed": 7}
    text = "The cat sat on the mat."

    def look(_: int) -> list[Any]:
        return [
            native.ask("attention", model="story", text=text, layer=1),
            native.ask("surprisal", model="both", text="anana"),
            native.ask("next", model="both", prompt="be"),
            native.ask("list", model="both", n=2, ends="a", seed=1),
            sorted(events(native, model="story", **body), key=lambda event: event.get("place", 9)),
            native.http.post("/v1/completions", json={"model": "both", **body}).json()["choices"],
        ]

    alone = look(0)
    with ThreadPoolExecutor(3) as pool:
        for together in pool.map(look, range(3)):
            assert together == alone


def test_disconnecting_cancels_a_list(service: Service, native: Native) -> None:
    with pytest.raises(httpx.ReadTimeout):
        body = {"model": "names", "n": 128, "regex": ".*a.*e.*", "new_only": True, "unique": True}
        native.http.post("/api/list", json=body, timeout=0.2)
    wait_until(lambda: is_idle(service))
    before = service.registry.find("names").engine.num_generated
    time.sleep(0.1)
    assert service.registry.find("names").engine.num_generated == before


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Block the computations of `Run` until the end of the test; returns those that began."""
    begun: list[Any] = []
    release = threading.Event()

    def block(*arguments: Any, **options: Any) -> Any:
        begun.append(arguments)
        release.wait()
        raise MoreishError("released")

    for name in ("surprisal", "novelty", "read_metrics"):
        monkeypatch.setattr(Run, name, block)
    yield begun
    release.set()


def test_work_of_disconnected_clients_does_not_start(
    blocked: list[Any], native: Native, service: Service
) -> None:
    before = num_tasks(service)

    def disconnect_soon(_: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            native.http.post("/api/surprisal", json={"model": "names", "text": "emma"}, timeout=0.2)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(disconnect_soon, range(16)))
    wait_until(lambda: blocked and num_tasks(service) == before)
    assert len(blocked) == 1


def test_background_work_has_a_deadline(runs: dict[str, Run], blocked: list[Any]) -> None:
    with (
        serving([runs["names"].path], slots=2, limits=Limits(seconds=0.1)) as service,
        httpx.Client(base_url=service.url) as http,
    ):
        answers = [
            http.get("/api/history", params={"model": "names"}),
            http.post("/api/novelty", json={"model": "names", "texts": ["emma"]}),
        ]
    for answer in answers:
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "deadline_exceeded"


# --- documentation ---

ROW = r"^\| `(GET|POST) /api/(\w+)` \| (?:`(.*?)` )?\| (.*?) \| .* \|$"


def test_the_examples_in_the_documentation(native: Native) -> None:
    """Each example works and its response has the documented fields."""
    page = (ROOT / "docs/serving.md").read_text("utf-8")
    ours = page.replace("names-gpt", "names").replace("lyrics", "story")
    rows = re.findall(ROW, ours, re.M)
    assert len(rows) == 11
    for method, what, example, fields in rows:
        keys = set(re.findall(r"`(\w+)`", fields))
        if what == "write":
            *steps, done = events(native, **json.loads(example))
            assert set(steps[0]) | set(done) == keys
        elif method == "POST":
            assert set(native.ask(what, **json.loads(example))) == keys
        else:
            assert set(native.get(f"{what}{example}")) == keys


# --- invalid requests ---


@pytest.mark.parametrize(
    ("what", "body", "param", "message"),
    [
        ("surprisal", {"model": "words", "text": "Zoë"}, "text", "vocabulary: 'Z' 'ë'"),
        ("surprisal", {"text": ""}, "text", "at least 1 character"),
        ("surprisal", {"text": "a" * 2001}, "text", "2,001 characters exceed the limit of 2,000"),
        ("next", {"prompt": [999]}, "prompt", "999 is not a token id"),
        ("next", {"prompt": "a" * 2001}, "prompt", "the limit of 2,000"),
        ("next", {"top": 1001}, "top", "less than or equal to 1000"),
        ("next", {"temperature": -1}, "temperature", "greater than or equal to 0"),
        (
            "attention",
            {"text": "a", "layer": 2},
            "layer",
            "2 does not exist; the model has 2, counted from 0",
        ),
        ("attention", {"text": "a", "layer": -1}, "layer", "greater than or equal to 0"),
        ("attention", {"model": "words", "text": "a"}, "model", "words has no attention"),
        ("attention", {"text": "a" * 2001}, "text", "the limit of 2,000"),
        ("list", {}, "model", "story is a model of running text"),
        ("list", {"model": "words", "n": 129}, "n", "129 exceeds the limit of 128"),
        ("list", {"model": "words", "n": 0}, "n", "greater than or equal to 1"),
        ("list", {"model": "words", "starts": "Z"}, "starts", "vocabulary: 'Z'"),
        (
            "list",
            {"model": "words", "ends": "Z"},
            "ends",
            "ends Z: not in the model's vocabulary: 'Z'",
        ),
        ("list", {"model": "words", "regex": "(a"}, "regex", "regex (a: invalid pattern"),
        ("list", {"model": "words", "regex": ".*a.{20}"}, "regex", "too many states"),
        ("list", {"model": "words", "contains": "a" * 501}, "contains", "more than 500 characters"),
        ("list", {"model": "words", "length": "x"}, "length", "write 5, 3..7"),
        ("list", {"model": "words", "length": "2", "ends": "nana"}, "ends", "cannot generate any"),
        ("list", {"model": "words", "seed": -1}, "seed", "greater than or equal to 0"),
        ("novelty", {"texts": []}, "texts", "at least 1 item"),
        ("novelty", {"texts": ["a"] * 65}, "texts", "at most 64 items"),
        (
            "novelty",
            {"texts": ["a" * 1001] * 2},
            "texts",
            "2,002 characters exceed the limit of 2,000",
        ),
        ("write", {"max_tokens": 201}, "max_tokens", "201 exceeds the limit of 200"),
        ("write", {"nonsense": 1}, "nonsense", "unknown parameter: nonsense"),
    ],
)
def test_invalid_parameters(
    native: Native, what: str, body: dict[str, Any], param: str, message: str
) -> None:
    answer = native.http.post(f"/api/{what}", json={"model": "story", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]


@pytest.mark.parametrize(
    ("what", "body", "param"),
    [
        ("list", '{"model": "words", "contains": "a\\ud800"}', "contains"),
        ("list", '{"model": "words", "length": "\\ud800"}', "length"),
        ("list", '{"model": "words", "regex": "\\udfff"}', "regex"),
        ("novelty", '{"model": "words", "texts": ["a", "\\ud800"]}', "texts"),
        ("novelty", '{"model": "\\ud800", "texts": ["a"]}', "model"),
        ("write", '{"model": "words", "logit_bias": {"\\ud800": 1}}', "logit_bias"),
        ("write", '{"model": "words", "\\ud800": 1}', None),
        ("write", f'{{"model": "words", "prompt": {"[" * 600}{"]" * 600}}}', "prompt"),
    ],
)
def test_invalid_json_values(native: Native, what: str, body: str, param: str) -> None:
    """JSON allows lone surrogates and unlimited nesting."""
    json_type = {"Content-Type": "application/json"}
    answer = native.http.post(f"/api/{what}", content=body, headers=json_type)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    pair = '{"model": "story", "prompt": "\\ud83d\\ude00"}'  # a surrogate pair is one character
    answer = native.http.post("/api/next", content=pair, headers=json_type)
    assert answer.status_code == 200


def test_unknown_models(native: Native) -> None:
    for what in ("embedding", "pairs", "history"):
        answer = native.http.get(f"/api/{what}", params={"model": "storey"})
        assert answer.status_code == 404
        assert "did you mean 'story'" in answer.json()["error"]["message"]
        assert native.http.get(f"/api/{what}").status_code == 400
    for what, more in (("surprisal", {"text": "a"}), ("next", {}), ("write", {}), ("list", {})):
        answer = native.http.post(f"/api/{what}", json={"model": "no/../such", **more})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"


def test_a_model_without_data(native: Native, runs: dict[str, Run]) -> None:
    assert native.ask("next", model="bare", prompt="The")["tokens"]
    assert native.ask("surprisal", model="bare", text="The")["tokens"]
    for answer in (
        native.http.get("/api/pairs", params={"model": "bare"}),
        native.http.post("/api/novelty", json={"model": "bare", "texts": ["a"]}),
    ):
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert message == "the training data of bare are not available here"
    answer = native.http.get("/api/embedding", params={"model": "words"})
    assert answer.json()["error"]["message"] == "words has no embedding"


def test_data_that_are_removed_while_served(runs: dict[str, Run], tmp_path: Path) -> None:
    paths = [shutil.copytree(runs[name].path, tmp_path / name) for name in ("words", "names")]
    with serving(paths, slots=2) as service, httpx.Client(base_url=service.url) as http:
        native = Native(http)

        def has(place: int) -> dict[str, bool]:
            return native.get("models")["models"][place]["has"]

        held = native.ask("novelty", model="names", texts=["emma"])
        assert has(0)["data"] and has(0)["novelty"]
        for path in paths:
            shutil.rmtree(path)
        assert not (has(0)["data"] or has(0)["pairs"] or has(0)["novelty"])
        (item,) = native.ask("list", model="words", n=1, seed=1)["items"]
        assert item["text"]
        assert item["known"] is item["nearest"] is item["distance"] is None
        answers = [
            http.get("/api/pairs", params={"model": "words"}),
            http.post("/api/novelty", json={"model": "words", "texts": ["a"]}),
            http.post("/api/list", json={"model": "words", "contains": "a"}),
            http.post("/api/list", json={"model": "words", "new_only": True}),
        ]
        for answer in answers:
            assert answer.status_code == 400
            message = answer.json()["error"]["message"]
            assert message == "the training data of words are not available here"
        # What was loaded is still in memory.
        assert native.ask("novelty", model="names", texts=["emma"]) == held
        assert has(1)["data"]


def test_embeddings_do_not_need_data(runs: dict[str, Run], tmp_path: Path) -> None:
    path = shutil.copytree(runs["names"].path, tmp_path / "names")
    with serving([path], slots=2) as service, httpx.Client(base_url=service.url) as http:
        native = Native(http)
        native.get("models")
        (path / "data" / "train.npy").rename(path / "train.npy")
        tokens = native.get("embedding", model="names")["tokens"]
        assert {token["count"] for token in tokens} == {None}
        (path / "train.npy").rename(path / "data" / "train.npy")
        tokens = native.get("embedding", model="names")["tokens"]
        assert tokens[0]["count"] > tokens[-1]["count"] >= 0


def test_large_data_are_not_searched(
    native: Native, monkeypatch: pytest.MonkeyPatch, runs: dict[str, Run]
) -> None:
    characters = runs["words"].record.data.characters
    monkeypatch.setattr(inspect, "MAX_SEARCHABLE_TOKENS", characters - 1)
    for what, body in (("novelty", {"texts": ["a"]}), ("list", {"new_only": True})):
        answer = native.http.post(f"/api/{what}", json={"model": "words", **body})
        assert answer.status_code == 400
        assert (
            f"of words have {characters:,} characters; at most" in answer.json()["error"]["message"]
        )
    assert native.ask("list", model="words", n=1)["items"]


def test_large_models_score_shorter_texts(
    native: Native, monkeypatch: pytest.MonkeyPatch, runs: dict[str, Run]
) -> None:
    parameters = sum(p.numel() for p in runs["story"].model.parameters())
    monkeypatch.setattr(inspect, "MAX_SURPRISAL_OPERATIONS", 10 * (parameters + 16 * 256))
    assert native.ask("surprisal", model="story", text="a" * 10)
    answer = native.http.post("/api/surprisal", json={"model": "story", "text": "a" * 11})
    assert answer.json()["error"]["message"] == "text: 11 tokens exceed this model's limit of 10"
