"""The native API computes with a text to remember what sampling does."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from moreish import api
from moreish.runs.run import Run
from moreish.serve.http.limits import Limits
from moreish.settings import Tree
from moreish.training.events import ignore
from support.serving import STORY, serving

WORDS = random.Random(0).choices(STORY.replace("€ ", "").split(), k=3000)
BEFORE = " ".join(WORDS[:2] * 100)
PROMPT = WORDS[0] + " "
LIMITS = Limits(prompt_characters=4000)
REACH = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A hybrid of running text with a memory."""
    folder = tmp_path_factory.mktemp("remember")
    (folder / "story.txt").write_text(" ".join(WORDS), encoding="utf-8")
    network: Tree = {"layers": 1, "heads": 2, "width": 16, "context": 16, "positions": "rotary"}
    return api.train(
        folder / "story.txt",
        model="hybrid",
        steps=60,
        kind="text",
        settings={"model": {**network, "memory": REACH}},
        out=folder / "memory",
        report=ignore,
    )


@pytest.fixture(scope="module")
def http(run: Run, served_runs: dict[str, Path]) -> Iterator[httpx.Client]:
    with (
        serving([run.path, served_runs["story"]], limits=LIMITS) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        yield client


def ask(http: httpx.Client, what: str, **body: Any) -> Any:
    answer = http.post(f"/api/{what}", json={"model": "memory", **body})
    assert answer.status_code == 200, answer.text
    if what != "write":
        return answer.json()
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
    return [json.loads(line) for line in lines][:-1]


def generated(events: list[Any]) -> list[Any]:
    return [token for event in events for token in event["tokens"]]


def test_models_say_whether_they_have_a_memory(http: httpx.Client) -> None:
    models = {model["name"]: model for model in http.get("/api/models").json()["models"]}
    assert models["memory"]["memory"] == REACH
    assert REACH < models["memory"]["remember_characters"] < LIMITS.prompt_characters
    assert (models["story"]["memory"], models["story"]["remember_characters"]) == (0, 0)


@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_next_tokens_are_those_of_the_run_and_of_generation(
    http: httpx.Client, run: Run, prompt: str
) -> None:
    found = ask(http, "next", prompt=prompt, remember=BEFORE, top=8)["tokens"]
    expected = run.next(prompt, 8, remember=BEFORE)
    assert [token["id"] for token in found] == [token.id for token in expected]
    shares = [token.probability for token in expected]
    assert [token["p"] for token in found] == pytest.approx(shares, abs=1e-5)
    plain = ask(http, "next", prompt=prompt, top=8)["tokens"]
    assert abs(plain[0]["p"] - found[0]["p"]) > 1e-3
    for nothing in ("", None):
        assert ask(http, "next", prompt=prompt, remember=nothing, top=8)["tokens"] == plain
    first = generated(ask(http, "write", prompt=prompt, remember=BEFORE, max_tokens=1, logprobs=8))[
        0
    ]
    assert [other["id"] for other in first["top"]] == [token["id"] for token in found]
    assert [other["p"] for other in first["top"]] == pytest.approx(shares, abs=1e-5)


def test_a_generated_text_has_the_surprisal_of_its_tokens(http: httpx.Client, run: Run) -> None:
    options: dict[str, Any] = {"remember": BEFORE, "max_tokens": 60, "seed": 5}
    events = ask(http, "write", prompt=PROMPT, **options)
    text = PROMPT + "".join(event["text"] for event in events)
    assert [text] == run.sample(prompt=PROMPT, **options)
    scored = ask(http, "surprisal", text=text, remember=BEFORE)
    nats = [token["nats"] for token in scored["tokens"]]
    expected = [token.nats for token in run.surprisal(text, remember=BEFORE)]
    assert nats == pytest.approx(expected, abs=1e-5)
    assert nats[0] == pytest.approx(
        -math.log(
            next(t.probability for t in run.next(n=99, remember=BEFORE) if t.token == text[0])
        )
    )
    sampled = [-math.log(token["p"]) for token in generated(events)]
    assert nats[len(PROMPT) :] == pytest.approx(sampled, abs=0.02)
    plain = ask(http, "surprisal", text=text)["nats_per_token"]
    assert abs(scored["nats_per_token"] - plain) > 0.02


def test_the_end_of_a_long_text_is_enough(http: httpx.Client) -> None:
    (card, _) = http.get("/api/models").json()["models"]
    long = " ".join(WORDS)[: LIMITS.prompt_characters]
    whole = ask(http, "next", prompt=PROMPT, remember=long)["tokens"]
    end = ask(http, "next", prompt=PROMPT, remember=long[-card["remember_characters"] :])["tokens"]
    assert end == whole
    less = ask(http, "next", prompt=PROMPT, remember=long[-REACH // 2 :])["tokens"]
    assert less != whole


def test_unknown_characters_are_left_out_on_request(http: httpx.Client) -> None:
    known = ask(http, "next", prompt=PROMPT, remember=BEFORE)
    drop = {"remember": f"«{BEFORE}»", "remember_unknown": "drop"}
    assert ask(http, "next", prompt=PROMPT, **drop) == known
    scored = ask(http, "surprisal", text=PROMPT, **drop)
    assert scored == ask(http, "surprisal", text=PROMPT, remember=BEFORE)
    written = ask(http, "write", prompt=PROMPT, seed=1, **drop)
    assert written == ask(http, "write", prompt=PROMPT, seed=1, remember=BEFORE)


@pytest.mark.parametrize("what", ["next", "write", "surprisal"])
@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"model": "story", "remember": "a"}, "remember", "no memory of recent text"),
        (
            {"remember": "a" * 4001},
            "remember",
            "remember: 4,001 characters exceed the limit of 4,000",
        ),
        ({"remember": "«a"}, "remember", "vocabulary: '«'; change the text, or remove unknown"),
        ({"remember": "«a"}, "remember", "with remember_unknown=drop"),
        ({"remember": "« »", "remember_unknown": "drop"}, "remember", "nothing of the text"),
        ({"remember_unknown": "keep"}, "remember_unknown", "'error' or 'drop'"),
        ({"remember": ["a"]}, "remember", "should be a valid string"),
    ],
)
def test_invalid_texts(
    http: httpx.Client, what: str, body: dict[str, Any], param: str, message: str
) -> None:
    text = {"text" if what == "surprisal" else "prompt": "a"}
    answer = http.post(f"/api/{what}", json={"model": "memory", **text, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
