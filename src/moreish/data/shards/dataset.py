"""A folder of prepared text: token files, and a manifest that says what is in them."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from moreish.data.shard_layout import MANIFEST, TOKENIZER
from moreish.data.sharded_array import Array, PreparedReference, ShardedArray
from moreish.data.shards.chunks import PASSAGE
from moreish.data.shards.writer import digest
from moreish.data.split import SPLITS, SplitName
from moreish.data.token_dataset import TokenDataset, load_tokens
from moreish.errors import MoreishError
from moreish.settings import Settings
from moreish.tokenizers import Tokenizer, tokenizer_from_json
from moreish.utils.files import read_json

FORMAT: Literal[1] = 1


class FileFacts(Settings):
    """A file that was read."""

    path: str
    bytes: int
    sha256: str


class SourceFacts(Settings):
    """What was read of a source. Lengths are in characters."""

    name: str
    given: str
    files: list[FileFacts]
    documents: int
    empty: int
    passages: int
    characters: int
    bytes: int
    shortest: int
    longest: int


class ShardFacts(Settings):
    """A token file. Its documents are counted by their boundaries: one of which a passage is held
    out has one there too."""

    file: str
    source: str
    split: SplitName
    tokens: int
    documents: int
    sha256: str


class Manifest(Settings):
    """manifest.json, which is written last."""

    moreish: Literal["prepared"] = "prepared"
    format: Literal[1] = FORMAT
    arguments: dict[str, Any]
    tokenizer: str
    """As it was named."""
    tokenizer_sha256: str
    """Its fingerprint."""
    vocabulary: int
    boundary: int
    dtype: str
    held_out: float
    """Share of the text, for each of validation and test."""
    split_seed: int
    passage: int = PASSAGE
    """The most characters of one, see `Sides`."""
    sources: list[SourceFacts]
    shards: list[ShardFacts]
    """By source, in the order of the text."""
    versions: dict[str, str]

    def tokens(self) -> dict[SplitName, int]:
        """Of each split."""
        found = dict.fromkeys(SPLITS, 0)
        for shard in self.shards:
            found[shard.split] += shard.tokens
        return found

    def training_tokens(self) -> dict[str, int]:
        """Of each source that has some."""
        found: dict[str, int] = {}
        for shard in self.shards:
            if shard.split == "train":
                found[shard.source] = found.get(shard.source, 0) + shard.tokens
        return found


@dataclass(frozen=True)
class PreparedDataset:
    """Prepared text, whose files are as long as they should be."""

    folder: Path
    manifest: Manifest
    sha256: str
    """Of the manifest, which holds those of all files."""

    @classmethod
    def open(cls, folder: Path) -> "PreparedDataset":
        """Raises MoreishError when it is damaged, newer than this Moreish, or not all there."""
        place = folder / MANIFEST
        try:
            content = place.read_bytes()
            tree = read_json(place)
        except (OSError, ValueError) as error:
            raise MoreishError(f"{place} is damaged: {error}") from None
        if (
            isinstance(tree, dict)
            and isinstance(tree.get("format"), int)
            and (tree["format"] > FORMAT)
        ):
            raise MoreishError(
                f"{place} was written by a newer Moreish: pip install --upgrade moreish"
            )
        try:
            manifest = Manifest.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise MoreishError(f"{place} is damaged ({key}: {first['msg']})") from None
        found = cls(folder, manifest, hashlib.sha256(content).hexdigest())
        for shard in manifest.shards:
            found._mapped(shard)
        return found

    def _mapped(self, shard: ShardFacts) -> Array:
        path = self.folder / shard.file
        try:
            ids_N = load_tokens(path, items=False, least=1).ids_N
        except (OSError, ValueError) as error:
            raise MoreishError(f"{path} is damaged or gone: {error}") from None
        assert isinstance(ids_N, np.ndarray)
        if len(ids_N) != shard.tokens or ids_N.dtype != np.dtype(self.manifest.dtype):
            raise MoreishError(f"{path} is damaged: it holds {len(ids_N):,} {ids_N.dtype} tokens")
        return ids_N

    def tokenizer(self) -> Tokenizer:
        """Raises MoreishError when it is not the one that the text was prepared with."""
        path = self.folder / TOKENIZER
        try:
            found = tokenizer_from_json(read_json(path), boundary=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MoreishError(f"{path} is damaged: {error}") from None
        if found.fingerprint() != self.manifest.tokenizer_sha256:
            raise MoreishError(f"{path} is not the tokenizer that this text was prepared with")
        return found

    def tokens(self, split: SplitName) -> TokenDataset:
        """A split as one stream, source after source."""
        shards = [shard for shard in self.manifest.shards if shard.split == split]
        bounds: dict[str, tuple[int, int]] = {}
        at = 0
        for shard in shards:
            first, _ = bounds.get(shard.source, (at, at))
            at += shard.tokens
            bounds[shard.source] = first, at
        origin = PreparedReference(folder=self.folder, manifest=self.sha256, bounds=bounds)
        return TokenDataset(
            ShardedArray([self._mapped(shard) for shard in shards], origin), items=False
        )

    def splits(self) -> dict[SplitName, TokenDataset]:
        return {name: self.tokens(name) for name in SPLITS}

    def verify(self, workers: int) -> None:
        """Read everything. Raises MoreishError when a file is not the one that was written."""
        self.tokenizer()
        with ThreadPoolExecutor(workers) as pool:
            paths = [self.folder / shard.file for shard in self.manifest.shards]
            for shard, found in zip(self.manifest.shards, pool.map(digest, paths), strict=True):
                if found != shard.sha256:
                    raise MoreishError(
                        f"{self.folder / shard.file} is damaged: its sha256 is not the one in "
                        f"{MANIFEST}; prepare the text again, with --overwrite"
                    )
