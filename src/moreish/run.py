"""The run folder: everything that a training leaves behind, and everything that reads it."""

import hashlib
import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
import torch

from moreish.config import RunConfig, resolve
from moreish.data.folder import MANIFEST
from moreish.data.joined import Joined
from moreish.data.prepared import Prepared
from moreish.data.split import SPLITS, SplitName
from moreish.data.tokens import Tokens, fingerprint, load_tokens, save_tokens
from moreish.errors import MoreishError, command, nearest
from moreish.evaluate.metrics import Score, losses_of, score
from moreish.evaluate.novelty import Items, Known, Passages, TextNovelty
from moreish.evaluate.surprisal import TokenSurprisal, surprisal
from moreish.files import PART, flush_folder, locked, read_json, to_json, write_atomic
from moreish.generate.constraints import Constraint, compile_constraint, parse_length
from moreish.generate.sampling import Sampling
from moreish.generate.texts import Writer
from moreish.models import Model, build_model
from moreish.record import ENDED, DataFacts, Record
from moreish.tokenizers import Tokenizer, tokenizer_from_json
from moreish.tokenizers.base import BOUNDARY, Ids
from moreish.weights import raw_bytes, safetensors_pieces
from moreish.world import ALONE, World, load_state, wholes

RANKS = ("likelihood", "novelty")

LONGEST_LINE = 1 << 24
"""Bytes of a line of metrics.jsonl; what is longer is damaged."""

REFERENCE = "data/train.json"
"""In place of the training tokens of prepared text: where they lie."""

SEARCHED = 1 << 25
"""Tokens of prepared text that are taken into memory to look up what stands there."""

SCORED = 2_000_000
"""Training tokens of prepared text up to which their exact loss is part of an evaluation."""

TEXT_TOKENS = 500
"""Length of a sample of running text, where none is asked for."""


