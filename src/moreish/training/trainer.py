"""The one gradient loop. It takes an objective and knows nothing of models, files or terminals."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moreish.config import TrainConfig
from moreish.data import Batch, Sampler
from moreish.distributed import ALONE, World, load_state, local, whole
from moreish.evaluate import Score
from moreish.models import Model
from moreish.training.budget import Plan, measure
from moreish.training.divergence import (
    RETREATS,
    SKIPS,
    SLOWER,
    DivergenceError,
    NotFinite,
    origin,
)
from moreish.training.events import Evaluated, Report, Skipped, Step, WentBack
from moreish.training.flops import Work, peak_of
from moreish.training.gradients import Backward
from moreish.training.objectives import Objective
from moreish.training.optim import build_optimizer, set_rate
from moreish.training.precision import recomputing
from moreish.training.schedule import rate

TOLERANCE = 0.02
"""How far the end may drift from the minutes asked for before the rest is planned anew."""

LIMIT = 0.08
"""Share of the minutes after which no more evaluations are made on the way."""

REPLANS = 50
"""How often that is looked at, spread over the minutes: a machine may turn fast or slow at any
time, and a plan that was made in a bad moment must not last."""


PATIENT = 2000
"""Steps after which a loss that never was too large for float16 is made twice as large."""

SHORTER = 4
"""Times, that pieces of text are in the length warm-up."""


@dataclass(kw_only=True)
class Position:
    """Where a training stands: with the weights and the optimizer, all that resuming needs."""

    plan: Plan
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    before: float = 0.0
    """Of `seconds`: spent on counting before the first step, and on steps that were taken back."""
    eval_seconds: float = 0.0
    """Of `seconds`: spent on evaluations on the way. The one after the last step is the result."""
    last_taken: float = 0.0
    """By the last of them, with the samples that go with it."""
    planned_at: float = 0.0
    """Of `seconds`: when the plan was last looked at."""
    best: Score | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped: int = 0
    """Steps in a row, up to this one, whose numbers were not finite."""
    retreats: int = 0
    """How often it went back to a checkpoint."""
    slower: float = 1.0
    """Times the learning rate, because of that."""
    scale: float = 2.0**16
    """Times the loss, where its gradient is reckoned in float16."""
    since_scaled: int = 0
    """Steps since that was changed."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls on its way."""

    evaluate: Callable[[], Score]
    """The exact score of the validation split."""
    keep_best: Callable[[], None]
    """The weights are the best so far."""
    checkpoint: Callable[[], None]
    """Save everything, to go on from here."""
    go_back: Callable[[], None]
    """Put the trainer where it was at the last checkpoint, or at the beginning."""
    stopping: Callable[[], bool]
    """Whether somebody asked to stop after this step."""
    report: Report


