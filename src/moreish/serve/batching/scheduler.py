"""Continuous batching: sequences of many requests are decoded together.

Shape suffixes: R sequences in a step, V vocabulary.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from moreish.generate import Sampling, sample_tokens, sampling_probabilities
from moreish.models import Model
from moreish.serve.batching.batch_invariance import min_invariant_batch, transpose_weights
from moreish.serve.batching.requests import (
    PREFILL_CHUNK,
    FinishReason,
    GenerationRequest,
    LogprobFormatter,
    Prefill,
    SequenceDelta,
    SequenceOutput,
    SequenceState,
    TokenLogprob,
)
from moreish.tokenizers import Tokenizer


class BatchScheduler:
    """Schedules sequences: those that are decoded together, and those that wait for a slot.

    The text of a sequence does not depend on the others: its prompt is read separately, its tokens
    are sampled with its own random numbers, and each row of a step has the same bits whatever the
    other rows are (`min_invariant_batch` finds the smallest number of rows for which that is so).
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, slots: int) -> None:
        """
        Args:
            model: the memory layout of its weights is changed: see `transpose_weights`.
            tokenizer: the model's tokenizer.
            slots: maximum number of sequences in a step.
        """
        self.model, self.tokenizer, self.slots = transpose_weights(model), tokenizer, slots
        self.device = model.device
        self.waiting: deque[SequenceState] = deque()
        self.running: list[SequenceState] = []
        self.num_generated = 0
        """Tokens of all sequences so far."""
        self.formatter = LogprobFormatter(tokenizer)
        self.min_rows = min_invariant_batch(model, slots, self.device)
        with torch.inference_mode():
            zero_11 = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            _, self._padding_state = model(zero_11)

    def add(self, request: GenerationRequest) -> None:
        """Append the sequences of a request to the queue."""
        index = 0
        for sequence in request.sequences:
            prefill = Prefill(sequence, self.model, self.formatter)
            for seed_index in range(sequence.first_index, sequence.first_index + sequence.n):
                self.waiting.append(SequenceState(request, prefill, index, seed_index))
                index += 1

    @property
    def is_idle(self) -> bool:
        """Whether no sequence is running or waiting."""
        return not self.waiting and not self.running

    def clear(self) -> list[GenerationRequest]:
        """Drop all sequences and return the requests that they belonged to."""
        requests = list(dict.fromkeys(s.parent for s in (*self.running, *self.waiting)))
        self.waiting.clear()
        self.running.clear()
        return requests

    @torch.inference_mode()
    def step(self) -> Iterator[SequenceOutput]:
        """Generate a token of each running sequence, then start some that wait."""
        self.running = [s for s in self.running if not s.parent.is_over]
        self.waiting = deque(s for s in self.waiting if not s.parent.is_over)
        if self.running:
            yield from self._sample(self.running, self._decode())
        if admitted := self._admit():
            yield from self._start(admitted)

    def _admit(self) -> list[SequenceState]:
        """Read prompts of waiting sequences and return those that are ready to start."""
        ready: list[SequenceState] = []
        budget = PREFILL_CHUNK
        while self.waiting and budget > 0 and len(self.running) + len(ready) < self.slots:
            sequence = self.waiting.popleft()
            if not sequence.prefill.is_finished:
                budget -= sequence.prefill.read_chunk(self.model, self.device)
            if sequence.prefill.is_finished:
                sequence.state = sequence.prefill.state
                ready.append(sequence)
            else:  # a long prompt must not delay all others
                self.waiting.append(sequence)
        return ready

    def _start(self, admitted: list[SequenceState]) -> Iterator[SequenceOutput]:
        """Echo prompts and sample first tokens."""
        for sequence in admitted:
            if sequence.request.echo:
                yield sequence.parent, sequence.index, sequence.echo_prompt()
            if sequence.request.max_tokens == 0:
                yield sequence.parent, sequence.index, SequenceDelta(finish_reason="length")
        started = [sequence for sequence in admitted if sequence.request.max_tokens > 0]
        if started:
            self.running += started
            yield from self._sample(started, torch.stack([s.prefill.logits_V for s in started]))

    def _decode(self) -> Tensor:
        """Return the (R, V) logits after the last token of each running sequence."""
        if self.min_rows == 0:
            return torch.cat([self._decode_rows([sequence]) for sequence in self.running])
        return self._decode_rows(self.running)

    def _decode_rows(self, sequences: list[SequenceState]) -> Tensor:
        padding = max(0, self.min_rows - len(sequences))
        tokens = [sequence.last_token for sequence in sequences] + [0] * padding
        states = [sequence.state for sequence in sequences] + [self._padding_state] * padding
        token_R = torch.tensor(tokens, device=self.device)
        logits_RV, states = self.model.decode_step(token_R, states)
        for sequence, state in zip(sequences, states, strict=False):
            sequence.state = state
        return logits_RV[: len(sequences)].float().cpu()

    def _sample(
        self, sequences: list[SequenceState], logits_RV: Tensor
    ) -> Iterator[SequenceOutput]:
        """Sample a token of each sequence and retire the sequences that are complete."""
        if (unk := self.tokenizer.unk_id) is not None:
            logits_RV = logits_RV.index_fill(1, torch.tensor([unk]), -torch.inf)
        tokens = self._sample_tokens(sequences, logits_RV)
        finished = set()
        for row, (sequence, token) in enumerate(zip(sequences, tokens, strict=True)):
            delta = self._append_token(sequence, token, logits_RV[row])
            if delta.finish_reason is not None:
                finished.add(sequence)
            yield sequence.parent, sequence.index, delta
        self.running = [sequence for sequence in self.running if sequence not in finished]

    def _sample_tokens(self, sequences: list[SequenceState], logits_RV: Tensor) -> list[int]:
        # No item is empty (see `moreish.generate.decode.generate`).
        if starts := [row for row, sequence in enumerate(sequences) if sequence.starts_item]:
            logits_RV = logits_RV.clone()
            logits_RV[starts, self.tokenizer.boundary_id] = -torch.inf
        if any(sequence.repetitions is not None for sequence in sequences):
            logits_RV = torch.cat(
                [
                    logits_1V if sequence.repetitions is None else sequence.repetitions(logits_1V)
                    for sequence, logits_1V in zip(sequences, logits_RV.split(1), strict=True)
                ]
            )
        tokens = [0] * len(sequences)
        rows_by_sampling: dict[Sampling, list[int]] = {}
        for row, sequence in enumerate(sequences):
            if sequence.constraint is None:
                rows_by_sampling.setdefault(sequence.request.sampling, []).append(row)
            else:
                tokens[row] = sequence.sample_constrained(logits_RV[row : row + 1])
        for sampling, rows in rows_by_sampling.items():
            probs_RV = sampling_probabilities(logits_RV[rows], sampling)
            uniforms = [sequences[row].next_uniform() for row in rows]
            uniform_R = torch.tensor(uniforms, dtype=torch.float64)
            for row, token in zip(rows, sample_tokens(probs_RV, uniform_R).tolist(), strict=True):
                tokens[row] = token
        return tokens

    def _append_token(self, sequence: SequenceState, token: int, logits_V: Tensor) -> SequenceDelta:
        """Append a token to a sequence and return what it adds to the text."""
        request, detokenizer = sequence.request, sequence.detokenizer
        finish_reason: FinishReason | None = None
        text, num_tokens = "", 0
        if request.logprobs is not None:
            offset = sequence.echo_length + detokenizer.num_decoded
            sequence.pending_logprobs += self.formatter.format(
                [token], logits_V[None], [offset], request.logprobs, sequence.last_token
            )
        if token == self.tokenizer.boundary_id:
            finish_reason = "stop"
        else:
            if sequence.repetitions is not None:
                sequence.repetitions.add(torch.tensor([token]))
            text = detokenizer.add(
                self.tokenizer.decode_bytes(np.array([token]), sequence.last_token)
            )
            sequence.last_token = token
            sequence.num_generated += 1
            self.num_generated += 1
            num_tokens = 1
            if detokenizer.stopped:
                finish_reason = "stop"
            elif sequence.num_generated == request.max_tokens:
                finish_reason = "length"
        log_weight = 0.0
        if finish_reason is not None:
            text += detokenizer.finish()
            if sequence.constraint is not None:
                log_weight = float(sequence.constraint.log_weight_B[0])
        complete = finish_reason is not None and not detokenizer.stopped
        return SequenceDelta(
            text=text,
            tokens=_release_logprobs(sequence, complete=complete),
            num_tokens=num_tokens,
            finish_reason=finish_reason,
            log_weight=log_weight,
        )


def _release_logprobs(sequence: SequenceState, *, complete: bool) -> tuple[TokenLogprob, ...]:
    """Take the tokens whose text was released; all that are left, if the text is complete."""
    pending = sequence.pending_logprobs
    count = len(pending)
    if not complete:
        end = sequence.echo_length + sequence.detokenizer.num_released
        count = sum(1 for token in pending if token.offset < end)
    sequence.pending_logprobs = pending[count:]
    return tuple(pending[:count])
