"""Exports runs as ONNX models and checks them with ONNX Runtime.

B batch, T positions, V vocabulary.
"""

import logging
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from moreish.convert.exporter import (
    GREEDY_TOKENS,
    Exporter,
    ParityError,
    ParityResult,
    max_abs_difference,
)
from moreish.convert.onnx import generate_template
from moreish.convert.onnx.counts import make_exportable
from moreish.convert.onnx.networks import ExportableGPT
from moreish.convert.onnx.step import BATCH
from moreish.runs import Run
from moreish.utils.files import encode_json, write_atomic

TOLERANCE = 1e-4
"""The largest difference of logits that passes the parity check."""

MAX_INLINE_BYTES = 1_500_000_000
"""Larger weights go into a file next to model.onnx: a protobuf message is limited to 2 GB."""

MAX_CHECKED_LENGTH = 256
"""The longest sequence of the parity check that is read in one call."""


@final
class ONNXExporter(Exporter):
    """Writes model.onnx, a function of tokens and state, and a script that generates with it."""

    program = "ONNX Runtime"
    libraries = ("onnx", "onnxscript", "onnxruntime")
    library_name = "onnx"
    main_file = "model.onnx"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.exportable = make_exportable(run.model)
        self.architecture = run.config.model.name

    def write(self, folder: Path) -> None:
        write_atomic(folder / "tokenizer.json", encode_json(self.run.tokenizer.to_json()))
        script = Path(generate_template.__file__).read_bytes()
        write_atomic(folder / "generate.py", script)
        program = self._onnx_program()
        size = sum(t.numel() * t.element_size() for t in self.exportable.state_dict().values())
        program.save(folder / self.main_file, external_data=size > MAX_INLINE_BYTES)

    def _onnx_program(self) -> Any:
        specs = self.exportable.state_specs
        example = torch.zeros(2, 2, dtype=torch.int64), *(s.zeros(2, 3) for s in specs.values())
        dynamic_dims = tuple(spec.dynamic_dims for spec in specs.values())
        with _quiet_export(), torch.no_grad():
            program: Any = torch.onnx.export(
                self.exportable,
                example,
                dynamo=True,
                input_names=["tokens", *specs],
                output_names=["logits", *(f"new_{name}" for name in specs)],
                dynamic_shapes=({0: BATCH, 1: "length"}, *([dynamic_dims] if specs else [])),
                verbose=False,
            )
        for name, value in self._metadata().items():
            program.model.metadata_props[name] = "" if value is None else str(value)
        return program

    def _metadata(self) -> dict[str, int | str | None]:
        """Return what a program must know besides the shapes of the inputs."""
        gpts = [part for part in self.exportable.modules() if isinstance(part, ExportableGPT)]
        slides = bool(gpts) and gpts[0].model.position is None
        return {
            "boundary_token": self.run.tokenizer.boundary_id,
            "suppressed_token": self.run.tokenizer.unk_id,
            "context_length": gpts[0].model.context if gpts else None,
            "context_overflow": "slide" if slides else "restart",
        }

    def usage(self) -> str:
        prompt = shlex.quote(self.example_prompt())
        return f"""
`python generate.py --prompt {prompt} --temperature 0.8` generates text. It needs only `numpy` and
`onnxruntime`; its two classes can be copied into other programs.

Inputs of `model.onnx`: `tokens` (batch × length, int64), and the state. Outputs: `logits` (batch ×
length × vocabulary) after each token, and for every state input `X` an output `new_X`, which is the
`X` of the next call. Every state input starts as zeros of its declared shape, with `past` = 0.

Metadata of the file:

- `boundary_token`: begins and ends every text; empty if there is none.
- `suppressed_token`: must not be generated; empty if there is none.
- `context_length`: how many tokens the model can attend to; empty if unlimited.
- `context_overflow`: what to do beyond that: `slide` (drop the oldest keys and values) or `restart`
  (clear the state and read the newer half of the context again), as `generate.py` does.
"""

    @torch.inference_mode()
    def check_parity(self, folder: Path) -> ParityResult:
        run, exported = self.run, generate_template.ONNXModel(folder / self.main_file)
        text = self.validation_text()
        try:
            tokenizer = generate_template.StandaloneTokenizer(folder / "tokenizer.json")
        except ImportError as error:
            raise ParityError(str(error)) from None
        ids = generate_template.encode_prompt(tokenizer, exported, text)
        self.check_encoding(text, ids)
        difference = 0.0
        for batch, lengths in _checked_shapes(run.model.max_length):
            # The first sequence is a text from the vocabulary, the others are random tokens.
            rng = np.random.default_rng(0)
            tokens = rng.integers(run.model.vocab_size, size=(batch, sum(lengths)))
            tokens[0] = np.resize(ids, sum(lengths))
            exported.reset(batch)
            state = None
            for part_BT in torch.from_numpy(tokens).split(lengths, dim=1):
                expected_BTV, state = run.model(part_BT, state)
                actual_BTV = torch.from_numpy(exported.forward(part_BT.numpy()))
                difference = max(difference, max_abs_difference(actual_BTV, expected_BTV))
        exported.reset()
        prompt = generate_template.encode_prompt(tokenizer, exported, self.prompt(text))
        generated = [int(exported.forward([prompt])[0, -1].argmax())]
        while len(generated) < GREEDY_TOKENS:
            generated.append(int(exported.forward([generated[-1:]])[0, -1].argmax()))
        return self.parity_result(difference, TOLERANCE, prompt, generated, TOLERANCE)


def _checked_shapes(max_length: int | None) -> Iterator[tuple[int, list[int]]]:
    """Yield batch sizes, and how many tokens each call reads: whole sequences of several lengths,
    then token by token beyond the context."""
    longest = min(max_length or MAX_CHECKED_LENGTH, MAX_CHECKED_LENGTH)
    for batch, length in enumerate(sorted({1, min(2, longest), (longest + 1) // 2, longest}), 1):
        yield batch, [length]
    yield 1, [1] * (longest + min(longest, 16))
    yield 3, [min(length, longest) for length in (3, 1, 1, 2, 1, 5, 1, 1)]


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Suppress the warnings and log lines of `torch.onnx.export`."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
