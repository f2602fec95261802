"""Settings that depend on the device or the model, and their fallbacks."""

import os
import shutil

import torch

from moreish.config import TrainConfig
from moreish.models import Model

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Device types that have fused optimizers: one kernel for the whole update."""

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Return the data type of matrix products; "auto" is bfloat16 on CUDA GPUs that support it,
    float16 on other CUDA GPUs, and float32 elsewhere."""
    if config.precision == "auto" and device.type == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if bfloat16 else torch.float16
    if config.precision == "auto" or not torch.amp.is_autocast_available(device.type):
        return torch.float32
    return TYPES[config.precision]


def can_compile(config: TrainConfig, device: torch.device) -> bool:
    """Whether to compile the model: if requested and, for CPUs, if there is a C++ compiler."""
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")
    return config.compile and (device.type != "cpu" or any(map(shutil.which, compilers)))


def checkpointable_models(model: Model) -> list[Model]:
    """Return the parts of `model` that support activation checkpointing."""
    return [
        part
        for part in model.modules()
        if isinstance(part, Model) and part.supports_activation_checkpointing
    ]


def unsupported_settings(config: TrainConfig, model: Model, device: torch.device) -> list[str]:
    """Return a note for the user for each setting that has no effect here."""
    notes = []
    if config.compile and not can_compile(config, device):
        notes.append("train.compile needs a C++ compiler, such as g++: not compiled")
    if config.precision != "auto" and resolve_precision(config, device) != TYPES[config.precision]:
        notes.append(f"{config.precision} is not supported on {device.type}: using float32")
    if config.activation_checkpointing and not checkpointable_models(model):
        notes.append("train.activation_checkpointing has no effect: this model has no GPT layers")
    return notes
