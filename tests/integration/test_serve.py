"""The OpenAI-style API with the official client, access checks, streams and the command."""

import asyncio
import json
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import openapi_spec_validator
import pytest
from pydantic import ValidationError

from conftest import Moreish
from moreish import api
from moreish.errors import MoreishError
from moreish.generate import Sampling
from moreish.runs.run import Run
from moreish.serve.http.limits import Limits
from moreish.serve.openai.schemas import CompletionRequest
from moreish.serve.server import Service, access_rules, is_local, listen
from moreish.training.events import ignore
from support.serving import (
    GENEROUS_DEADLINE_S,
    STORY,
    is_idle,
    read_metrics,
    serving,
    start,
    wait_until,
)

LIMITS = Limits(
    max_tokens=2000, total_tokens=4000, body_bytes=20_000, prompt_characters=5000, stall=1
)


@pytest.fixture(scope="module")
def service(served_runs: dict[str, Path]) -> Iterator[Service]:
    with serving(list(served_runs.values()), slots=8, limits=LIMITS) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as http:
        yield http


def post(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/completions", json={"model": "story", **body})


# --- the official client ---


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["words", "story"]
    assert client.models.retrieve("story").owned_by == "moreish"
    with pytest.raises(
        openai.NotFoundError, match="no model 'storey' is served here; did you mean 'story'"
    ) as error:
        client.models.retrieve("storey")
    assert error.value.code == "model_not_found"
    assert error.value.param == "model"


def test_completions_match_sample(client: openai.OpenAI, served_runs: dict[str, Path]) -> None:
    for name in ("words", "story"):
        run = Run.open(served_runs[name])
        expected = run.sample(3, prompt="a", max_tokens=30, temperature=0.8, top_k=8, seed=3)
        found = client.completions.create(
            model=name,
            prompt="a",
            max_tokens=30,
            temperature=0.8,
            n=3,
            seed=3,
            echo=True,
            extra_body={"top_k": 8},
        )
        assert [choice.text for choice in found.choices] == expected
        assert [choice.index for choice in found.choices] == [0, 1, 2]
        ids = [run.tokenizer.encode(text[1:]) for text in expected]
        assert found.usage is not None
        assert found.usage.prompt_tokens == 1
        assert found.usage.completion_tokens == sum(map(len, ids))
        assert found.usage.total_tokens == 1 + sum(map(len, ids))
        for choice, text in zip(found.choices, ids, strict=True):
            assert choice.finish_reason == ("length" if len(text) == 30 else "stop")


def test_what_is_remembered_is_as_in_sample(tmp_path: Path) -> None:
    words = random.Random(0).choices(STORY.split(), k=3000)
    (tmp_path / "story.txt").write_text(" ".join(words), encoding="utf-8")
    chosen = {"model": {"layers": 1, "heads": 2, "width": 16, "context": 16}}
    run = api.train(
        tmp_path / "story.txt",
        model="hybrid", steps=60, kind="text", settings=chosen, out=tmp_path / "r", report=ignore,
    )  # fmt: skip
    before = " ".join(words[:2] * 100)
    options: dict[str, Any] = {"prompt": words[0], "max_tokens": 30, "seed": 2}
    expected = run.sample(**options, remember=before)
    assert expected != run.sample(**options)
    with serving([run.path]) as service, httpx.Client(base_url=service.url, timeout=30) as http:
        answer = post(http, model="r", echo=True, remember=before, **options)
    assert [choice["text"] for choice in answer.json()["choices"]] == expected


def test_penalties_match_those_of_sample(
    client: openai.OpenAI, served_runs: dict[str, Path]
) -> None:
    run = Run.open(served_runs["story"])
    penalties = {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.2}
    generator = run.text_generator(
        prompt="The ", max_tokens=40, seed=3, sampling=Sampling(min_p=0.02, **penalties)
    )
    found = client.completions.create(
        model="story",
        prompt="The ",
        max_tokens=40,
        seed=3,
        echo=True,
        frequency_penalty=0.5,
        presence_penalty=0.2,
        extra_body={"min_p": 0.02, "repetition_penalty": 1.3},
    )
    assert found.choices[0].text == "".join(generator.stream())


def test_streamed_and_complete_responses_are_equal(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "model": "story",
        "prompt": ["The ", "cat"],
        "max_tokens": 40,
        "seed": 1,
        "n": 2,
        "stop": ["at ", "o t"],
        "logprobs": 3,
    }
    complete = client.completions.create(**options)
    texts, finish, tokens = [""] * 4, [None] * 4, [[] for _ in range(4)]
    usage = None
    for chunk in client.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ):
        assert chunk.object == "text_completion"
        if chunk.usage is not None:
            assert chunk.choices == []
            usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            finish[choice.index] = choice.finish_reason
            assert choice.logprobs is not None
            tokens[choice.index] += choice.logprobs.tokens
    assert texts == [choice.text for choice in complete.choices]
    assert finish == [choice.finish_reason for choice in complete.choices]
    assert usage == complete.usage
    for found, choice in zip(tokens, complete.choices, strict=True):
        assert choice.logprobs is not None
        assert found == choice.logprobs.tokens
        assert not any(stop in choice.text for stop in options["stop"])


