"""Constraints to deterministic finite automata over a vocabulary.

Every constraint becomes a nondeterministic automaton (Thompson 1968); together they are made
deterministic, state by state (Rabin and Scott 1959), which is work that can be bounded.

S states, V vocabulary, K classes of tokens that no constraint distinguishes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moreish.errors import MoreishError

MAX_STATES = 10_000
"""Some patterns (`.*a.{20}`) need millions of states."""

Test = Callable[[str], bool]
"""Whether a transition accepts a character."""

States = tuple[frozenset[int], ...]
"""The states that each constraint's automaton can be in."""


@dataclass(frozen=True, eq=False)
class Dfa:
    """A deterministic automaton: state 0 is the start, and nothing leads out of the last one."""

    next_SV: NDArray[np.int64]
    accepts_S: NDArray[np.bool_]


class Nfa:
    """Nondeterministic automata, all of which a text must satisfy."""

    def __init__(self, *, seconds: float, too_large: str) -> None:
        """
        Args:
            seconds: deadline, from now.
            too_large: message of the MoreishError raised beyond the deadline or `MAX_STATES`.
        """
        self._deadline, self._too_large = time.monotonic() + seconds, too_large
        self._transitions: list[list[tuple[Test, int]]] = []
        self._epsilon: list[list[int]] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.add_literal("", anywhere=True)

    def add_regex(self, pattern: Any) -> None:
        """Require that the whole text matches `pattern`, as parsed by greenery."""
        self._starts.append(self._new_state())
        self._ends.append(self._add(pattern, self._starts[-1]))

    def add_literal(self, literal: str, *, anywhere: bool) -> None:
        """Require that the text ends with `literal`, or contains it."""
        state = self._new_state()
        self._starts.append(state)
        self._transitions[state].append((lambda character: True, state))
        for character in literal:
            state = self._step(state, character.__eq__)
        if anywhere:
            self._transitions[state].append((lambda character: True, state))
        self._ends.append(state)

    def to_dfa(self, characters: Sequence[str]) -> Dfa:
        """Combine all constraints into one deterministic automaton.

        Args:
            characters: the character of each token; empty for tokens that cannot occur in a text.
        """
        tests = list({test for transitions in self._transitions for test, _ in transitions})
        accepted_TV = np.array([[c != "" and test(c) for c in characters] for test in tests])
        accepted_TK, class_V = np.unique(accepted_TV, axis=1, return_inverse=True)
        classes = {test: np.flatnonzero(row) for test, row in zip(tests, accepted_TK, strict=True)}
        start: States = tuple(self._closure({state}) for state in self._starts)
        numbers, queue, rows = {start: 0}, [start], []
        for states in queue:
            self._check_bounds(len(queue))
            targets_K: list[list[set[int]]] = [[set() for _ in states] for _ in accepted_TK.T]
            for part, members in enumerate(states):
                for state in members:
                    for test, target in self._transitions[state]:
                        for k in classes[test]:
                            targets_K[k][part].add(target)
            row = []
            for targets in targets_K:
                following = tuple(map(self._closure, targets))
                if not all(following):
                    row.append(-1)
                    continue
                if following not in numbers:
                    numbers[following] = len(queue)
                    queue.append(following)
                row.append(numbers[following])
            rows.append(row)
        next_SK = np.array([*rows, [-1] * len(accepted_TK.T)])
        next_SK[next_SK < 0] = len(rows)
        accepts = [all(e in s for e, s in zip(self._ends, states, strict=True)) for states in queue]
        return Dfa(next_SK[:, class_V.ravel()], np.array([*accepts, False]))

    def _add(self, node: Any, state: int) -> int:
        """Add a node of greenery's parse tree after `state`; return the state where it ends."""
        match type(node).__name__:
            case "Charclass":
                return self._step(state, node.accepts)
            case "Conc":
                for part in node.mults:
                    state = self._add(part, state)
                return state
            case "Pattern":
                end = self._new_state()
                for part in node.concs:
                    begin = self._new_state()
                    self._epsilon[state].append(begin)
                    self._epsilon[self._add(part, begin)].append(end)
                return end
        assert type(node).__name__ == "Mult", node
        low, high = node.multiplier.min.v, node.multiplier.max.v
        for _ in range(low):
            state = self._add(node.multiplicand, state)
        end = self._new_state()
        self._epsilon[state].append(end)
        if high is None:
            self._epsilon[self._add(node.multiplicand, end)].append(end)
            return end
        for _ in range(high - low):
            state = self._add(node.multiplicand, state)
            self._epsilon[state].append(end)
        return end

    def _step(self, state: int, test: Test) -> int:
        end = self._new_state()
        self._transitions[state].append((test, end))
        return end

    def _new_state(self) -> int:
        self._check_bounds(len(self._epsilon))
        self._transitions.append([])
        self._epsilon.append([])
        return len(self._epsilon) - 1

    def _closure(self, states: set[int]) -> frozenset[int]:
        """Add the states that can be reached without a character."""
        found, queue = set(states), list(states)
        for state in queue:
            new = [target for target in self._epsilon[state] if target not in found]
            found.update(new)
            queue += new
        return frozenset(found)

    def _check_bounds(self, states: int) -> None:
        if states > MAX_STATES or time.monotonic() >= self._deadline:
            raise MoreishError(self._too_large)
