"""Training through the server: upload, audit, plan, train, stop, resume."""

import asyncio
import errno
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from moreish import api
from moreish.evaluate import Score
from moreish.runs.paths import training_lock
from moreish.runs.record import DatasetInfo
from moreish.runs.run import Run
from moreish.serve.http.limits import Limits
from moreish.serve.jobs.uploads import MAX_NAME_LENGTH, NAME_PATTERN, is_valid_name
from moreish.serve.jobs.worker import EventWriter, training_result
from moreish.serve.server import Service
from moreish.training.events import Evaluated, Note, Progress, Sampled, Started, Step, ignore
from moreish.utils.files import write_all
from support.serving import GENEROUS_DEADLINE_S, NAMES, STORY, serving, wait_until

pytestmark = pytest.mark.usefixtures("quick_processes")

LIMITS = Limits(upload_bytes=100_000)
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    with serving([], slots=2, limits=LIMITS, home=home) as service:
        yield service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as http:
        yield http


def upload(http: httpx.Client, name: str, content: bytes) -> httpx.Response:
    return http.post("/api/texts", params={"name": name}, content=content, headers=BYTES)


def training_until(
    http: httpx.Client, condition: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Wait until the state of the run meets a condition and return it."""
    states: list[dict[str, Any]] = []

    def is_met() -> bool:
        states.append(http.get("/api/training").json())
        return condition(states[-1])

    wait_until(is_met)
    return states[-1]


def test_upload_audit_plan_train_and_sample(http: httpx.Client, home: Path) -> None:
    assert http.get("/api/training").json()["status"] == "none"
    assert http.get("/api/training/history").status_code == 404
    text = "\n".join(NAMES * 30).encode()
    stored = {"name": "names.txt", "bytes": len(text), "columns": []}
    assert upload(http, "names.txt", text).json() == stored
    assert http.get("/api/texts").json()["texts"] == [stored]
    found = http.post("/api/doctor", json={"text": "names.txt"}).json()
    assert found["facts"]["kind"] == "lines"
    assert any("--dedup" in finding["fix"] for finding in found["findings"])
    assert str(home) not in json.dumps(found)
    plan = http.post("/api/plan", json={"text": "names.txt", "minutes": 0.05}).json()
    assert plan["lines"]
    training = {"text": "names.txt", "name": "my names", "minutes": 0.05, "dedup": True}
    assert http.post("/api/training", json=training).json()["status"] == "starting"
    with http.stream("GET", "/api/training/events") as events:
        states = [json.loads(line[6:]) for line in events.iter_lines() if line]
    assert states[-1]["status"] == "finished"
    assert states[-1]["model"] == "kneser-ney"
    assert any(line.startswith("Plan: ") for line in states[-1]["plan"])
    assert (home / "my names" / "model.safetensors").is_file()
    run = Run.open(home / "my names")
    assert run.config.data.dedup
    body = {"model": "my names", "seed": 1, "n": 3}
    choices = http.post("/v1/completions", json=body).json()["choices"]
    assert [choice["text"] for choice in choices] == run.sample(3, seed=1)
    answer = http.post("/api/training", json=training)
    assert answer.status_code == 409
    assert "is taken" in answer.json()["error"]["message"]
    for name, free in (("my names", "my names-2"), ("texts", "texts-2"), ("other", "other")):
        found = http.get("/api/training/name", params={"name": name}).json()
        assert found == {"name": free}
    (home / ("x" * 60)).mkdir()
    found = http.get("/api/training/name", params={"name": "x" * 60}).json()
    assert found == {"name": "x" * 55 + "-2"}


def test_examples_of_the_chosen_columns_are_learned(http: httpx.Client, home: Path) -> None:
    rows = [f"{name},{len(name)},{'odd' if len(name) % 2 else 'even'}" for name in NAMES]
    table = "\n".join(["name,letters,parity", *rows]).encode()
    assert upload(http, "t.csv", table).json()["columns"] == ["name", "letters", "parity"]
    text = {"text": "t.csv", "input": "name", "target": "parity"}
    found = http.post("/api/doctor", json=text).json()
    assert found["facts"]["kind"] == "examples"
    assert http.post("/api/plan", json={**text, "minutes": 0.1}).status_code == 200
    wrong = http.post("/api/doctor", json={**text, "target": "color"})
    assert wrong.status_code == 400
    assert "its columns are name, letters, parity" in wrong.json()["error"]["message"]
    http.post("/api/training", json={**text, "minutes": 0.1, "name": "parity"})
    training_until(http, lambda state: state["status"] == "finished")
    assert Run.open(home / "parity").predict(["anna"])[0].target in ("odd", "even")
    column = {"text": "t.csv", "column": "name"}
    assert http.post("/api/doctor", json=column).json()["facts"]["kind"] == "lines"


def test_stop_and_resume(http: httpx.Client, home: Path) -> None:
    upload(http, "story.txt", STORY.encode())
    body = {"text": "story.txt", "name": "story", "minutes": 5, "model": "mlp", "kind": "text"}
    assert http.post("/api/training/stop").status_code == 409
    gone = http.post("/api/training/delete", json={"name": "story"})
    assert gone.status_code == 404
    http.post("/api/training", json=body)
    assert http.post("/api/training", json={**body, "name": "other"}).status_code == 409
    state = training_until(http, lambda state: state["step"] >= 5)
    assert state["status"] == "training"
    assert state["steps"] > state["step"]
    assert 0 < state["share"] < 1
    assert state["loss"] > 0
    assert state["seconds_left"] > 0
    for action, fields in (("delete", {}), ("rename", {"new_name": "tale"})):
        answer = http.post(f"/api/training/{action}", json={"name": "story", **fields})
        assert answer.status_code == 409
        assert answer.json()["error"]["message"] == "'story' is being trained: stop it first"
    wait_until(lambda: http.get("/api/training/history").json()["steps"])
    logged = http.get("/api/training/history").json()
    assert logged["settings"]["model"]["name"] == "mlp"
    assert http.post("/api/training/stop").json()["status"] == "stopping"
    state = training_until(http, lambda state: state["status"] == "stopped")
    (run,) = state["runs"]
    assert (run["name"], run["status"], run["can_resume"]) == ("story", "interrupted", True)
    assert (run["loss"] is None) == (state["best"] is None)
    assert http.post("/api/training/resume", json={"name": "other"}).status_code == 404
    assert http.post("/api/training/resume", json={"name": "story"}).status_code == 202
    training_until(http, lambda now: now["step"] > state["step"])
    assert http.post("/api/training/stop").status_code == 202
    training_until(http, lambda state: state["status"] == "stopped")
    found = http.post("/v1/completions", json={"model": "story", "prompt": "The "})
    assert found.status_code == (200 if (home / "story" / "model.safetensors").is_file() else 404)


@pytest.mark.soak
def test_a_training_can_be_resumed_after_the_server_stops(home: Path) -> None:
    with serving([], slots=2, home=home) as service, httpx.Client(base_url=service.url) as http:
        upload(http, "story.txt", STORY.encode() * 10)
        body = {"text": "story.txt", "name": "story", "minutes": 5, "model": "mlp"}
        http.post("/api/training", json={**body, "kind": "text"})
        training_until(http, lambda state: state["step"] >= 5)
    assert Run.open(home / "story").record.status == "interrupted"
    with serving([], slots=2, home=home) as service:
        (run,) = httpx.get(f"{service.url}/api/training").json()["runs"]
        assert run["name"] == "story" and run["can_resume"]


def test_runs_are_served_again_renamed_and_deleted(home: Path, tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "words.txt", tmp_path / "elsewhere" / "both"
    source.write_text("\n".join(NAMES))
    for out in (home / "counts", home / "both", elsewhere):
        api.train(source, model="ngram", out=out, report=ignore)
    for damaged in ("weights", "record"):
        shutil.copytree(home / "counts", home / damaged)
    (home / "weights" / "model.safetensors").write_bytes(b"damaged")
    (home / "record" / "run.json").write_text("[]")
    (home / "folder").mkdir()
    (home / "link").symlink_to(elsewhere)
    with (
        serving([elsewhere], home=home) as service,
        httpx.Client(base_url=service.url, timeout=60) as http,
    ):

        def models() -> set[str]:
            return {model["name"] for model in http.get("/api/models").json()["models"]}

        def order(action: str, **body: str) -> httpx.Response:
            return http.post(f"/api/training/{action}", json=body)

        wait_until(lambda: http.get("/api/models").json()["loading"] == 0)
        # The run that the command named is served, and not another one of its name.
        assert models() == {"both", "counts"}
        assert service.registry.find("both").run.path == elsewhere
        runs = {run["name"]: run for run in http.get("/api/training").json()["runs"]}
        assert set(runs) == {"both", "counts", "record", "weights"}
        assert runs["record"]["status"] is None
        assert runs["counts"]["status"] == "finished" and not runs["counts"]["can_resume"]
        assert runs["counts"]["loss"] == Run.open(home / "counts").scores["val"].loss

        for name in ("link", "folder", "texts", "..", "elsewhere", "both/../counts", "other"):
            assert order("delete", name=name).status_code == 404, name
            assert order("rename", name=name, new_name="new").status_code == 404, name
        for name in ("both", "texts", "folder"):
            answer = order("rename", name="counts", new_name=name)
            assert answer.status_code == 409
            assert f"'{name}-2' is available" in answer.json()["error"]["message"]
        assert order("rename", name="counts", new_name="../new").status_code == 400
        with training_lock(home / "counts"):
            for action in ("delete", "rename"):
                new = {"new_name": "new"} if action == "rename" else {}
                assert order(action, name="counts", **new).status_code == 400
        text = http.post("/v1/completions", json={"model": "counts", "seed": 1}).json()["choices"]
        assert order("rename", name="counts", new_name="new").status_code == 200
        assert models() == {"both", "new"}
        again = http.post("/v1/completions", json={"model": "new", "seed": 1}).json()["choices"]
        assert again == text

        # Deleting a run that is not served does not touch the served one of its name.
        left = order("delete", name="both").json()["runs"]
        assert {run["name"] for run in left} == {"new", "record", "weights"}
        assert models() == {"both", "new"} and elsewhere.is_dir()
        order("delete", name="new")
        order("delete", name="record")
        assert models() == {"both"}
        assert sorted(path.name for path in home.iterdir()) == ["folder", "link", "weights"]
        foreign = {"Origin": "http://example.com"}
        answer = http.post("/api/training/delete", json={"name": "weights"}, headers=foreign)
        assert answer.status_code == 403 and (home / "weights").is_dir()


def test_built_in_data_sets(http: httpx.Client, home: Path) -> None:
    assert http.get("/api/texts").json()["datasets"][0] == "names"
    found = http.post("/api/doctor", json={"text": "names"}).json()
    assert found["facts"]["kind"] == "lines"
    # An uploaded text has precedence.
    upload(http, "names", b"one\ntwo\n")
    lines = http.post("/api/doctor", json={"text": "names"}).json()["lines"]
    assert "2 lines" in lines[0]


def workers() -> list[str]:
    """The worker processes of this process."""
    found = []
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        found += [Path(f"/proc/{child}/cmdline") for child in children.read_text().split()]
    return [str(one) for one in found if one.exists() and b"jobs.worker" in one.read_bytes()]


def test_audits_run_one_at_a_time_and_end_with_their_clients(
    http: httpx.Client, home: Path
) -> None:
    upload(http, "zeros.bin", bytes(range(256)) * 8)

    async def ask_often() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=http.base_url, timeout=GENEROUS_DEADLINE_S) as many:
            # One runs and eight wait; the tenth is refused long before a worker has started.
            asking = [many.post("/api/doctor", json={"text": "zeros.bin"}) for _ in range(10)]
            tasks = [asyncio.create_task(request) for request in asking]
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(wait_until, lambda: len(workers()) == 1)
            *gone, last = waiting
            for task in gone:
                task.cancel()
            return [task.result() for task in done] + [await last]

    refused, audited = asyncio.run(ask_often())
    assert refused.status_code == 429
    wait_until(lambda: not workers())
    assert audited.status_code == 400
    assert audited.json()["error"]["message"].startswith("'zeros.bin' is not utf-8")
    assert audited.json()["error"]["param"] == "encoding"
    assert str(home) not in audited.text


def test_names_in_many_scripts(http: httpx.Client) -> None:
    for name in ("हिन्दी गीत.txt", "Beyonce\u0301.txt", "שָׁלוֹם", "字" * 60):
        composed = unicodedata.normalize("NFC", name)
        assert upload(http, name, b"text").json()["name"] == composed
        assert http.get("/api/training/name", params={"name": name}).json()["name"] == composed
    for name in ("a\u200bb", "a\ufe0f", "\u0301a", "𠀀" * 61, "a'b", "a\u202eb"):
        assert upload(http, name, b"text").status_code == 400, name


def test_names_match_the_pattern_of_the_openapi_document() -> None:
    """For each character at the beginning, inside and at the end, in Python and in ECMA-262."""
    document = jsonschema_rs.Draft202012Validator({"type": "string", "pattern": NAME_PATTERN})
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x20000), 0xE0100, 0x10FFFF]):
        for name in (character, f"a{character}b", f"a{character}"):
            assert document.is_valid(name) == is_valid_name(name), ascii(name)
    for name, plainly in (("a.part", False), ("a.part.b", True), ("𠀀" * 60, True), ("a\n", False)):
        assert document.is_valid(name) == is_valid_name(name) == plainly
    assert len(("𠀀" * MAX_NAME_LENGTH).encode()) <= 240


def test_the_result_of_early_stopping(home: Path) -> None:
    """The result has the step and loss of the best weights."""
    text, run = home / "a.txt", home / "run"
    home.mkdir()
    text.write_text("\n".join(NAMES))
    settings = {"train": {"patience": 1, "eval_every": 1, "lr": 3.0, "steps": 50}}
    found = training_result(api.train(text, model="mlp", settings=settings, out=run, report=ignore))
    losses = {e["step"]: e["val"]["loss"] for e in Run.open(run).read_metrics() if "val" in e}
    assert found["status"] == "finished" and found["early"]
    assert found["best_step"] == min(losses, key=losses.__getitem__) < max(losses) < 50
    assert found["best"] == pytest.approx(min(losses.values()))


def test_progress_messages_end_with_the_next_event(capsys: pytest.CaptureFixture[str]) -> None:
    writer = EventWriter()
    for event in (Note(text="a note"), Progress(what="evaluating val", share=1.0)):
        writer(event)
    writer(Sampled(step=1, texts=["anna"]))
    writer(Sampled(step=2, texts=["anna"]))
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert [event.get("message", "as before") for event in events] == [
        "a note", "evaluating val: 100%", "a note", "as before",
    ]  # fmt: skip


def test_an_evaluation_is_reported_with_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    writer = EventWriter()
    writer(Note(text="the plan"))
    started = {"path": "", "config": {"model": {"name": "mlp"}}, "parameters": 9, "max_length": 8}
    data = DatasetInfo(name="x", kind="text", vocabulary=9, boundary=False)
    writer(Started(data=data, steps=99, from_step=0, **started))
    writer(Note(text="not a part of the plan"))
    values = dict.fromkeys(("lr", "gradient_norm", "tokens", "seconds", "seconds_left"), 0)
    for number in (1, 2):  # the second one comes too soon to be reported by itself
        writer(Step(step=number, steps=99, loss=float(number), mfu=None, **values))
    score = Score(loss=2.5, stderr=0, bits_per_char=0, bits_per_byte=0, perplexity=0, tokens=9)
    writer(Evaluated(step=2, score=score, best=True))
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert [event["step"] for event in events if "loss" in event] == [1, 2]
    assert events[-1]["loss"] == 2.0
    assert (events[-1]["val"], events[-1]["val_step"]) == (2.5, 2)
    assert [event["plan"] for event in events if "plan" in event] == [["the plan"]]


def test_errors(http: httpx.Client, home: Path) -> None:
    for name in ("../x", "a/b", ".hidden", "", "x" * 61, "a\\b", "a\0b", "CON:", "x.part", "x."):
        assert upload(http, name, b"text").status_code == 400, name
    assert upload(http, "empty.txt", b"").status_code == 400
    assert upload(http, "large.txt", b"x" * 100_001).status_code == 413
    pieces = (b"x" * 10_000 for _ in range(20))
    answer = http.post("/api/texts", params={"name": "l.txt"}, content=pieces, headers=BYTES)
    assert answer.status_code == 413
    assert http.post("/api/texts", params={"name": "a.txt"}, json={}).status_code == 415
    assert http.get("/api/texts").json()["texts"] == []
    assert not list((home / "texts").iterdir())
    assert http.post("/api/doctor", json={"text": "../../etc/passwd"}).status_code == 404
    upload(http, "story.txt", STORY.encode())
    for name in ("../x", "texts", ".x", "a/b"):
        answer = http.post("/api/training", json={"text": "story.txt", "name": name})
        assert answer.status_code == (409 if name == "texts" else 400), name
        assert answer.json()["error"]["param"] == "name"
    body = {"text": "story.txt", "name": "x", "model": "gtp", "minutes": 0.1}
    http.post("/api/training", json=body)
    state = training_until(http, lambda state: state["status"] == "failed")
    assert "did you mean 'gpt'" in state["message"]
    assert not (home / "x").exists()


@pytest.mark.parametrize("limit", ["space", "write"])
def test_a_full_disk_during_an_upload(
    http: httpx.Client,
    home: Path,
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The response has one line, and nothing remains of the text, whenever it is noticed."""

    def full(descriptor: int, content: bytes) -> None:
        write_all(descriptor, content[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if limit == "space":
        usage = shutil.disk_usage(home.parent)._replace(free=70_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    else:
        monkeypatch.setattr("moreish.serve.jobs.uploads.write_all", full)
    answer = upload(http, "a.txt", b"x" * 90_000)
    assert answer.status_code == 507
    message = answer.json()["error"]["message"]
    assert "was not saved" in message and "free some space" in message and "\n" not in message
    assert list((home / "texts").iterdir()) == []
    monkeypatch.undo()
    assert upload(http, "a.txt", b"x" * 90_000).status_code == 200
    assert capfd.readouterr().err == ""


def test_a_server_removes_no_upload_of_another_one(home: Path) -> None:
    """Only those that nobody writes any more."""
    (home / "texts").mkdir(parents=True)
    names = (f".{'a' * 32}.part", f".{'b' * 32}.part", ".mine.part", "notes.part")
    paths = [home / "texts" / name for name in names]
    for path in paths:
        path.write_text("half of a text")
    for path in paths[1:]:
        os.utime(path, (0, 0))
    with serving([], slots=2, home=home):
        pass
    assert [path.exists() for path in paths] == [True, False, True, True]


def test_training_can_be_disabled() -> None:
    with serving([], slots=2) as closed:
        assert httpx.get(f"{closed.url}/api/training").status_code == 404
        with httpx.Client(base_url=closed.url) as http:
            answer = upload(http, "a.txt", b"a")
        assert answer.status_code in (404, 405, 415)