def test_logprobs_are_the_models_own(client: openai.OpenAI, served_runs: dict[str, Path]) -> None:
    """For the prompt and the generated text, before temperature."""
    text = "\nThe cat ran to"
    found = client.completions.create(
        model="story", prompt=text, max_tokens=10, temperature=0, echo=True, logprobs=5
    ).choices[0]
    logprobs = found.logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None and logprobs.top_logprobs is not None
    assert logprobs.tokens is not None and logprobs.text_offset is not None
    expected = [-token.nats for token in Run.open(served_runs["story"]).surprisal(found.text[1:])]
    assert logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    assert logprobs.token_logprobs[0] is logprobs.top_logprobs[0] is None  # nothing precedes it
    assert "".join(logprobs.tokens) == found.text
    assert [found.text[at] for at in logprobs.text_offset] == list(found.text)
    for log, top in list(zip(logprobs.token_logprobs, logprobs.top_logprobs, strict=True))[1:]:
        assert len(top) in (5, 6)  # the generated token is always included
        assert log in top.values()
        assert max(top.values()) >= log
    for token, top in list(zip(logprobs.tokens, logprobs.top_logprobs, strict=True))[len(text) :]:
        assert token == max(top, key=lambda name: top[name])  # temperature 0


def test_prompts_may_be_token_ids(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="story", prompt="The", seed=1).choices[0].text
    for prompt in (list(b"The"), [list(b"The")]):
        assert (
            client.completions.create(model="story", prompt=prompt, seed=1).choices[0].text == plain
        )


def test_a_prompt_is_scored_without_generating(client: openai.OpenAI) -> None:
    """Evaluation harnesses use echo and logprobs with max_tokens=0."""
    found = client.completions.create(
        model="story", prompt="The cat", max_tokens=0, echo=True, logprobs=0
    )
    assert found.choices[0].text == "The cat"
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None and found.usage.completion_tokens == 0
    assert found.choices[0].logprobs is not None
    assert len(found.choices[0].logprobs.token_logprobs or []) == 7


def test_logprobs_include_the_generated_end(
    client: openai.OpenAI, served_runs: dict[str, Path]
) -> None:
    """Harnesses that score a prompt request one more token and ignore the last one."""
    tokenizer = Run.open(served_runs["words"]).tokenizer
    choice = client.completions.create(
        model="words", prompt="anana", max_tokens=1, temperature=0, echo=True, logprobs=1
    ).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == [*"anana", "<|endoftext|>"]
    assert len(tokenizer.encode("anana")) == 5
    for token, top in zip(choice.logprobs.tokens, choice.logprobs.top_logprobs or [], strict=True):
        assert token in (top or {})


