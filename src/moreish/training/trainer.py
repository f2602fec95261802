"""The training loop, which is independent of run folders and terminals."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from moreish.config import TrainConfig
from moreish.data import Batch, BatchSampler
from moreish.distributed import SINGLE_PROCESS, ProcessGroup, full_tensor, load_state, local_tensor
from moreish.models import Model
from moreish.training.divergence import (
    MAX_ROLLBACKS,
    MAX_SKIPPED_STEPS,
    DivergenceError,
    NonFiniteError,
    continue_after_rollback,
    locate_non_finite,
)
from moreish.training.evaluation import evaluate, is_evaluation_due
from moreish.training.events import Hooks, Rollback, Skipped, Step
from moreish.training.flops import FlopCounter, device_peak_flops
from moreish.training.gradients import Backward
from moreish.training.loss_scaling import with_loss_scaling
from moreish.training.objectives import Objective
from moreish.training.optim import build_optimizer, set_lr
from moreish.training.precision import checkpointable_models
from moreish.training.schedule import lr_at
from moreish.training.state import TrainState, replan

LENGTH_WARMUP_FACTOR = 4
"""Factor by which windows are shorter during the length warmup."""

MIN_SECONDS_BETWEEN_CHECKPOINTS = 30


class Trainer:
    """Trains a model on the batches of a sampler, from a state to the end of its plan."""

    def __init__(
        self,
        model: Model,
        sampler: BatchSampler,
        config: TrainConfig,
        *,
        objective: Objective,
        state: TrainState,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """Create a trainer.

        Args:
            model: the model to train; it is moved to `device`.
            sampler: returns the batch of each step.
            config: training settings; its learning rate must be a number.
            objective: the function to minimize.
            state: where the run starts.
            device: where the model is trained.
            group: the processes that train together.
        """
        self.model, self.group = model.to(device), group
        for part in checkpointable_models(model):
            part.activation_checkpointing = config.activation_checkpointing
        self.sampler, self.short_sampler = sampler, sampler
        if config.length_warmup:
            self.short_sampler = sampler.with_shorter_windows(LENGTH_WARMUP_FACTOR)
        self.config, self.objective, self.state, self.device = config, objective, state, device
        self.optimizer = build_optimizer(model, config)
        self.backward = Backward(self.model, objective, config, device, group)
        self.last_scoring_seconds = 0.0
        self._parameters = list(self.model.parameters())
        self._flops, self._peak_flops = FlopCounter(self.model), device_peak_flops(device)
        # On a CPU only its generator is seeded: seeding every kind of device is 70 times slower.
        is_cpu = device.type == "cpu"
        self._manual_seed = torch.default_generator.manual_seed if is_cpu else torch.manual_seed
        self._prefetched: tuple[Any, ...] = ()
        self._saved_at = 0.0

    def reset(self, model: Model, state: TrainState) -> None:
        """Restart at `state`, with the weights of `model` and a new optimizer."""
        load_state(self.model, model.state_dict())
        self.optimizer = build_optimizer(self.model, self.config)
        self.state = state

    def train(self, hooks: Hooks) -> str:
        """Train to the end of the plan.

        Steps with a non-finite loss or gradient are skipped. After several in a row the run
        is rolled back to its last checkpoint and continues with a lower learning rate.

        Returns:
            "finished", "stopped early" or "interrupted".

        Raises:
            DivergenceError: the numbers stay non-finite after several rollbacks.
        """
        while True:
            try:
                return self._train_until_non_finite(hooks)
            except NonFiniteError as error:
                self._roll_back(str(error), hooks)

    def _train_until_non_finite(self, hooks: Hooks) -> str:
        state, config, status = self.state, self.config, "finished"
        self._saved_at = state.seconds
        if config.eval_at_start and state.step == 0 and state.best is None:
            evaluate(state, hooks, self.group)
            # It is done once, so it says nothing about how long the steps to come take.
            state.overhead_seconds += state.last_eval_seconds
            state.eval_seconds -= state.last_eval_seconds
        while state.step < state.plan.steps:
            # A resumed run may already have used up its patience.
            if 0 < config.patience <= state.evaluations_since_best:
                status = "stopped early"
                break
            if self.group.any(hooks.should_stop()):
                status = "interrupted"
                break
            began = time.perf_counter()
            event = self.train_step()
            state.seconds += self.group.seconds_since(began)
            hooks.report(event)
            if isinstance(event, Skipped) and state.skipped_in_a_row >= MAX_SKIPPED_STEPS:
                raise NonFiniteError(event.why)
            if is_evaluation_due(state, config):
                self.last_scoring_seconds = evaluate(state, hooks, self.group)
            replan(state, config.minutes)
            if self._is_checkpoint_due():
                self._save_checkpoint(hooks)
        self._save_checkpoint(hooks)
        return status

    def train_step(self) -> Step | Skipped:
        """Take one optimizer step, unless the loss or its gradient is not finite."""
        state = self.state
        began = time.perf_counter()
        lr = state.lr_scale * lr_at(self.config, state.plan.progress(state.step))
        set_lr(self.optimizer, lr)
        if not self.model.training:
            self.model.train()
        batch = self._batch(state.step)
        if self.backward.needs_loss_scaling:
            loss, norm = with_loss_scaling(state, lambda scale: self._gradient(batch, scale))
        else:
            loss, norm = self._gradient(batch, 1.0)
        self._batch(state.step + 1)  # prefetch it while a GPU still computes
        loss_value, norm_value = loss.item(), full_tensor(norm).item()
        state.step += 1
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            state.skipped_in_a_row += 1
            why = f"loss {loss_value:.3g}, gradient norm {norm_value:.3g}"
            return Skipped(step=state.step, why=why)
        state.skipped_in_a_row = 0
        self.optimizer.step()
        state.tokens += batch.num_targets
        flops = self._flops.per_batch(batch) / (time.perf_counter() - began) / self.group.size
        steps = state.step - state.first_step
        step_seconds = (state.seconds - state.overhead_seconds) / steps
        return Step(
            step=state.step,
            steps=state.plan.steps,
            loss=loss_value,
            lr=lr,
            gradient_norm=norm_value,
            tokens=state.tokens,
            seconds=state.seconds,
            seconds_left=step_seconds * (state.plan.steps - state.step),
            mfu=self._peak_flops and flops / self._peak_flops,
        )

    def _gradient(self, batch: Batch, loss_scale: float) -> tuple[Tensor, Tensor]:
        """Compute the gradient of the objective and clip it; return the loss, and the norm of its
        gradient before clipping."""
        self._seed(self.state.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(batch, loss_scale)
        if loss_scale != 1:
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(loss_scale)
        return loss, nn.utils.clip_grad_norm_(self._parameters, self.config.clip or math.inf)

    def _seed(self, step: int) -> None:
        """Seed dropout from the run's seed, the step and the rank, as the sampler does batches."""
        seed = self.sampler.seed * 1_000_003 + step + self.group.rank * 2**32
        self._manual_seed(seed % 2**63)

    def _sampler(self, step: int) -> BatchSampler:
        is_warmup = self.state.plan.progress(step) < self.config.length_warmup
        return self.short_sampler if is_warmup else self.sampler

    def _batch(self, step: int) -> Batch:
        """Return the batch of a step, which was prefetched unless it is the first, or a rollback or
        a new plan came between."""
        sampler = self._sampler(step)
        if self._prefetched[:2] != (step, sampler):
            self._prefetched = step, sampler, sampler.batch(step)
        return self._prefetched[2]

    def _is_checkpoint_due(self) -> bool:
        state = self.state
        if state.skipped_in_a_row:  # a rollback may be near, and needs an earlier checkpoint
            return False
        if self.config.checkpoint_every is not None:
            return state.step % self.config.checkpoint_every == 0
        is_evaluated = state.step % state.plan.eval_every == 0
        return is_evaluated and state.seconds - self._saved_at > MIN_SECONDS_BETWEEN_CHECKPOINTS

    def _save_checkpoint(self, hooks: Hooks) -> None:
        is_finite = all(bool(local_tensor(p).isfinite().all()) for p in self.model.parameters())
        if self.group.any(not is_finite):
            raise NonFiniteError("a weight is not finite")
        began = time.perf_counter()
        hooks.save_checkpoint()
        seconds = self.group.seconds_since(began)
        if self.state.step < self.state.plan.steps:
            self.state.seconds += seconds
        self._saved_at = self.state.seconds

    def _roll_back(self, why: str, hooks: Hooks) -> None:
        if self.state.rollbacks == MAX_ROLLBACKS:
            step = self.state.step
            self._seed(step - 1)
            batch = self._sampler(step - 1).batch(step - 1)
            parts = (part.to(self.device) for part in batch.split(self.config.accumulate))
            model = self.model.train()
            origins = (locate_non_finite(model, self.objective, part) for part in parts)
            origin = next(filter(None, origins), "")
            raise DivergenceError(
                f"training diverged at step {step}: {why}{origin}. It was rolled back to a "
                f"checkpoint {MAX_ROLLBACKS} times, each time with a third of the learning rate; "
                f"try a lower --set train.lr (it was {self.config.lr:.3g})",
                batch,
            )
        before = self.state
        hooks.restore()
        continue_after_rollback(self.state, before)
        assert isinstance(self.config.lr, float)
        lr = self.state.lr_scale * self.config.lr
        hooks.report(Rollback(step=self.state.step, why=why, lr=lr))
