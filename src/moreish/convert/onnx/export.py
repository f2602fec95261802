"""Runs as folders for ONNX Runtime, checked with it.

B batch, T time, V vocabulary.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor

from moreish.convert.export import (
    GREEDY,
    Agreement,
    DisagreementError,
    Export,
    first_token,
    greedy_agreement,
    largest_difference,
    some_text,
)
from moreish.convert.onnx import generate_template as onnx_generate
from moreish.convert.onnx.counts import stepwise
from moreish.convert.onnx.networks import StepwiseGPT
from moreish.convert.onnx.step import BATCH, Stepwise
from moreish.runs import Run
from moreish.utils.files import encode_json, write_atomic

TOLERANCE = 1e-4
"""Of logits."""

LARGEST = 1_500_000_000
"""Bytes of weights in model.onnx; what is larger goes into a file beside it. A protobuf message
holds two gigabytes."""

LONGEST = 256
"""Tokens that are compared at a time."""


@final
class ToOnnx(Export):
    """A folder with model.onnx, whose inputs are tokens and what was read before them."""

    program = "ONNX Runtime"
    libraries = ("onnx", "onnxscript", "onnxruntime")
    library_name = "onnx"
    main_file = "model.onnx"

    def __init__(self, run: Run, steps: Stepwise) -> None:
        self.run, self.steps = run, steps
        self.kind = run.config.model.name

    @classmethod
    def of(cls, run: Run) -> Self:
        return cls(run, stepwise(run.model))

    def write(self, folder: Path) -> None:
        write_atomic(folder / "tokenizer.json", encode_json(self.run.tokenizer.to_json()))
        example = Path(onnx_generate.__file__).read_bytes()
        write_atomic(folder / "generate.py", example)
        program = self._program()
        size = sum(t.numel() * t.element_size() for t in self.steps.state_dict().values())
        program.save(folder / self.main_file, external_data=size > LARGEST)

    def _program(self) -> Any:
        """The model as ONNX has it."""
        starts = self.steps.starts
        names = list(starts)
        example = torch.zeros(2, 2, dtype=torch.int64), *(s.zeros(2, 3) for s in starts.values())
        unknown = tuple(start.unknown for start in starts.values())
        sizes = ({0: BATCH, 1: "length"}, *([unknown] if starts else []))
        with _quietly(), torch.no_grad():
            program: Any = torch.onnx.export(
                self.steps,
                example,
                dynamo=True,
                input_names=["tokens", *names],
                output_names=["logits", *(f"new_{name}" for name in names)],
                dynamic_shapes=sizes,
                verbose=False,
            )
        for name, fact in self._facts().items():
            program.model.metadata_props[name] = "" if fact is None else str(fact)
        return program

    def _facts(self) -> dict[str, int | str | None]:
        """What a program has to know beside the shapes of the inputs."""
        gpts = [part for part in self.steps.modules() if isinstance(part, StepwiseGPT)]
        context = gpts[0].model.context if gpts else None
        return {
            "boundary": self.run.tokenizer.boundary_id,
            "never": self.run.tokenizer.unk_id,
            "context": context,
            "past": "slides" if gpts and gpts[0].model.position is None else "ends",
        }

    def usage(self) -> str:
        return """
`python generate.py --prompt "The " --temperature 0.8` writes text; it needs only `numpy` and
`onnxruntime`, and its two classes can be taken into a program of your own.

`model.onnx` takes `tokens` (batch × length, int64) and what was read before them, and gives
`logits` (batch × length × vocabulary) after each of them, and what is to be given with the next
tokens: `new_X` for every input `X`. All inputs but the tokens begin as zeros of their shape, where
`past` is 0. The file's metadata say which token begins and ends a text (`boundary`), which is not
to be written (`never`), how many tokens the model can hold (`context`), and whether the oldest of
the past may be left out when there are more (`past` = `slides`) or it is to be begun anew with the
newer half (`ends`), as `generate.py` does.
"""

    @torch.inference_mode()
    def agreement(self, folder: Path) -> Agreement:
        run, theirs = self.run, onnx_generate.Model(folder / self.main_file)
        text = some_text(run)
        try:
            ids = onnx_generate.Tokenizer(folder / "tokenizer.json").encode(text)
        except SystemExit as error:
            raise DisagreementError(str(error)) from None
        if ids != run.tokenizer.encode(text).tolist():
            raise DisagreementError(f"{text[:30]!r} becomes other tokens")
        difference = 0.0
        for batch, pieces in _readings(run.model.max_length):
            tokens_BT = _tokens(run, ids, batch, sum(pieces))
            theirs.start(batch)
            state = None
            for piece_BT in tokens_BT.split(pieces, dim=1):
                expected_BTV, state = run.model(piece_BT, state)
                found_BTV = torch.from_numpy(theirs.read(piece_BT.numpy()))
                difference = max(difference, largest_difference(found_BTV, expected_BTV))
        if not difference < TOLERANCE:
            raise DisagreementError(f"logits differ by {difference:.2g}")
        theirs.start()
        last, written = first_token(run), []
        for _ in range(GREEDY):
            last = int(theirs.read([[last]])[0, -1].argmax())
            written.append(last)
        alike, ties = greedy_agreement(run.model, first_token(run), written, TOLERANCE)
        return Agreement(difference=difference, alike=alike, ties=ties)


def _readings(max_length: int | None) -> Iterator[tuple[int, list[int]]]:
    """How many texts are to be read side by side, and in pieces of how many tokens: at once at
    several lengths, and step by step to beyond what the model can hold."""
    longest = min(max_length or LONGEST, LONGEST)
    for batch, length in enumerate(sorted({1, min(2, longest), (longest + 1) // 2, longest}), 1):
        yield batch, [length]
    yield 1, [1] * (longest + min(longest, 16))
    yield 3, [min(piece, longest) for piece in (3, 1, 1, 2, 1, 5, 1, 1)]


def _tokens(run: Run, ids: list[int], batch: int, length: int) -> Tensor:
    """(B, T) a text that the model knows, over and over, and whatever tokens below it."""
    known = [first_token(run), *ids]
    random = np.random.default_rng(0).integers(run.model.vocab_size, size=(batch, length))
    random[0] = np.resize(known, length)
    return torch.from_numpy(random)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the library says about itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
