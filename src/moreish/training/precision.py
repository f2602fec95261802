"""What a training would like to use, and what it does where a machine or a model lacks it."""

import os
import shutil

import torch

from moreish.config import TrainConfig
from moreish.models import Model

FUSED = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices with optimizers whose whole update is one kernel."""

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What products are in; "auto" wants on CUDA GPUs bfloat16, or float16 where they are made for
    that only."""
    if config.precision == "auto" and device.type == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if bfloat16 else torch.float16
    if config.precision == "auto" or not torch.amp.is_autocast_available(device.type):
        return torch.float32
    return TYPES[config.precision]


def can_compile(config: TrainConfig, device: torch.device) -> bool:
    """Whether the model is to be compiled, and can be: for a CPU that takes a C++ compiler."""
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")
    return config.compile and (device.type != "cpu" or any(map(shutil.which, compilers)))


def checkpointable_models(model: Model) -> list[Model]:
    """The parts of `model` whose layers can be reckoned again on the way back."""
    return [
        part
        for part in model.modules()
        if isinstance(part, Model) and part.supports_activation_checkpointing
    ]


def unsupported_settings(config: TrainConfig, model: Model, device: torch.device) -> list[str]:
    """What was asked for and is not to be had here, as sentences for the user."""
    notes = []
    if config.compile and not can_compile(config, device):
        notes.append("train.compile needs a C++ compiler, such as g++: not compiled")
    if config.precision != "auto" and resolve_precision(config, device) != TYPES[config.precision]:
        notes.append(f"a {device.type} device has no {config.precision} products: float32 instead")
    if config.activation_checkpointing and not checkpointable_models(model):
        notes.append("train.activation_checkpointing has no effect: this model has no GPT layers")
    return notes
