"""The one gradient loop. It takes an objective and knows nothing of models, files or terminals."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moreish.config import TrainConfig
from moreish.data import Batch, Sampler
from moreish.distributed import SINGLE_PROCESS, ProcessGroup, full_tensor, load_state, local_tensor
from moreish.evaluate import Score
from moreish.models import Model
from moreish.training.budget import StepPlan, median_seconds
from moreish.training.divergence import (
    MAX_ROLLBACKS,
    MAX_SKIPPED_STEPS,
    ROLLBACK_LR_SCALE,
    DivergenceError,
    NonFiniteError,
    locate_non_finite,
)
from moreish.training.events import Evaluated, Report, Rollback, Skipped, Step
from moreish.training.flops import FlopCounter, device_peak_flops
from moreish.training.gradients import Backward
from moreish.training.objectives import Objective
from moreish.training.optim import build_optimizer, set_lr
from moreish.training.precision import checkpointable_models
from moreish.training.schedule import lr_at

REPLAN_TOLERANCE = 0.02
"""How far the end may drift from the minutes asked for before the rest is planned anew."""

MAX_EVAL_SHARE = 0.08
"""Share of the minutes after which no more evaluations are made on the way."""

REPLANS_PER_RUN = 50
"""How often that is looked at, spread over the minutes: a machine may turn fast or slow at any
time, and a plan that was made in a bad moment must not last."""


LOSS_SCALE_GROWTH_INTERVAL = 2000
"""Steps after which a loss that never was too large for float16 is made twice as large."""

LENGTH_WARMUP_FACTOR = 4
"""Times, that pieces of text are in the length warm-up."""


@dataclass(kw_only=True)
class TrainState:
    """Where a training stands: with the weights and the optimizer, all that resuming needs."""

    plan: StepPlan
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    """Of `seconds`: spent on counting before the first step, and on steps that were taken back."""
    eval_seconds: float = 0.0
    """Of `seconds`: spent on evaluations on the way. The one after the last step is the result."""
    last_eval_seconds: float = 0.0
    """By the last of them, with the samples that go with it."""
    planned_at: float = 0.0
    """Of `seconds`: when the plan was last looked at."""
    best: Score | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped_in_a_row: int = 0
    """Steps in a row, up to this one, whose numbers were not finite."""
    rollbacks: int = 0
    """How often it went back to a checkpoint."""
    lr_scale: float = 1.0
    """Times the learning rate, because of that."""
    loss_scale: float = 2.0**16
    """Times the loss, where its gradient is reckoned in float16."""
    steps_since_rescale: int = 0
    """Steps since that was changed."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls on its way."""

    evaluate: Callable[[], Score]
    """The exact score of the validation split."""
    save_best: Callable[[], None]
    """The weights are the best so far."""
    checkpoint: Callable[[], None]
    """Save everything, to go on from here."""
    roll_back: Callable[[], None]
    """Put the trainer where it was at the last checkpoint, or at the beginning."""
    should_stop: Callable[[], bool]
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
        state: TrainState,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
        backward: Backward | None = None,
    ) -> None:
        """`backward` None makes one of `model`."""
        self.model, self.group = model.to(device), group
        for part in checkpointable_models(model):
            part.activation_checkpointing = config.activation_checkpointing
        self.sampler = sampler
        self.short = (
            sampler.with_shorter_windows(LENGTH_WARMUP_FACTOR) if config.length_warmup else sampler
        )
        self.config = config
        self.objective = objective
        self.state = state
        self.device = device
        self.optimizer = build_optimizer(model, config)
        self.backward = backward or Backward(self.model, objective, config, device, group)
        self._work, self._peak = FlopCounter(self.model), device_peak_flops(device)
        self._parameters = list(self.model.parameters())
        # Where a CPU suffices: to seed every kind of device takes seventy times as long.
        alone = device.type == "cpu"
        self._reseed = torch.default_generator.manual_seed if alone else torch.manual_seed
        self._ahead: tuple[int, Sampler, Batch] | None = None
        self.last_eval_seconds = 0.0
        self._saved_at = 0.0

    def reset(self, model: Model, state: TrainState) -> None:
        """Begin anew at `position`, with the weights of `model` and an optimizer without memory."""
        load_state(self.model, model.state_dict())
        self.optimizer = build_optimizer(self.model, self.config)
        self.state = state

    def train(self, hooks: Hooks) -> str:
        """Train; returns why it ended: "finished", "stopped early" or "interrupted".

        What is not finite never reaches the weights: such steps are left out. After some in a row
        it goes back to the last checkpoint, and on from there at a lower rate.

        Raises:
            DivergenceError: that did not help.
        """
        while True:
            try:
                return self._train(hooks)
            except NonFiniteError as trouble:
                self._roll_back(str(trouble), hooks)

    def _train(self, hooks: Hooks) -> str:
        at = self.state
        self._saved_at = at.seconds
        while at.step < at.plan.steps:
            if self._overfitting():  # a resumed one may be at its end
                self._checkpoint(hooks)
                return "stopped early"
            if self.group.any(hooks.should_stop()):
                self._checkpoint(hooks)
                return "interrupted"
            began = time.perf_counter()
            done = self.train_step()
            at.seconds += self._since(began)
            hooks.report(done)
            if isinstance(done, Skipped) and at.skipped_in_a_row >= MAX_SKIPPED_STEPS:
                raise NonFiniteError(done.why)
            last = at.step == at.plan.steps
            if last or (at.step % at.plan.eval_every == 0 and self._affordable()):
                self._evaluate(hooks)
            self._replan()
            if self._checkpoint_is_due():
                self._checkpoint(hooks)
        self._checkpoint(hooks)
        return "finished"

    def train_step(self) -> Step | Skipped:
        """One update of the weights."""
        at = self.state
        began = time.perf_counter()
        lr = at.lr_scale * lr_at(self.config, at.plan.progress(at.step))
        set_lr(self.optimizer, lr)
        if not self.model.training:
            self.model.train()
        batch = self._batch(at.step)
        loss, norm = self._scaled(batch) if self.backward.scaled else self._gradient(batch)
        sampler = self._sampler(at.step + 1)
        self._ahead = at.step + 1, sampler, sampler.batch(at.step + 1)  # while a GPU still reckons
        loss_value, norm_value = loss.item(), full_tensor(norm).item()
        at.step += 1
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            at.skipped_in_a_row += 1
            why = f"the loss is {loss_value:.3g}, the norm of its gradient {norm_value:.3g}"
            return Skipped(step=at.step, why=why)
        at.skipped_in_a_row = 0
        self.optimizer.step()
        at.tokens += batch.num_targets
        reckoned = self._work.per_batch(batch) / (time.perf_counter() - began) / self.group.size
        return Step(
            step=at.step,
            steps=at.plan.steps,
            loss=loss_value,
            lr=lr,
            gradient_norm=norm_value,
            tokens=at.tokens,
            seconds=at.seconds,
            seconds_left=(at.seconds - at.overhead_seconds) / at.step * (at.plan.steps - at.step),
            mfu=self._peak and reckoned / self._peak,
        )

    def _gradient(self, batch: Batch, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """The loss, and the norm of its gradient before that was clipped."""
        self._seed(self.state.step)
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
        at = self.state
        if at.steps_since_rescale >= LOSS_SCALE_GROWTH_INTERVAL:
            at.loss_scale, at.steps_since_rescale = 2 * at.loss_scale, 0
        while True:
            loss, norm = self._gradient(batch, at.loss_scale)
            finite = math.isfinite(full_tensor(norm).item())
            if finite or at.loss_scale <= 1 or not math.isfinite(loss.item()):
                at.steps_since_rescale += 1
                return loss, norm
            at.loss_scale, at.steps_since_rescale = at.loss_scale / 2, 0

    def _since(self, began: float) -> float:
        """Seconds by the clock of the first process: all that is decided by time is by one."""
        return self.group.broadcast(time.perf_counter() - began)

    def _seed(self, step: int) -> None:
        """Dropout depends on the seed, the step and the process alone, as batches do."""
        own = self.group.rank * 2**32
        self._reseed((self.sampler.seed * 1_000_003 + step + own) % 2**63)

    def _sampler(self, step: int) -> Sampler:
        early = self.state.plan.progress(step) < self.config.length_warmup
        return self.short if early else self.sampler

    def _batch(self, step: int) -> Batch:
        """Cut already, unless it is the first or another step was thought to come."""
        ahead, self._ahead = self._ahead, None
        wanted = step, self._sampler(step)
        return ahead[2] if ahead and ahead[:2] == wanted else wanted[1].batch(step)

    def _evaluate(self, hooks: Hooks) -> None:
        at = self.state
        began = time.perf_counter()
        score = hooks.evaluate()
        self.last_eval_seconds = self._since(began)
        if not math.isfinite(score.loss):
            raise NonFiniteError(f"the validation loss is {score.loss:.3g}")
        best = at.best is None or score.loss < at.best.loss
        if best:
            at.best, at.best_step, at.evaluations_since_best = score, at.step, 0
            hooks.save_best()
        else:
            at.evaluations_since_best += 1
        hooks.report(Evaluated(step=at.step, score=score, best=best))
        at.last_eval_seconds = self._since(began)
        if at.step < at.plan.steps:
            at.eval_seconds += at.last_eval_seconds
            at.seconds += at.last_eval_seconds

    def _affordable(self) -> bool:
        """Whether another evaluation keeps them within their share of the minutes: a machine that
        was fast in the trial may be slow now. Without minutes, no clock decides."""
        at, minutes = self.state, self.config.minutes
        after = at.eval_seconds + at.last_eval_seconds
        return minutes is None or after <= MAX_EVAL_SHARE * max(at.seconds, minutes * 60)

    def _checkpoint(self, hooks: Hooks) -> None:
        finite = all(bool(local_tensor(p).isfinite().all()) for p in self.model.parameters())
        if self.group.any(not finite):
            raise NonFiniteError("a weight is not finite")
        began = time.perf_counter()
        hooks.checkpoint()
        taken = self._since(began)  # when it is written, for all of them
        if self.state.step < self.state.plan.steps:
            self.state.seconds += taken
        self._saved_at = self.state.seconds

    def _roll_back(self, why: str, hooks: Hooks) -> None:
        """Go back to the last checkpoint, and on at a lower rate. The time is spent all the same.

        Raises:
            DivergenceError: that was done often enough.
        """
        before = self.state
        if before.rollbacks == MAX_ROLLBACKS:
            raise self._diverged(why)
        hooks.roll_back()
        at = self.state
        lost = before.seconds - at.seconds
        at.seconds, at.overhead_seconds = at.seconds + lost, at.overhead_seconds + lost
        at.rollbacks, at.lr_scale = before.rollbacks + 1, before.lr_scale * ROLLBACK_LR_SCALE
        at.best, at.best_step = before.best, before.best_step  # as the weights that are kept
        assert isinstance(self.config.lr, float)
        hooks.report(Rollback(step=at.step, why=why, lr=at.lr_scale * self.config.lr))

    def _diverged(self, why: str) -> DivergenceError:
        step = self.state.step
        batch = self._sampler(step - 1).batch(step - 1)
        self._seed(step - 1)
        parts = (part.to(self.device) for part in batch.split(self.config.accumulate))
        found = (locate_non_finite(self.model.train(), self.objective, part) for part in parts)
        where = next(filter(None, found), "")
        return DivergenceError(
            f"training came apart at step {step}: {why}{where}. It went back to a checkpoint "
            f"{MAX_ROLLBACKS} times, each time to a third of the rate, in vain; try a lower "
            f"--set train.lr (it was {self.config.lr:.3g})",
            batch,
        )

    def _overfitting(self) -> bool:
        patience = self.config.patience
        return 0 < patience <= self.state.evaluations_since_best

    def _replan(self) -> None:
        """Keep the end where the minutes say, at the pace of the training so far."""
        at, minutes = self.state, self.config.minutes
        if minutes is None or at.step >= at.plan.steps:
            return
        last_chance = at.step + 1 == at.plan.steps
        if at.seconds - at.planned_at < minutes * 60 / REPLANS_PER_RUN and not last_chance:
            return
        at.planned_at = at.seconds
        pace = (at.seconds - at.overhead_seconds) / at.step
        left = minutes * 60 - at.seconds
        if abs(pace * (at.plan.steps - at.step) - left) > REPLAN_TOLERANCE * minutes * 60:
            at.plan = at.plan.replan(at.step, at.step + max(1, int(left / pace)))

    def _checkpoint_is_due(self) -> bool:
        at = self.state
        if at.skipped_in_a_row:  # it may have to go back, and to something better than this
            return False
        if self.config.checkpoint_every is not None:
            return at.step % self.config.checkpoint_every == 0
        evaluated = at.step % at.plan.eval_every == 0
        return evaluated and at.seconds - self._saved_at > 30


def measure_step_seconds(
    trainer: Trainer, should_stop: Callable[[], bool], seconds: float
) -> float:
    """Median seconds of a step, from a trial of some `seconds` that leaves no trace, except that a
    model that is to be compiled is compiled then."""
    model = trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trial = Trainer(
        model,
        trainer.sampler,
        trainer.config.model_copy(update={"length_warmup": 0.0}),
        objective=trainer.objective,
        state=TrainState(plan=StepPlan(steps=1_000_000, eval_every=1)),
        device=trainer.device,
        group=trainer.group,
        backward=trainer.backward,
    )
    found = median_seconds(trial.train_step, should_stop, seconds=seconds, group=trainer.group)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
            p.grad = None
    return found