class Trainer:
    """Trains `model` on what `sampler` deals out, from `position` to the end of its plan."""

    def __init__(
        self,
        model: Model,
        sampler: Sampler,
        config: TrainConfig,
        *,
        objective: Objective,
        position: Position,
        device: torch.device,
        world: World = ALONE,
        backward: Backward | None = None,
    ) -> None:
        """`backward` None makes one of `model`."""
        self.model, self.world = model.to(device), world
        for part in recomputing(model):
            part.activation_checkpointing = config.activation_checkpointing
        self.sampler = sampler
        self.short = sampler.with_shorter_windows(SHORTER) if config.length_warmup else sampler
        self.config = config
        self.objective = objective
        self.position = position
        self.device = device
        self.optimizer = build_optimizer(model, config)
        self.backward = backward or Backward(self.model, objective, config, device, world)
        self._work, self._peak = Work(self.model), peak_of(device)
        self._parameters = list(self.model.parameters())
        # Where a CPU suffices: to seed every kind of device takes seventy times as long.
        alone = device.type == "cpu"
        self._reseed = torch.default_generator.manual_seed if alone else torch.manual_seed
        self._ahead: tuple[int, Sampler, Batch] | None = None
        self.last_eval_seconds = 0.0
        self._saved_at = 0.0

    def begin(self, model: Model, position: Position) -> None:
        """Begin anew at `position`, with the weights of `model` and an optimizer without memory."""
        load_state(self.model, model.state_dict())
        self.optimizer = build_optimizer(self.model, self.config)
        self.position = position

    def run(self, hooks: Hooks) -> str:
        """Train; returns why it ended: "finished", "stopped early" or "interrupted".

        What is not finite never reaches the weights: such steps are left out. After some in a row
        it goes back to the last checkpoint, and on from there at a lower rate.

        Raises:
            DivergenceError: that did not help.
        """
        while True:
            try:
                return self._run(hooks)
            except NotFinite as trouble:
                self._retreat(str(trouble), hooks)

    def _run(self, hooks: Hooks) -> str:
        at = self.position
        self._saved_at = at.seconds
        while at.step < at.plan.steps:
            if self._overfitting():  # a resumed one may be at its end
                self._checkpoint(hooks)
                return "stopped early"
            if self.world.any(hooks.stopping()):
                self._checkpoint(hooks)
                return "interrupted"
            began = time.perf_counter()
            done = self.step()
            at.seconds += self._since(began)
            hooks.report(done)
            if isinstance(done, Skipped) and at.skipped >= SKIPS:
                raise NotFinite(done.why)
            last = at.step == at.plan.steps
            if last or (at.step % at.plan.eval_every == 0 and self._affordable()):
                self._evaluate(hooks)
            self._replan()
            if self._checkpoint_is_due():
                self._checkpoint(hooks)
        self._checkpoint(hooks)
        return "finished"

    def step(self) -> Step | Skipped:
        """One update of the weights."""
        at = self.position
        began = time.perf_counter()
        lr = at.slower * rate(self.config, at.plan.progress(at.step))
        set_rate(self.optimizer, lr)
        if not self.model.training:
            self.model.train()
        batch = self._batch(at.step)
        loss, norm = self._scaled(batch) if self.backward.scaled else self._gradient(batch)
        sampler = self._sampler(at.step + 1)
        self._ahead = at.step + 1, sampler, sampler.batch(at.step + 1)  # while a GPU still reckons
        loss_value, norm_value = loss.item(), whole(norm).item()
        at.step += 1
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            at.skipped += 1
            why = f"the loss is {loss_value:.3g}, the norm of its gradient {norm_value:.3g}"
            return Skipped(step=at.step, why=why)
        at.skipped = 0
        self.optimizer.step()
        at.tokens += batch.num_targets
        reckoned = self._work.of(batch) / (time.perf_counter() - began) / self.world.size
        return Step(
            step=at.step,
            steps=at.plan.steps,
            loss=loss_value,
            lr=lr,
            gradient_norm=norm_value,
            tokens=at.tokens,
            seconds=at.seconds,
            seconds_left=(at.seconds - at.before) / at.step * (at.plan.steps - at.step),
            utilisation=self._peak and reckoned / self._peak,
        )

    def _gradient(self, batch: Batch, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """The loss, and the norm of its gradient before that was clipped."""
        self._seed(self.position.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(batch, scale)
        if scale != 1:
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(scale)
        return loss, nn.utils.clip_grad_norm_(self._parameters, self.config.clip or math.inf)

    def _scaled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `_gradient`, in half precision, in which small numbers vanish and large ones overflow:
        the loss is as large as just does not (Micikevicius et al. 2018, section 3.2)."""
        at = self.position
        if at.since_scaled >= PATIENT:
            at.scale, at.since_scaled = 2 * at.scale, 0
        while True:
            loss, norm = self._gradient(batch, at.scale)
            finite = math.isfinite(whole(norm).item())
            if finite or at.scale <= 1 or not math.isfinite(loss.item()):
                at.since_scaled += 1
                return loss, norm
            at.scale, at.since_scaled = at.scale / 2, 0

    def _since(self, began: float) -> float:
        """Seconds by the clock of the first process: all that is decided by time is by one."""
        return self.world.share(time.perf_counter() - began)

    def _seed(self, step: int) -> None:
        """Dropout depends on the seed, the step and the process alone, as batches do."""
        own = self.world.rank * 2**32
        self._reseed((self.sampler.seed * 1_000_003 + step + own) % 2**63)

    def _sampler(self, step: int) -> Sampler:
        early = self.position.plan.progress(step) < self.config.length_warmup
        return self.short if early else self.sampler

    def _batch(self, step: int) -> Batch:
        """Cut already, unless it is the first or another step was thought to come."""
        ahead, self._ahead = self._ahead, None
        wanted = step, self._sampler(step)
        return ahead[2] if ahead and ahead[:2] == wanted else wanted[1].batch(step)

    def _evaluate(self, hooks: Hooks) -> None:
        at = self.position
        began = time.perf_counter()
        score = hooks.evaluate()
        self.last_eval_seconds = self._since(began)
        if not math.isfinite(score.loss):
            raise NotFinite(f"the validation loss is {score.loss:.3g}")
        best = at.best is None or score.loss < at.best.loss
        if best:
            at.best, at.best_step, at.evaluations_since_best = score, at.step, 0
            hooks.keep_best()
        else:
            at.evaluations_since_best += 1
        hooks.report(Evaluated(step=at.step, score=score, best=best))
        at.last_taken = self._since(began)
        if at.step < at.plan.steps:
            at.eval_seconds += at.last_taken
            at.seconds += at.last_taken

    def _affordable(self) -> bool:
        """Whether another evaluation keeps them within their share of the minutes: a machine that
        was fast in the trial may be slow now. Without minutes, no clock decides."""
        at, minutes = self.position, self.config.minutes
        after = at.eval_seconds + at.last_taken
        return minutes is None or after <= LIMIT * max(at.seconds, minutes * 60)

    def _checkpoint(self, hooks: Hooks) -> None:
        finite = all(bool(local(p).isfinite().all()) for p in self.model.parameters())
        if self.world.any(not finite):
            raise NotFinite("a weight is not finite")
        began = time.perf_counter()
        hooks.checkpoint()
        taken = self._since(began)  # when it is written, for all of them
        if self.position.step < self.position.plan.steps:
            self.position.seconds += taken
        self._saved_at = self.position.seconds

    def _retreat(self, why: str, hooks: Hooks) -> None:
        """Go back to the last checkpoint, and on at a lower rate. The time is spent all the same.

        Raises:
            DivergenceError: that was done often enough.
        """
        before = self.position
        if before.retreats == RETREATS:
            raise self._diverged(why)
        hooks.go_back()
        at = self.position
        lost = before.seconds - at.seconds
        at.seconds, at.before = at.seconds + lost, at.before + lost
        at.retreats, at.slower = before.retreats + 1, before.slower * SLOWER
        at.best, at.best_step = before.best, before.best_step  # as the weights that are kept
        assert isinstance(self.config.lr, float)
        hooks.report(WentBack(step=at.step, why=why, lr=at.slower * self.config.lr))

    def _diverged(self, why: str) -> DivergenceError:
        step = self.position.step
        batch = self._sampler(step - 1).batch(step - 1)
        self._seed(step - 1)
        parts = (part.to(self.device) for part in batch.split(self.config.accumulate))
        found = (origin(self.model.train(), self.objective, part) for part in parts)
        where = next(filter(None, found), "")
        return DivergenceError(
            f"training came apart at step {step}: {why}{where}. It went back to a checkpoint "
            f"{RETREATS} times, each time to a third of the rate, in vain; try a lower "
            f"--set train.lr (it was {self.config.lr:.3g})",
            batch,
        )

    def _overfitting(self) -> bool:
        patience = self.config.patience
        return 0 < patience <= self.position.evaluations_since_best

    def _replan(self) -> None:
        """Keep the end where the minutes say, at the pace of the training so far."""
        at, minutes = self.position, self.config.minutes
        if minutes is None or at.step >= at.plan.steps:
            return
        last_chance = at.step + 1 == at.plan.steps
        if at.seconds - at.planned_at < minutes * 60 / REPLANS and not last_chance:
            return
        at.planned_at = at.seconds
        pace = (at.seconds - at.before) / at.step
        left = minutes * 60 - at.seconds
        if abs(pace * (at.plan.steps - at.step) - left) > TOLERANCE * minutes * 60:
            at.plan = at.plan.replanned(at.step, at.step + max(1, int(left / pace)))

    def _checkpoint_is_due(self) -> bool:
        at = self.position
        if at.skipped:  # it may have to go back, and to something better than this
            return False
        if self.config.checkpoint_every is not None:
            return at.step % self.config.checkpoint_every == 0
        evaluated = at.step % at.plan.eval_every == 0
        return evaluated and at.seconds - self._saved_at > 30


def time_of_step(trainer: Trainer, stopping: Callable[[], bool], seconds: float) -> float:
    """Median seconds of a step, from a trial of some `seconds` that leaves no trace, except that a
    model that is to be compiled is compiled then."""
    model = trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trial = Trainer(
        model,
        trainer.sampler,
        trainer.config.model_copy(update={"length_warmup": 0.0}),
        objective=trainer.objective,
        position=Position(plan=Plan(steps=1_000_000, eval_every=1)),
        device=trainer.device,
        world=trainer.world,
        backward=trainer.backward,
    )
    found = measure(trial.step, stopping, seconds=seconds, world=trainer.world)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
            p.grad = None
    return found
