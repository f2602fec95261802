"""The process that audits texts and trains for the server: `python -m moreish.serve.jobs.worker`.

It reads its task as one line of JSON from standard input and writes lines of JSON to standard
output: `{"event": …}` during the work, then `{"result": …}` or `{"error": …}`. SIGINT (Ctrl-C)
stops a training run so that it can be resumed.
"""

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from moreish import api
from moreish.data import AuditReport, NotTextError
from moreish.errors import MoreishError
from moreish.planning import Plan, format_estimate
from moreish.runs import Run
from moreish.training import Evaluated, Event, Note, Progress, Sampled, Started, Step, ignore
from moreish.ui import audit_lines

STEP_SECONDS = 0.2
"""Minimum time between two reported steps."""


def main() -> None:
    """Run the task."""
    task = json.loads(sys.stdin.readline())
    try:
        _write(result=run_command(task["command"], task["options"]))
    except NotTextError as error:
        _write(error=str(error), param="encoding")
    except MoreishError as error:
        _write(error=str(error))
    except OSError as error:
        _write(error=error.strerror or type(error).__name__)
    except KeyboardInterrupt:
        _write(result={"status": "stopped"})


def _write(**message: Any) -> None:
    try:
        sys.stdout.write(json.dumps(message, default=str) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the server has ended
        raise KeyboardInterrupt from None


def run_command(command: str, options: dict[str, Any]) -> dict[str, Any]:
    """Call the function of `moreish.api` of this name and return its result as JSON."""
    match command:
        case "doctor":
            return audit_result(api.doctor(**options, report=ignore))
        case "plan":
            found = api.plan(**options)
            return {"lines": found.reasons if isinstance(found, Plan) else format_estimate(found)}
        case "train":
            return training_result(api.train(**options, report=EventWriter()))
        case _:
            return training_result(api.resume(**options, report=EventWriter()))


def audit_result(audit: AuditReport) -> dict[str, Any]:
    """Return the fields of `DoctorResponse`."""
    facts = asdict(audit)
    del facts["source_args"], facts["findings"]
    lines = [line.plain for line in audit_lines(audit)]
    return {
        "facts": facts,
        "findings": [
            {**asdict(finding), "summary": finding.summary, "fix_label": finding.fix_label}
            for finding in audit.findings
        ],
        # The last line is a command, which is of no use on the page.
        "lines": lines[: -2 if audit.fix_command else None],
    }


def training_result(run: Run) -> dict[str, Any]:
    """Return the fields of `TrainingStatus` that are known at the end of a training run."""
    status, final = run.record.status, run.scores.get("val")
    losses = (
        (entry["val"]["loss"], entry["step"]) for entry in run.read_metrics() if "val" in entry
    )
    best, step = min((pair for pair in losses if pair[0] is not None), default=(None, None))
    return {
        "status": "stopped" if status == "interrupted" else "finished",
        "early": status == "stopped early",
        # The weights of a mixture of models are tuned after the last evaluation.
        "best": best if final is None else final.as_json()["loss"],
        "best_step": step,
    }


class EventWriter:
    """Writes the events of a training run as fields of `TrainingStatus`, steps not too often."""

    def __init__(self) -> None:
        self._last_step = 0.0
        self._step: dict[str, Any] = {}
        """The fields of the last step, reported or not."""
        self._plan: list[str] | None = []
        """The notes before training; None afterwards."""
        self._note: str | None = None
        self._shows_progress = False

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Step(step=step, steps=steps, loss=loss, seconds_left=left):
                self._step = {"step": step, "steps": steps, "loss": loss, "seconds_left": left}
                if step < steps and now - self._last_step < STEP_SECONDS:
                    return
                self._last_step = now
                self._write(**self._step)
            case Started(steps=steps, from_step=first, parameters=count, config=config):
                model = {"parameters": count, "model": config["model"]["name"]}
                plan, self._plan = self._plan or [], None
                self._write(status="training", step=first, steps=steps, plan=plan, **model)
            case Evaluated(step=step, score=score):
                # With its own step, which may not have been reported.
                self._write(**self._step, val=score.loss, val_step=step)
            case Sampled(step=step, texts=texts):
                self._write(sample={"step": step, "text": "\n".join(texts)})
            case Note(text=text):
                self._note = text
                if self._plan is not None:
                    self._plan.append(text)
                _write(event={"message": text})
            case Progress(what=what, share=share):
                self._shows_progress = True
                _write(event={"message": f"{what}: {share:.0%}"})

    def _write(self, **fields: Any) -> None:
        """Write fields; a message about progress is over and gives way to the last note."""
        _write(event=fields | ({"message": self._note} if self._shows_progress else {}))
        self._shows_progress = False


if __name__ == "__main__":
    main()
