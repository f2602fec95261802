"""Statistics of activations, gradients and updates, layer by layer (makemore, part 3)."""

import copy
import math
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from moreish.models import CountBasedModel
from moreish.runs import Run
from moreish.training import build_optimizer, build_sampler, next_token_loss, set_lr

SATURATION = 0.97
"""A tanh beyond this value passes almost no gradient; likewise a sigmoid that close to 0 or 1."""

NUM_STEPS = 10
"""The training steps taken before the update is measured: AdamW's first ones are larger."""


def layer_statistics(run: Run) -> list[dict[str, Any]]:
    """Measure every weight matrix and activation function of a trained network.

    Trains a copy of the model for a few more steps at the run's peak learning rate.

    Returns:
        In order of execution, for each layer: `name`, `spread` (standard deviation of the output),
        `inactive` (the fraction of saturated or dead units) with its `kind`, `gradient` (standard
        deviation), and `update` (standard deviation of one step relative to that of the weights).
        Empty for models that are counted.
    """
    if isinstance(run.model, CountBasedModel):
        return []
    model, config = copy.deepcopy(run.model).train(), run.config.train
    model.fit_counts(run.split("train"))
    sampler = build_sampler(run.config, run.split("train"), model)
    optimizer = build_optimizer(model, config)
    assert isinstance(config.lr, float)
    set_lr(optimizer, config.lr)
    layers: dict[str, dict[str, Any]] = {}
    for step in range(NUM_STEPS):
        batch = sampler.batch(step)
        with LayerRecorder(model) if step == 0 else nullcontext() as recorder:
            loss = next_token_loss(model, batch)
        layers = layers if recorder is None else recorder.layers
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf)
        if step == NUM_STEPS - 1:
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            gradients = {n: p.grad.std() for n, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
    for name, weight in model.named_parameters():
        layer = layers.get(name.removesuffix(".weight"))
        if weight.ndim == 2 and layer is not None and name in gradients:
            layer["gradient"] = float(gradients[name])
            update = (weight.detach() - before[name]).std()
            layer["update"] = float(update / before[name].std().clamp(min=1e-12))
    return list(layers.values())


class LayerRecorder(TorchFunctionMode):
    """While open, record the outputs of each weight matrix and activation function of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.layers: dict[str, dict[str, Any]] = {}
        self._module_names: list[str] = []
        self._active: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(partial(self._leave, name))

    def _enter(self, name: str, *_: Any) -> None:
        self._module_names.append(name)

    def _leave(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        self._module_names.pop()
        if isinstance(module, nn.Linear | nn.Embedding):
            self._record(name, output)

    def _record(
        self, name: str, output: Tensor, inactive: float | None = None, kind: str = ""
    ) -> None:
        """Update the running means; a recurrent network calls its layers once per token."""
        new = {"name": name, "calls": 0, "spread": 0.0, "inactive": inactive, "kind": kind}
        layer = self.layers.setdefault(name, {**new, "gradient": None, "update": None})
        layer["calls"] += 1
        layer["spread"] += (float(output.detach().float().std()) - layer["spread"]) / layer["calls"]
        if inactive is not None:
            layer["inactive"] += (inactive - layer["inactive"]) / layer["calls"]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        function = getattr(func, "__name__", "")
        module = self._module_names[-1] if self._module_names else ""
        name = ".".join(filter(None, [module, function]))
        match function:
            case "tanh" | "sigmoid":
                value = output.detach() if function == "tanh" else 2 * output.detach() - 1
                saturated = float((value.abs() > SATURATION).float().mean())
                self._record(name, output, saturated, "saturated")
            case "relu" | "gelu" | "silu":
                # GELU and SiLU never output exactly zero, but below -4 they almost do.
                is_active = args[0].detach() > (0.0 if function == "relu" else -4.0)
                units = is_active.flatten(0, -2).any(dim=0)
                active = self._active[name] = self._active.get(name, units) | units
                self._record(name, output, 0.0, "dead")
                self.layers[name]["inactive"] = float(1 - active.float().mean())
        return output
