"""`cavmae embed`: the features of every clip of a shard set, in one file.

The clips are cut into parts, in the order of the shard set. Each part is computed by one rank and
written whole or not at all; when all are there they are joined. Which clips make a batch, and so
every number, depends on the options alone, not on the ranks or on interruptions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from avprep import storage
from avprep.errors import UserError
from avprep.progress import OnProgress, ignore
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import World, joined_world
from cavmae.evaluation.arrays import ArraySpec, write_npz, write_safetensors
from cavmae.evaluation.clips import clip_counter
from cavmae.evaluation.features import check_modalities, feature_loader, token_batches
from cavmae.evaluation.options import EmbedOptions
from cavmae.evaluation.trained import Trained, load_trained

# A part is what an interruption costs and what a rank takes at a time.
_PART_CLIPS = 256
_PART_BYTES = 64 * 2**20
_READ_BYTES = 2**20
_PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class EmbedResult:
    """A file of features.

    Attributes:
        file: its path.
        clips: number of clips in it.
        clips_unreadable: number of clips left out because they cannot be read.
        clips_lacking: number of clips left out because they lack a modality.
        was_complete: whether the file existed already, and nothing was computed.
    """

    file: Path
    clips: int
    clips_unreadable: int
    clips_lacking: int
    was_complete: bool


@dataclass(frozen=True)
class Parts:
    """Which clips each part holds."""

    clips: int  # in all
    size: int  # clips per part; a whole number of batches
    folder: Path

    def __len__(self) -> int:
        return -(-self.clips // self.size)

    def file(self, part: int) -> Path:
        """Where a finished part lies."""
        return self.folder / f"part-{part:06d}.safetensors"

    def rows(self, part: int) -> range:
        """The clips of a part."""
        return range(part * self.size, min((part + 1) * self.size, self.clips))

    def missing(self, world: World) -> list[int]:
        """The parts that this rank has yet to make."""
        mine = range(world.rank, len(self), world.size)
        return [part for part in mine if not self.file(part).exists()]

    def stored_clips(self) -> int:
        """The clips in all parts, once they are made; unreadable ones are in none."""
        return sum(len(piece) for piece in self.pieces("index"))

    def pieces(self, name: str) -> Iterator[NDArray]:
        """An array of each part, in order."""
        for part in range(len(self)):
            with safe_open(self.file(part), "np") as reader:
                yield reader.get_tensor(name)


def embed(options: EmbedOptions, on_progress: OnProgress = ignore) -> EmbedResult:
    """Compute what is missing, then join all parts into the file.

    Started on several ranks, they share the clips. After an interruption the same call resumes.

    Args:
        options: which model, on which clips, and what is stored.
        on_progress: called with progress: the clips done.

    Raises:
        UserError: the file or its parts belong to something else, or the options do not fit.
        WorkFailed: too many clips cannot be read.
    """
    out = options.out
    trained = load_trained(options.checkpoint)
    shards = open_shards(options.shards, options, options.modalities)
    check_modalities(trained, options.modalities)
    about = describe_run(trained, shards, options)
    parts = Parts(len(shards), part_size(trained, options), out.with_name(f"{out.name}.parts"))
    with joined_world(options.device, options.batch_size) as world:
        if out.exists():
            clips = check_same(out, about)
            if world.is_main:
                drop(parts, about)  # what a kill after the last step left
            return EmbedResult(out, clips, len(shards) - clips, shards.lacking, was_complete=True)
        claim(parts, about, world)
        make_missing_parts(trained.to(world.device), shards, options, parts, world, on_progress)
        world.barrier()
        clips = world.gather(parts.stored_clips() if world.is_main else 0)[0]
        if world.is_main:
            join(parts, shards, clips, out, about)
            drop(parts, about)
    return EmbedResult(out, clips, len(shards) - clips, shards.lacking, was_complete=False)


def describe_run(trained: Trained, shards: ShardSet, options: EmbedOptions) -> str:
    """One line of JSON: all that the numbers depend on."""
    digest = hashlib.sha256()
    with trained.file.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    selected = {"classes": options.classes, "splits": options.splits}
    return json.dumps(
        {
            "checkpoint_sha256": digest.hexdigest(),
            "shards": shards.info.fingerprint,
            "clips": len(shards),
            **{name: sorted(set(chosen)) for name, chosen in selected.items() if chosen},
            **({"selected_sha256": shards.rows_sha256} if options.select else {}),
            "modalities": options.modalities,
            "frames": options.frames,
            "batch_size": options.batch_size,
            "tokens": options.tokens,
            "dtype": options.dtype,
        }
    )


def check_same(out: Path, about: str) -> int:
    """The number of clips in a finished file.

    Raises:
        UserError: it holds something else.
    """
    try:
        if out.suffix == ".npz":
            with np.load(out, allow_pickle=False) as arrays:
                found, clips = str(arrays["about"]), len(arrays["index"])
        else:
            with safe_open(out, "np") as reader:
                found = (reader.metadata() or {}).get("about", "")
                clips = reader.get_slice("index").get_shape()[0]
    except (OSError, ValueError, KeyError, BadZipFile, SafetensorError):
        found, clips = "", 0
    if found != about:
        raise UserError(
            f"{out}: exists already and is not what this command would write. Delete it or choose "
            "another --out."
        )
    return clips


def part_size(trained: Trained, options: EmbedOptions) -> int:
    """Clips per part: as many whole batches as fit both limits, and at least one."""
    config = trained.model.config
    vectors = sum(
        config.patches(name) if options.tokens == "patches" else 1 for name in options.modalities
    )
    clip = vectors * config.embed_dim * np.dtype(options.dtype).itemsize
    batch = options.batch_size
    return max(min(_PART_BYTES // clip, _PART_CLIPS) // batch, 1) * batch


def claim(parts: Parts, about: str, world: World) -> None:
    """Mark the folder of parts as this run's, or refuse to mix two runs.

    Raises:
        UserError: it holds parts of another run.
    """

    def check(content: bytes) -> None:
        if content != about.encode():
            raise UserError(
                f"{parts.folder}: holds parts of another run. Give the same options to resume it, "
                "or delete this folder."
            )

    world.on_main(lambda: storage.claim(parts.folder, _PLAN_FILE, about.encode(), check))


def drop(parts: Parts, about: str) -> None:
    """Delete this run's parts, the mark that they are its own last; another run's stay."""
    plan = parts.folder / _PLAN_FILE
    if plan.exists() and plan.read_text() == about:
        for part in parts.folder.glob("part-*"):
            part.unlink()
        shutil.rmtree(parts.folder)


def make_missing_parts(
    trained: Trained,
    shards: ShardSet,
    options: EmbedOptions,
    parts: Parts,
    world: World,
    on_progress: OnProgress,
) -> None:
    """Compute and write this rank's parts, in one pass over their clips."""
    missing = parts.missing(world)
    todo = sum(len(parts.rows(part)) for part in missing)
    done = len(shards) - todo if world.size == 1 else 0
    count = clip_counter(on_progress, world, done + todo, done)
    if not missing:
        return
    rows = np.concatenate([np.array(parts.rows(part), dtype=np.int64) for part in missing])
    alone = World(0, 1, world.device)
    loader = feature_loader(trained, shards.subset(rows), options, alone)
    batches = token_batches(trained, loader, options.modalities, world.device)
    for part in missing:
        pieces: dict[str, list[NDArray]] = {}
        for _ in range(0, len(parts.rows(part)), options.batch_size):
            batch, tokens = next(batches)
            arrays: dict[str, NDArray] = {
                "index": rows[batch.index.numpy()],
                "labels": batch.labels.numpy().astype(np.uint8),
                **{str(name): kept(found, options) for name, found in tokens.items()},
            }
            for name, array in arrays.items():
                pieces.setdefault(name, []).append(array)
            count(len(batch))
        whole = {name: np.concatenate(arrays) for name, arrays in pieces.items()}
        storage.write_atomic(parts.file(part), to_safetensors(whole))
    for _ in batches:  # ends the loader in order
        raise AssertionError("a batch that belongs to no part")


def kept(tokens: torch.Tensor, options: EmbedOptions) -> NDArray:
    """float [B, patches, dim] → what is stored of it."""
    stored = tokens.float().mean(dim=1) if options.tokens == "pooled" else tokens
    return stored.to(getattr(torch, options.dtype)).cpu().numpy()


def join(parts: Parts, shards: ShardSet, clips: int, out: Path, about: str) -> None:
    """Write the file from its parts, never holding more than one."""
    with safe_open(parts.file(0), "np") as reader:
        first = {name: reader.get_tensor(name) for name in sorted(reader.keys())}
    layout = {
        name: ArraySpec((clips, *array.shape[1:]), array.dtype) for name, array in first.items()
    }
    index = np.concatenate(list(parts.pieces("index")))
    ids = [shards.video_id(int(number)) for number in index]
    with storage.replacing(out) as file:
        if out.suffix == ".npz":
            texts = {"video_ids": np.array(ids, dtype=np.str_), "about": np.array(about)}
            write_npz(file, layout, parts.pieces, texts)
        else:
            metadata = {"about": about, "video_ids": json.dumps(ids)}
            write_safetensors(file, layout, parts.pieces, metadata)
