"""The process that audits texts and trains for the server: `python -m moreish.serve.jobs.worker`.

It reads its task as one line of JSON from standard input and writes lines of JSON to standard
output: `{"event": …}` while it works, then `{"result": …}` or `{"mistake": …}`. Ctrl-C (SIGINT)
stops a training so that it can be resumed.
"""

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from moreish.data import NotTextError
from moreish.errors import MoreishError

STEP_SECONDS = 0.2
"""Seconds between two steps that are told."""


def main() -> None:
    """Do what the first line says."""
    order = json.loads(sys.stdin.readline())
    verbs = {"doctor": _doctor, "plan": _plan, "train": _train, "resume": _resume}
    try:
        _tell(result=verbs[order["verb"]](order["options"]))
    except NotTextError as error:
        _tell(mistake=str(error), param="encoding")
    except MoreishError as error:
        _tell(mistake=str(error))
    except OSError as error:
        _tell(mistake=error.strerror or type(error).__name__)
    except KeyboardInterrupt:
        _tell(result={"status": "stopped"})


def _tell(**what: Any) -> None:
    try:
        sys.stdout.write(json.dumps(what, default=str) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the server is gone: nobody wants this any more
        raise KeyboardInterrupt from None


def _doctor(options: dict[str, Any]) -> dict[str, Any]:
    from moreish import api
    from moreish.training import ignore
    from moreish.ui import audit_lines

    found = api.doctor(**options, report=ignore)
    facts = {
        key: value for key, value in asdict(found).items() if key not in ("findings", "source_args")
    }
    # The last line is a command, which is for those who read it on a terminal.
    lines = [line.plain for line in audit_lines(found)]
    findings = [
        {**asdict(finding), "summary": finding.summary, "fix_label": finding.fix_label}
        for finding in found.findings
    ]
    return {
        "facts": facts,
        "findings": findings,
        "lines": lines[: -2 if found.fix_command else None],
    }


def _plan(options: dict[str, Any]) -> dict[str, Any]:
    from moreish import api
    from moreish.planning import Plan, format_estimate

    found = api.plan(**options)
    return {"lines": list(found.reasons) if isinstance(found, Plan) else format_estimate(found)}


def _train(options: dict[str, Any]) -> dict[str, Any]:
    from moreish import api

    return training_result(api.train(**options, report=EventWriter()))


def _resume(options: dict[str, Any]) -> dict[str, Any]:
    from moreish import api

    return training_result(api.resume(options["path"], report=EventWriter()))


def training_result(run: Any) -> dict[str, Any]:
    status, kept = run.record.status, run.record.splits.get("val")
    logged = (
        (entry["val"]["loss"], entry["step"]) for entry in run.read_metrics() if "val" in entry
    )
    best, step = min((one for one in logged if one[0] is not None), default=(None, None))
    return {
        "status": "stopped" if status == "interrupted" else "finished",
        "early": status == "stopped early",
        # A mixture is weighed once more at the end.
        "best": best if kept is None else kept.loss,
        "best_step": step,
    }


class EventWriter:
    """Passes on what a training tells, steps not too often."""

    def __init__(self) -> None:
        self._last = 0.0
        self._note: str | None = None
        self._working = False

    def __call__(self, event: Any) -> None:
        from moreish.training import Evaluated, Note, Progress, Sampled, Started, Step

        now = time.monotonic()
        match event:
            case Step(step=step, steps=steps, loss=loss, seconds_left=left):
                if step < steps and now - self._last < STEP_SECONDS:
                    return
                self._last = now
                self._goes_on(step=step, steps=steps, loss=loss, seconds_left=left)
            case Started(steps=steps, from_step=first, parameters=count, config=config):
                about = {"parameters": count, "model": config["model"]["name"]}
                self._goes_on(status="training", step=first, steps=steps, **about)
            case Evaluated(score=score):
                self._goes_on(val=score.loss)
            case Sampled(step=step, texts=texts):
                self._goes_on(sample={"step": step, "text": "\n".join(texts)})
            case Note(text=text):
                self._note = text
                _tell(event={"message": text})
            case Progress(what=what, share=share):
                self._working = True
                _tell(event={"message": f"{what}: {share:.0%}"})

    def _goes_on(self, **told: Any) -> None:
        """What was done meanwhile is done, and no longer told."""
        _tell(event=told | ({"message": self._note} if self._working else {}))
        self._working = False


if __name__ == "__main__":
    main()