class Run:
    """One training and its results, in a folder that works without the source text.

    Open one with `moreish.load(path)`; `moreish.train(...)` returns one.
    """

    def __init__(self, path: Path, record: Record) -> None:
        """`record` is the content of run.json; use `Run.open` or `Run.create`."""
        self.path = path
        self.record = record
        self.config: RunConfig = resolve(record.config)
        self.kind = record.data.kind
        self._splits: dict[SplitName, Tokens] = {}

    def __repr__(self) -> str:
        return f"Run('{self.path}': {self.record.status}, {self.config.model.name})"

    # --- opening and creating ---

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder.

        Raises:
            MoreishError: it is none, it is damaged, or it is newer than this Moreish.
        """
        path = Path(path).expanduser()
        aside = replaced_by(path)
        if not path.exists() and (aside / "run.json").is_file():
            raise MoreishError(
                f"{path} was being replaced when that was cut short; the old run is still there: "
                f"{shlex.join(['mv', str(aside), str(path)])}"
            )
        if not path.exists():
            raise MoreishError(f"no run at {path}{_other_runs(path)}")
        if not (path / "run.json").is_file():
            raise MoreishError(f"{path} is not a run folder: it has no run.json{_other_runs(path)}")
        return cls(path, cls._read_record(path))

    @classmethod
    def create(
        cls,
        path: Path,
        config: RunConfig,
        tokenizer: Tokenizer,
        splits: Mapping[SplitName, Tokens],
        data: DataFacts,
        *,
        overwrite: bool,
    ) -> Self:
        """A new run folder, with its data but not yet with weights; it appears whole or not at all.

        What it replaces is kept at `replaced_by(path)`, until the new one has proved itself.

        Raises:
            MoreishError: `path` exists (and is not a run that `overwrite` may replace).
        """
        check_free(path, overwrite=overwrite)
        replacing = (path / "run.json").is_file()
        record = Record.new(config, data, tokenizer.fingerprint())
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}{PART}")
        try:
            for left in path.parent.glob(f".{path.name}.*{PART}"):  # of a killed process
                shutil.rmtree(left, ignore_errors=True)
            (beside / "data").mkdir(parents=True)
            for name, tokens in splits.items():
                if name == "train" and isinstance(tokens.ids_N, Joined):
                    write_atomic(beside / REFERENCE, to_json(tokens.ids_N.origin.as_json()))
                else:
                    save_tokens(beside / "data" / f"{name}.npy", tokens)
            write_atomic(beside / "tokenizer.json", to_json(tokenizer.to_json()))
            write_atomic(beside / "run.json", to_json(record.model_dump(mode="json")))
            if replacing:
                discard(replaced_by(path))
                path.rename(replaced_by(path))
            flush_folder(beside / "data")
            beside.rename(path)
            flush_folder(path.parent)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            if replacing and not path.exists():
                replaced_by(path).rename(path)
            if isinstance(error, OSError):
                check_free(path, overwrite=overwrite)  # another training was faster
            raise
        return cls(path, record)

    def update(self, **changes: Any) -> None:
        """Change entries of run.json."""
        with self._updating() as record:
            self.record = Record.model_validate({**record.model_dump(), **changes})

    @contextmanager
    def _updating(self) -> Iterator[Record]:
        """The record as it is on disk, where another process may have changed it; then the new one
        takes its place."""
        busy = f"{self.path} is being written by another process: try again"
        with locked(self.path / ".record.lock", busy, seconds=10):
            yield self._read_record(self.path)
            write_atomic(self.path / "run.json", to_json(self.record.model_dump(mode="json")))

    @staticmethod
    def _read_record(path: Path) -> Record:
        place = path / "run.json"
        try:
            tree = read_json(place)
        except ValueError as error:
            raise _damaged(place, error) from None
        return Record.read(tree, str(place))

    @property
    def checkpoints(self) -> Path:
        """The folder of what resuming needs."""
        return self.path / "checkpoints"

    @property
    def has_weights(self) -> bool:
        return (self.path / "model.safetensors").is_file()

    # --- parts ---

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises MoreishError when it is damaged or not the one the run was trained with."""
        path = self.path / "tokenizer.json"
        try:
            data = read_json(path)
            tokenizer = tokenizer_from_json(data, boundary=self.record.data.boundary)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from None
        if tokenizer.fingerprint() != self.record.tokenizer:
            raise MoreishError(f"{path} is not the tokenizer that this run was trained with")
        return tokenizer

    @cached_property
    def model(self) -> Model:
        """The best model of the run, ready to use.

        Raises:
            MoreishError: there are no weights yet, or they are damaged or of another model.
        """
        model = self.new_model()
        self.load_weights(model)
        return model.eval()

    def new_model(self) -> Model:
        """The model of this run, freshly initialised."""
        torch.manual_seed(self.config.seed)
        return build_model(self.config.model, self.tokenizer.vocab_size)

    def load_weights(self, model: Model) -> None:
        """Put the best weights into `model`; raises MoreishError as the property `model` does."""
        path = self.path / "model.safetensors"
        if not self.has_weights and self.record.status == "diverged":
            raise MoreishError(
                f"{self.path} has no weights, its training came apart: train again with a lower "
                "--set train.lr and --overwrite"
            )
        if not self.has_weights and self.record.status in ENDED:
            raise MoreishError(f"{self.path} is damaged: its model.safetensors is missing")
        if not self.has_weights:
            go_on = command("train", "--resume", self.path)
            raise MoreishError(f"{self.path} has no weights yet: go on with {go_on}")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["moreish"])
                for name, parameter in model.named_parameters():
                    if file.get_slice(name).get_shape() != list(parameter.shape):
                        raise ValueError(f"{name} has another shape than in this model")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["sha256"] != _digest(state):
                raise ValueError("its sha256 is not the one that was saved with it")
            if about["tokenizer"] != self.record.tokenizer:
                raise ValueError("it was trained with another tokenizer")
            if about.get("data", self._data) != self._data:
                raise ValueError("it was trained on other data, or on another split of them")
            load_state(model, state)
        except (
            OSError,
            safetensors.SafetensorError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
        ) as e:
            raise _damaged(path, e) from None

    def save_weights(self, model: Model, world: World = ALONE) -> None:
        """Make the weights of `model` those of the run; the first process of several does it."""
        state = wholes(model.state_dict())
        if not world.first:
            return
        about = {
            "sha256": _digest(state),
            "tokenizer": self.record.tokenizer,
            "data": self._data,
        }
        # One entry: safetensors writes several in any order, and equal runs have equal bytes.
        metadata = {"moreish": json.dumps(about)}
        write_atomic(self.path / "model.safetensors", safetensors_pieces(state, metadata))

    @property
    def _data(self) -> str:
        """A hash of all splits."""
        return hashlib.sha256(to_json(self.record.data.sha256)).hexdigest()

    @property
    def split_names(self) -> list[SplitName]:
        return [name for name in SPLITS if name in self.record.data.tokens]

    def split(self, name: SplitName) -> Tokens:
        """The tokens of a split, which are those that the run was made with.

        Raises:
            MoreishError: there is no such split, or its file is damaged or another's.
        """
        if name not in self._splits:
            self._splits[name] = self._read_split(name)
        return self._splits[name]

    def _read_split(self, name: SplitName) -> Tokens:
        if not self.split_names:
            raise MoreishError(f"{self.path} has no data: its model was trained elsewhere")
        if name not in self.split_names:
            raise MoreishError(f"this run has no {name} split: the lecture's split has none")
        if name == "train" and self.is_prepared:
            return self._prepared_split()
        path = self.path / "data" / f"{name}.npy"
        try:
            items, boundary = self.kind == "lines", self.tokenizer.boundary
            tokens = load_tokens(path, items=items, boundary=boundary or BOUNDARY)
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from None
        if len(tokens.ids_N) != self.record.data.tokens[name]:  # which may be far too many to read
            raise MoreishError(f"{path} is damaged: it holds {len(tokens.ids_N):,} tokens")
        if fingerprint(tokens) != self.record.data.sha256.get(name):
            raise MoreishError(
                f"{path} is damaged: its sha256 is not the one in run.json, so no loss on it counts"
            )
        return tokens

    @property
    def is_prepared(self) -> bool:
        """Whether it was trained on prepared text, which lies elsewhere."""
        return self.record.data.sources is not None

    def _prepared_split(self) -> Tokens:
        """The training split of prepared text. Raises MoreishError when it is gone, or another."""
        place = self.path / REFERENCE
        try:
            folder = Path(read_json(place)["folder"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(place, error) from None
        if not (folder / MANIFEST).is_file():
            raise MoreishError(
                f"the training data of {self.path} are gone, {folder}: put them back, or say where "
                f"they are in {place}"
            )
        found = Prepared.open(folder)
        if found.sha256 != self.record.data.sha256["train"]:
            raise MoreishError(
                f"{folder} holds other data than those that {self.path} was trained on"
            )
        return found.tokens("train")

    def check_searchable(self) -> None:
        """Raises MoreishError when the training data are too large to be held in memory."""
        tokens = self.record.data.tokens.get("train", 0)
        if self.is_prepared and tokens > SEARCHED:
            raise MoreishError(
                f"the training data of {self.path} are prepared text of {tokens:,} tokens; only "
                f"{SEARCHED:,} or fewer can be looked through for what stands there"
            )

    # --- what a model is for ---

    def sample(
        self,
        n: int = 1,
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        new_only: bool = False,
        unique: bool = False,
        unknown: str = "error",
        ends: str | None = None,
        contains: str | None = None,
        regex: str | None = None,
        length: str | None = None,
        max_overlap: int | None = None,
        rank: str | None = None,
    ) -> list[str]:
        """`n` texts that begin with `prompt`; the same seed gives the same texts.

        Args:
            max_tokens: the most tokens to draw; by default 500 of running text, and for items four
                times the longest one, which they reach hardly ever.
            temperature: below 1 more likely, above 1 more surprising, 0 always the likeliest.
            new_only: nothing that stands in the data.
            unique: no text twice.
            unknown: "error" or "drop": what to do with characters that the model never saw.
            ends, contains, regex, length: of items only: how each ends, what stands in it, what
                matches it whole, and its characters (`5`, `3..7`, `3..`); by construction.
            max_overlap: no text with more characters in a row that stand in the training data.
            rank: "likelihood" (most likely first) or "novelty" (farthest from the training data
                first); None leaves them as drawn.

        Raises:
            MoreishError: a setting is out of range, the prompt has unknown characters, nothing can
                match, or too few texts that are wanted were found.
        """
        if n < 1:
            raise MoreishError(f"-n {n}: ask for at least one text")
        if max_overlap is not None and max_overlap < 1:
            raise MoreishError(f"--max-overlap {max_overlap}: give at least 1")
        if rank not in (None, *RANKS):
            raise MoreishError(f"--rank {rank}: {nearest(str(rank), RANKS)}")
        asked = Constraint(
            ends=ends,
            contains=contains,
            regex=regex,
            length=None if length is None else parse_length(length),
        )
        writer = self.writer(
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=Sampling.parse(
                {"temperature": temperature, "top_k": top_k, "top_p": top_p}, "sample"
            ),
            seed=seed,
            unknown=unknown,
            asked=asked,
        )
        known = self.known if new_only else ()
        seen: set[str] = set()

        def wanted(ids: Ids) -> bool:
            if self.tokenizer.to_bytes(ids) in known:
                return False
            if max_overlap is None and not unique:
                return True
            text = self.tokenizer.decode(ids)
            if max_overlap is not None and len(self.passages.longest(text).text) > max_overlap:
                return False
            if unique and text in seen:
                return False
            seen.add(text)
            return True

        texts = list(writer.texts(n, wanted))
        return texts if rank is None else self._ranked(texts, rank)

    def _ranked(self, texts: list[str], rank: str) -> list[str]:
        """Most likely first (by the mean over a text's tokens), or farthest from the data first."""

        def key(text: str) -> float:
            if rank == "likelihood":
                if not text:
                    return math.inf  # nothing was written, so nothing can be said of it
                tokens = self.surprisal(text)
                return sum(token.nats for token in tokens) / len(tokens)
            if self.kind == "lines":
                return -self.items.nearest(text)[1] / max(1, len(text))
            return len(self.passages.longest(text).text) / max(1, len(text))

        return sorted(texts, key=key)

    def stream(self, *, prompt: str = "", **options: Any) -> Iterator[str]:
        """One text in pieces, as it is drawn: the first that `sample` gives."""
        sampling = {key: options.pop(key, None) for key in ("top_k", "top_p")}
        sampling["temperature"] = options.pop("temperature", 1.0)
        return self.writer(
            prompt=prompt, sampling=Sampling.parse(sampling, "sample"), **options
        ).stream()

    def writer(
        self,
        *,
        prompt: str,
        sampling: Sampling,
        seed: int = 0,
        max_tokens: int | None = None,
        unknown: str = "error",
        model: Model | None = None,
        asked: Constraint | None = None,
    ) -> Writer:
        """What draws texts: see `sample`. `model` None is the run's best."""
        if max_tokens is not None and max_tokens < 1:
            raise MoreishError(f"--max-tokens {max_tokens}: give at least 1")
        if seed < 0:
            raise MoreishError(f"--seed {seed}: give 0 or more")
        ids = self.tokenizer.encode(self.known_text(prompt, unknown))
        if max_tokens is None:
            longest = self.record.data.longest_item
            max_tokens = TEXT_TOKENS if longest is None else max(4 * longest, 32)
        automaton = None
        if asked:
            if self.kind == "text":
                raise MoreishError(f"{asked} is for lists; running text can be begun by --prompt")
            most = len(ids) + max_tokens - 1
            automaton = compile_constraint(asked, self.tokenizer, self.split("train"), most)
            automaton.after(ids)  # nothing can match: say so before anything is drawn
        return Writer(
            model=model or self.model,
            tokenizer=self.tokenizer,
            prompt=ids,
            lead=self._lead(ids),
            max_tokens=max_tokens,
            sampling=sampling,
            seed=seed,
            automaton=automaton,
        )

    def known_text(self, text: str, unknown: str) -> str:
        """`text` without the characters that the model never saw, if `unknown` is "drop"."""
        if unknown not in ("error", "drop"):
            raise MoreishError(f"--unknown {unknown}: {nearest(unknown, ['error', 'drop'])}")
        missing = self.tokenizer.unknown(text)
        if missing and unknown == "error":
            shown = " ".join(map(repr, missing[:10])) + (" …" if len(missing) > 10 else "")
            spaced = not self.tokenizer.unknown(f" {text}")
            raise MoreishError(
                f"the model never saw {shown}: change the text, or leave out what is unknown with "
                f"--unknown drop{'; with a space before it, it is known' if spaced else ''}"
            )
        return self.tokenizer.without_unknown(text) if missing else text

    def _lead(self, prompt: Ids) -> Ids:
        """What a text follows: a boundary; else, for an empty prompt, a line end or the like."""
        if self.tokenizer.boundary is not None:
            return np.array([self.tokenizer.boundary])
        if len(prompt):
            return prompt[:0]
        if not self.tokenizer.unknown("\n"):
            return self.tokenizer.encode("\n")
        return self.split("train").ids_N[:1].astype(np.int64)

    @cached_property
    def known(self) -> Known:
        """Everything that stands in the data of this run, on whatever side of the split."""
        self.split("train")  # an imported model has none
        texts = (self._bytes_of(name) for name in self.split_names)
        return Known(texts, items=self.kind == "lines")

    @cached_property
    def passages(self) -> Passages:
        """The training data as bytes, to look up what a text shares with them."""
        return Passages(self.training_bytes)

    @cached_property
    def training_bytes(self) -> bytes:
        """The training data in UTF-8, items and documents each on their line."""
        return self._bytes_of("train")

    def _bytes_of(self, name: SplitName) -> bytes:
        self.check_searchable()
        ids = self.split(name).ids_N[:].astype(np.int64)
        if (boundary := self.tokenizer.boundary) is None:
            return self.tokenizer.to_bytes(ids)
        # Boundaries give no bytes, so each piece ends where those before it do.
        ends = np.cumsum(np.where(ids == boundary, 0, self.tokenizer.byte_lengths()[ids]))
        edges = np.unique(ends[ids == boundary]).tolist()
        whole = self.tokenizer.to_bytes(ids)
        return b"\n".join(
            whole[a:b] for a, b in zip([0, *edges], [*edges, len(whole)], strict=True) if a < b
        )

    @cached_property
    def items(self) -> Items:
        """The training items, to find the nearest to a text."""
        return Items(self.training_bytes.decode("utf-8", "replace").split("\n"))

    def novelty(self, texts: list[str]) -> list[TextNovelty]:
        """What each of `texts` owes to the training data."""
        return [self._novelty(text) for text in texts]

    def _novelty(self, text: str) -> TextNovelty:
        overlap = self.passages.longest(text)
        item, distance, known = None, None, len(overlap.text) == len(text)
        if self.kind == "lines":
            item, distance = self.items.nearest(text)
            known = distance == 0
        place, passage = self.passages.where(overlap)
        return TextNovelty(
            text=text,
            known=known,
            overlap=overlap.text,
            place=place,
            passage=passage,
            nearest=item,
            distance=distance,
        )

    def evaluate(
        self,
        *,
        test: bool = False,
        stride: int | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> dict[SplitName, Score]:
        """Exact losses on the training and validation splits, and on the test split if asked. Of
        prepared text, the training split is left out unless it is small.

        Args:
            test: evaluate the test split too; run.json counts how often that was done.
            stride: see `moreish.evaluate.metrics.evaluation_spans`.
            progress: is told the split and the share of it that is done.
        """
        self.split("val")  # an imported model has none: say so at once
        names = self.split_names if test else [n for n in self.split_names if n != "test"]
        if self.is_prepared and self.record.data.tokens["train"] > SCORED:
            names.remove("train")  # it would take longer than the training
        if test:
            self.split("test")  # the lecture's split of running text has none: say so at once
        return {name: self.score(name, stride=stride, progress=progress) for name in names}

    def count_test(self) -> None:
        """The test split was evaluated once more."""
        with self._updating() as record:
            counted = {"test_evaluations": record.test_evaluations + 1}
            self.record = record.model_copy(update=counted)

    def score(
        self,
        name: SplitName,
        model: Model | None = None,
        *,
        stride: int | None = None,
        progress: Callable[[str, float], None] | None = None,
        world: World = ALONE,
    ) -> Score:
        """The exact score of one split; `model` None is the run's best. Of the test split it is
        counted. The processes of `world` share the work."""
        tokens = self.split(name)
        told = None if progress is None else lambda share: progress(name, share)
        losses = losses_of(model or self.model, tokens, stride, told, world)
        if name == "test":
            self.count_test()
        return score(losses, tokens, self.tokenizer)

    def logged(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl, but for those that a full disk or a crash cut short."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                    yield entry

    @property
    def scores(self) -> dict[SplitName, Score]:
        """The losses that the training ended with, from run.json; empty before its end."""
        return {
            name: Score.from_json(saved.model_dump()) for name, saved in self.record.splits.items()
        }

    def surprisal(self, text: str, *, unknown: str = "error") -> list[TokenSurprisal]:
        """Each token of `text` with minus its log-probability in nats; `unknown` as in `sample`.

        It follows what a sample follows: the start of an item or a document, else a line end.
        """
        text = self.known_text(text, unknown)
        lead = self._lead(self.tokenizer.encode(""))
        return surprisal(self.model, self.tokenizer, text, lead=lead, items=self.kind == "lines")


def replaced_by(path: Path) -> Path:
    """Where the run that the one at `path` replaces is kept until that is clear of its start."""
    return path.with_name(f".{path.name}.replaced")


def discard(run: Path) -> None:
    """Remove a run folder; what is none is left alone."""
    if (run / "run.json").is_file():
        shutil.rmtree(run, ignore_errors=True)


def training_lock(path: Path) -> AbstractContextManager[None]:
    """While open, nobody else trains in the run folder at `path`. Raises MoreishError if another
    does."""
    return locked(path / ".lock", f"{path} is being trained by another process: wait for its end")


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises MoreishError when a run cannot be made at `path`."""
    if path.name in ("", ".."):
        raise MoreishError(f"--out {path}: give the run a folder of its own, e.g. runs/mine")
    for above in path.absolute().parents:
        if (above / "run.json").is_file():
            raise MoreishError(f"--out {path}: {above} is a run, and holds no other")
        if above.is_file():
            raise MoreishError(f"--out {path}: {above} is a file, not a folder")
    if path.is_dir() and not any(path.iterdir()):
        return
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise MoreishError(f"{path} exists: choose another --out, or replace it with --overwrite")
    if path.is_symlink() or not (path / "run.json").is_file():
        raise MoreishError(f"{path} is not a run folder, so --overwrite will not replace it")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise MoreishError(f"you are inside {path}: go elsewhere before you replace it")


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, shapes and numbers of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {list(state[name].shape)}\n".encode())
        digest.update(raw_bytes(state[name]))
    return digest.hexdigest()


def _damaged(path: Path, error: Exception) -> MoreishError:
    reason = " ".join(str(error).split())
    return MoreishError(f"{path} is damaged ({type(error).__name__}: {reason[:200]})")


def _other_runs(path: Path) -> str:
    """The runs beside `path`, for an error message."""
    folder = path if path.is_dir() else path.parent
    runs = sorted(str(found.parent) for found in folder.glob("*/run.json"))
    return f"; there are {', '.join(runs[:5])}" if runs else ""
