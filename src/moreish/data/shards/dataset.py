"""A prepared dataset: a folder of token files and a manifest that describes them."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moreish.data.shard_layout import MANIFEST, TOKENIZER
from moreish.data.sharded_array import Array, PreparedReference, ShardedArray
from moreish.data.shards.chunks import MAX_CHUNK_CHARACTERS, SourceCounts
from moreish.data.shards.writer import Shard
from moreish.data.split import SPLITS, SplitName
from moreish.data.token_dataset import TokenDataset, load_tokens
from moreish.errors import MoreishError
from moreish.settings import Settings
from moreish.tokenizers import Tokenizer, load_tokenizer
from moreish.utils.files import file_sha256, read_json

FORMAT: Literal[1] = 1
"""Version of the folder's format; a newer one is rejected."""


class FileInfo(Settings):
    """A file that was read."""

    path: str
    bytes: int
    sha256: str


class SourceInfo(SourceCounts):
    """A source and what was read of it."""

    name: str
    given: str
    """The source as the user named it; stored under this name."""
    files: list[FileInfo]


class Manifest(Settings):
    """The content of manifest.json, which is written last."""

    moreish: Literal["prepared"] = "prepared"
    format: Literal[1] = FORMAT
    arguments: dict[str, Any]
    tokenizer: str
    """Its name, or the path of its file."""
    tokenizer_sha256: str
    """Its fingerprint."""
    vocabulary: int
    boundary: int
    dtype: str
    held_out: float
    """Fraction of the text for each of validation and test."""
    split_seed: int
    passage: int = MAX_CHUNK_CHARACTERS
    """Chunk size in characters."""
    sources: list[SourceInfo]
    shards: list[Shard]
    """By source, in the order of the text."""
    versions: dict[str, str]

    def tokens(self) -> dict[SplitName, int]:
        """Return the number of tokens in each split."""
        return tokens_by_split(self.shards)

    def training_tokens(self) -> dict[str, int]:
        """Return the number of training tokens of each source that has some."""
        tokens: Counter[str] = Counter()
        for shard in self.shards:
            if shard.split == "train":
                tokens[shard.source] += shard.tokens
        return dict(tokens)


def tokens_by_split(shards: Iterable[Shard]) -> dict[SplitName, int]:
    """Return the number of tokens in each split."""
    tokens = dict.fromkeys(SPLITS, 0)
    for shard in shards:
        tokens[shard.split] += shard.tokens
    return tokens


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset whose files have the right length and type; `verify` hashes them."""

    folder: Path
    manifest: Manifest
    sha256: str
    """Hash of the manifest, which contains the hashes of all files."""

    @classmethod
    def open(cls, folder: Path) -> "PreparedDataset":
        """Open a prepared dataset.

        Raises:
            MoreishError: it is damaged, incomplete, or written by a newer Moreish.
        """
        path = folder / MANIFEST
        try:
            content = path.read_bytes()
            tree = read_json(path)
        except (OSError, ValueError) as error:
            raise MoreishError(f"{path} is damaged: {error}") from None
        manifest = Manifest.parse_stored(tree, str(path), FORMAT)
        dataset = cls(folder, manifest, hashlib.sha256(content).hexdigest())
        for shard in manifest.shards:
            dataset._open_shard(shard)
        return dataset

    def _open_shard(self, shard: Shard) -> Array:
        path = self.folder / shard.file
        try:
            ids_N = load_tokens(path, items=False, min_tokens=1).ids_N
        except (OSError, ValueError) as error:
            raise MoreishError(f"{path} is damaged or missing: {error}") from None
        assert isinstance(ids_N, np.ndarray)
        if len(ids_N) != shard.tokens or ids_N.dtype != np.dtype(self.manifest.dtype):
            raise MoreishError(f"{path} is damaged: it holds {len(ids_N):,} {ids_N.dtype} tokens")
        return ids_N

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer.

        Raises:
            MoreishError: its file is damaged, or not the one that the text was prepared with.
        """
        return load_tokenizer(
            self.folder / TOKENIZER,
            boundary=True,
            fingerprint=self.manifest.tokenizer_sha256,
            what="this text was prepared",
        )

    def tokens(self, split: SplitName) -> TokenDataset:
        """Return a split as one stream, source after source."""
        shards = [shard for shard in self.manifest.shards if shard.split == split]
        bounds: dict[str, tuple[int, int]] = {}
        end = 0
        for shard in shards:
            first, _ = bounds.get(shard.source, (end, end))
            end += shard.tokens
            bounds[shard.source] = first, end
        reference = PreparedReference(folder=self.folder, manifest=self.sha256, bounds=bounds)
        ids_N = ShardedArray([self._open_shard(shard) for shard in shards], reference)
        return TokenDataset(ids_N, items=False)

    def splits(self) -> dict[SplitName, TokenDataset]:
        """Return all splits."""
        return {name: self.tokens(name) for name in SPLITS}

    def verify(self, workers: int) -> None:
        """Compare the hashes of all files with the manifest, in parallel threads.

        Raises:
            MoreishError: a file is damaged.
        """
        self.tokenizer()
        paths = [self.folder / shard.file for shard in self.manifest.shards]
        with ThreadPoolExecutor(workers) as pool:
            sha256s = pool.map(file_sha256, paths)
            for shard, path, sha256 in zip(self.manifest.shards, paths, sha256s, strict=True):
                if sha256 != shard.sha256:
                    raise MoreishError(
                        f"{path} is damaged: its sha256 is not the one in {MANIFEST}; prepare the "
                        "text again, with --overwrite"
                    )