def test_validation_stops_at_the_first_invalid_element() -> None:
    for wrong in ({}, 0.5, None, True, ["a"], [{}]):
        for key in ("prompt", "stop"):
            with pytest.raises(ValidationError) as error:
                CompletionRequest.model_validate({"model": "m", key: [wrong] * 10_000})
            assert error.value.error_count() < 8


NODE = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0 });
const options = { model: "story", prompt: "The ", max_tokens: 30, seed: 1 };
const whole = await client.completions.create(options);
let streamed = "";
for await (const part of await client.completions.create({ ...options, stream: true }))
  streamed += part.choices[0]?.text ?? "";
let error = null;
try {
  await client.completions.create({ ...options, model: "none" });
} catch (found) {
  error = found;
}
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(JSON.stringify({ whole: whole.choices[0].text, streamed, status: error.status,
  code: error.code, models }));
"""


@pytest.mark.soak
def test_the_javascript_client(service: Service, client: openai.OpenAI, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("there is no npm here")
    subprocess.run(["npm", "install", "--silent", "openai@6"], cwd=tmp_path, check=True)
    (tmp_path / "ask.mjs").write_text(NODE)
    done = subprocess.run(
        ["node", "ask.mjs", service.url], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    expected = client.completions.create(model="story", prompt="The ", max_tokens=30, seed=1)
    assert found["whole"] == found["streamed"] == expected.choices[0].text
    assert (found["status"], found["code"]) == (404, "model_not_found")
    assert found["models"] == ["words", "story"]


# --- invalid requests ---


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"suffix": "x"}, "suffix", "suffix is not supported: leave it out"),
        ({"presence_penalty": 3}, "presence_penalty", "less than or equal to 2"),
        ({"logit_bias": {"5": 3}}, "logit_bias", "not supported"),
        ({"best_of": 4}, "best_of", "not supported"),
        ({"n": 17}, "n", "n: 17 exceeds the limit of 16"),
        ({"n": 0}, "n", "n: Input should be greater than or equal to 1"),
        ({"max_tokens": 2001}, "max_tokens", "2,001 exceeds the limit of 2,000"),
        ({"max_tokens": 1000, "n": 5}, "max_tokens", "the limit of a request is 4,000"),
        (
            {"prompt": ["a" * 60] * 8, "n": 8, "max_tokens": 5, "echo": True, "logprobs": 1},
            "max_tokens",
            "with echo may need 4,160 tokens",
        ),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": "5"}, "max_tokens", "should be a valid integer"),
        ({"logprobs": 21}, "logprobs", "21 exceeds the limit of 20"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"prompt": "x" * 5001}, "prompt", "5,001 characters exceed the limit of 5,000"),
        ({"remember": "a"}, "remember", "no memory of recent text"),
        ({"remember": "x" * 5001}, "remember", "5,001 characters exceed the limit of 5,000"),
        ({"prompt": []}, "prompt", "the list is empty"),
        ({"prompt": ["a"] * 17}, "prompt", "17 prompts exceed the limit of 16"),
        ({"prompt": [1, 999]}, "prompt", "999 is not a token id: there are 256"),
        (
            {"prompt": [1, "a"]},
            "prompt",
            "prompt: Input should be a valid string or a valid integer or a valid list",
        ),
        ({"prompt": "a" * 65, "echo": True, "logprobs": 1}, "prompt", "reads at most 64"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed with stream"),
        ({"temprature": 1}, "temprature", "unknown parameter: temprature"),
        ({"model": None}, "model", "should be a valid string"),
    ],
)
def test_invalid_parameters(http: httpx.Client, body: dict, param: str, message: str) -> None:
    answer = post(http, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_integers_may_have_a_decimal_point(http: httpx.Client) -> None:
    plain = {"prompt": list(b"The"), "max_tokens": 5, "seed": 1, "temperature": 1}
    pointed = {**plain, "prompt": [84.0, 104.0, 101.0], "max_tokens": 5.0, "seed": 1.0}
    assert post(http, **pointed).json()["choices"] == post(http, **plain).json()["choices"]
    assert post(http, max_tokens=5.5).status_code == 400


def test_unknown_characters_are_named(http: httpx.Client) -> None:
    answer = post(http, model="words", prompt="Zoë")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "not in the model's vocabulary: 'Z' 'ë'"


def test_invalid_bodies_and_paths(http: httpx.Client) -> None:
    def post_json(content: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return http.post("/v1/completions", content=content, headers=headers)

    for answer, status, message in (
        (post_json(b"{"), 400, "the body is not valid JSON"),
        (post_json(b"\xff"), 400, "the body is not valid JSON"),
        (post_json(b"[]"), 400, "body"),
        (post_json(b""), 400, "body"),
        (http.post("/v1/completions", content=b"{}"), 415, "must be application/json"),
        (http.post("/v1/completions", data={"model": "story"}), 415, "must be application/json"),
        (http.get("/v1/completions"), 405, "405 Method Not Allowed"),
        (http.get("/v1/nothing"), 404, "404 Not Found"),
        (http.get("/v1/models/..%2f..%2fetc"), 404, "404 Not Found"),
        (http.post("/v1/chat/completions", json={}), 404, "use /v1/completions"),
        (post(http, prompt="x" * 21_000), 413, "at most 20,000 bytes"),
    ):
        assert answer.status_code == status
        assert message in answer.json()["error"]["message"]


def test_a_body_is_read_up_to_the_limit(service: Service) -> None:
    """With a Content-Length and in chunks without end."""
    host, port = service.url.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    for more in ("Content-Length: 100000000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall((head + more).encode())
            sent = 0
            piece = b"1000\r\n" + b"x" * 4096 + b"\r\n" if "chunked" in more else b"x" * 4096
            try:
                while sent < 50_000_000:
                    connection.sendall(piece)
                    sent += 4096
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert sent < 50_000_000


# --- access checks ---


def test_other_host_names_are_rejected(http: httpx.Client) -> None:
    assert http.get("/v1/models", headers={"Host": "localhost:1"}).status_code == 200
    others = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example")
    for host in (*others, "", "[", "@localhost"):
        answer = http.get("/v1/models", headers={"Host": host})
        assert answer.status_code in (400, 421), host
    assert http.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_pages_of_other_origins_are_rejected(http: httpx.Client, service: Service) -> None:
    body = {"model": "words"}
    for origin in ("http://evil.example", "null", "http://localhost:1", "file://"):
        answer = http.post("/v1/completions", json=body, headers={"Origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert (
        http.post("/v1/completions", json=body, headers={"Origin": service.url}).status_code == 200
    )
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        assert http.get("/v1/models", headers={"Sec-Fetch-Site": site}).status_code == status
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    assert http.options("/v1/completions", headers=headers).status_code == 403


def test_every_response_has_security_headers(http: httpx.Client) -> None:
    rejected = http.get("/", headers={"Host": "x"})
    for answer in (http.get("/v1/models"), http.get("/nothing"), rejected):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers


def test_private_paths_need_the_token(served_runs: dict[str, Path]) -> None:
    with serving([served_runs["words"]], slots=2, token="s3cret") as service:
        body = {"model": "words", "max_tokens": 3}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            for path in ("/v1/completions", "/v1/models", "/metrics", "/openapi.json"):
                method = "POST" if path.endswith("completions") else "GET"
                answer = httpx.request(method, service.url + path, json=body, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="s3cret") as client:
            assert client.completions.create(model="words", prompt="").choices[0].finish_reason


def test_listening_beyond_this_machine_needs_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):  # noqa: S104
        with pytest.raises(MoreishError, match="set a --token"):
            access_rules(host, token=None, hosts=[], insecure=False, limits=LIMITS)
        assert access_rules(host, token="x", hosts=[], insecure=False, limits=LIMITS).token == "x"
        assert access_rules(host, token=None, hosts=[], insecure=True, limits=LIMITS).token is None
        assert not is_local(host)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_local(host)
        rules = access_rules(host, token=None, hosts=["My.Box"], insecure=False, limits=LIMITS)
        assert rules.hosts >= {"my.box", "::1"}


def test_messages_have_no_paths(
    http: httpx.Client, service: Service, served_runs: dict[str, Path]
) -> None:
    run = next(iter(service.registry)).run
    message = f"{run.path} has no data, because its model was imported"
    expected = "words has no data, because its model was imported"
    assert service.registry.without_paths(message) == expected
    message = f"{run.path}/data/train.npy is damaged (no such file: '{run.path}/data/train.npy')"
    assert service.registry.without_paths(message) == "words is damaged (no such file: 'words')"


# --- streams, queue and deadlines ---


def test_disconnecting_frees_the_slot(http: httpx.Client, service: Service) -> None:
    body = {"model": "story", "max_tokens": 2000, "temperature": 3, "seed": 1}
    story = service.registry.find("story").engine
    for stream in (True, False):
        before = story.num_generated
        with httpx.Client(base_url=service.url) as other:
            if stream:
                with other.stream(
                    "POST", "/v1/completions", json={**body, "stream": True}
                ) as answer:
                    for _ in zip(range(6), answer.iter_lines(), strict=False):
                        pass
            else:
                with pytest.raises(httpx.ReadTimeout):
                    other.post("/v1/completions", json=body, timeout=0.2)
        wait_until(lambda: is_idle(service))
        assert story.num_generated - before < 2000


def test_a_client_that_does_not_read_is_disconnected(service: Service) -> None:
    """The client keeps the connection open and reads nothing."""
    host, port = service.url.removeprefix("http://").split(":")
    options = {"max_tokens": 1000, "n": 4, "logprobs": 20, "stream": True, "temperature": 3}
    body = json.dumps({"model": "story", **options})
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        story = service.registry.find("story").engine
        wait_until(lambda: story.num_requests == 1)
        wait_until(lambda: is_idle(service))
    assert story.num_requests == 0


def test_a_full_queue_is_429(served_runs: dict[str, Path]) -> None:
    with serving([served_runs["story"]], slots=2, limits=Limits(queue=2)) as service:
        answer = httpx.post(f"{service.url}/v1/completions", json={"model": "story", "n": 5})
        assert answer.status_code == 400  # it could never run
        assert "exceed the limit of 4 texts" in answer.json()["error"]["message"]
        body = {"model": "story", "max_tokens": 4000, "temperature": 3}
        url = f"{service.url}/v1/completions"

        async def main() -> None:
            async with httpx.AsyncClient(timeout=60) as http:
                requests = [asyncio.create_task(http.post(url, json=body)) for _ in range(4)]
                engine = service.registry.find("story").engine
                while engine.num_requests < 4:
                    await asyncio.sleep(0.01)
                for stream in (False, True):
                    refused = await http.post(url, json={**body, "stream": stream})
                    assert refused.status_code == 429
                    assert 1 <= int(refused.headers["retry-after"]) <= 60
                    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
                for task in requests:
                    task.cancel()
                await asyncio.gather(*requests, return_exceptions=True)

        asyncio.run(main())
        wait_until(lambda: is_idle(service))


def test_a_request_past_its_deadline_is_504(served_runs: dict[str, Path]) -> None:
    limits = Limits(seconds=0.3, max_tokens=10**6, total_tokens=10**6)
    with serving([served_runs["story"]], slots=2, limits=limits) as service:
        body: Any = {"model": "story", "prompt": "", "max_tokens": 10**6, "temperature": 3}
        answer = httpx.post(f"{service.url}/v1/completions", json=body)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "deadline_exceeded"
        with httpx.stream(
            "POST", f"{service.url}/v1/completions", json={**body, "stream": True}
        ) as streamed:
            events = [line for line in streamed.iter_lines() if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
        client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="x")
        with client, pytest.raises(openai.APIError, match="exceeded its deadline"):
            list(client.completions.create(**body, stream=True))
        wait_until(lambda: is_idle(service))


def test_health_and_metrics(http: httpx.Client, service: Service) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    before = read_metrics(service.url)
    post(http, max_tokens=7, temperature=0, prompt="The ")
    wait_until(lambda: is_idle(service))
    after = read_metrics(service.url)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('moreish_tokens_total{model="story"}') == 7
    assert grown('moreish_first_token_seconds_count{model="story"}') == 1
    assert grown('moreish_completion_seconds_count{model="story"}') == 1
    # The completion and the first /metrics.
    assert grown('moreish_requests_total{status="200"}') == 2
    assert after['moreish_slots{model="words"}'] == 8
    assert after['moreish_texts_writing{model="story"}'] == 0


def test_the_openapi_document_is_valid(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
    assert "securitySchemes" not in document["components"]
    assert document["info"]["title"] == "Moreish"
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            assert about.get("summary"), (path, method)
            if path.startswith("/v1"):
                assert "#/components/schemas/ErrorBody" in json.dumps(about["responses"]["400"])
            assert {"403", "415", "421"} <= set(about["responses"])
            assert not {"401", "422"} & set(about["responses"])
            assert "security" not in about


def test_the_openapi_document_describes_the_token(tmp_path: Path) -> None:
    with (
        serving([], slots=2, token="secret", home=tmp_path) as service,
        httpx.Client(base_url=service.url) as http,
    ):
        headers = {"Authorization": "Bearer secret"}
        document = http.get("/openapi.json", headers=headers).json()
        openapi_spec_validator.validate(document)
        (scheme,) = document["components"]["securitySchemes"]
        for path, methods in document["paths"].items():
            for method, about in methods.items():
                status = http.request(method, path).status_code
                assert (status == 401) == ("401" in about["responses"]) == ("security" in about)
                assert about.get("security", [{scheme: []}]) == [{scheme: []}]


def test_405_lists_all_methods_of_the_path(tmp_path: Path) -> None:
    with serving([], slots=2, home=tmp_path) as service, httpx.Client() as http:
        for path, methods in (
            ("/api/texts", "GET, POST"),
            ("/api/training", "GET, POST"),
            ("/v1/models/a", "GET"),
            ("/v1/completions", "POST"),
            ("/", "GET, HEAD"),
            ("/openapi.json", "GET, HEAD"),
        ):
            answer = http.options(f"{service.url}{path}")
            assert answer.status_code == 405
            assert answer.headers["allow"] == methods


# --- the command ---


@pytest.mark.usefixtures("quick_processes")
def test_sigterm_lets_open_requests_finish(served_runs: dict[str, Path]) -> None:
    process, url = start(served_runs["story"], "--port", 0)
    assert process.stdout is not None
    # Enough tokens to be open still when the signal comes, and few enough for a busy machine.
    body = {"model": "story", "max_tokens": 500, "temperature": 3}

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{url}/v1/completions", json=body, timeout=GENEROUS_DEADLINE_S)

    with ThreadPoolExecutor() as pool:
        answers = pool.map(ask, range(3))
        wait_until(lambda: read_metrics(url)['moreish_requests_open{model="story"}'] == 3)
        process.send_signal(signal.SIGTERM)
        assert [answer.status_code for answer in answers] == [200] * 3
    assert process.wait(GENEROUS_DEADLINE_S) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.stdout.read()
    process.stdout.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_command_line_errors(
    moreish: Moreish, served_runs: dict[str, Path], tmp_path: Path
) -> None:
    before = threading.active_count()
    run = served_runs["words"]
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        for arguments, message in (
            ((run, "--port", taken.getsockname()[1]), "choose another --port"),
            ((tmp_path / "none",), "no run at"),
            ((run, "--host", "0.0.0.0", "--port", 0), "set a --token"),  # noqa: S104
            ((run, run, "--port", 0), "rename one folder"),
            ((run, "--limit", "max_token=3"), "did you mean 'max_tokens'"),
        ):
            result = moreish("serve", *arguments)
            assert result.status == 2
            assert message in result.err
    assert threading.active_count() == before
