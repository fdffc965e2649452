"""`cavmae embed`: the features of every clip of a shard set, in one file.

The clips are cut into parts, in the order of the shard set. Each part is computed by one rank and
written whole or not at all; when all are there they are joined. Which clips make a batch, and so
every number, depends on the options alone, not on the ranks or on interruptions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from avprep import storage
from avprep.cli.progress import ProgressBar
from avprep.errors import UserError
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import World, joined_world
from cavmae.evaluate.arrays import ArraySpec, write_npz, write_safetensors
from cavmae.evaluate.features import (
    BOTH,
    FeatureOptions,
    Modality,
    check_modalities,
    feature_loader,
    one_feature,
    token_batches,
)
from cavmae.evaluate.trained import Trained, load_trained
from cavmae.options import Selection, pick

# A part is what an interruption costs and what a rank takes at a time.
_PART_CLIPS = 256
_PART_BYTES = 64 * 2**20
_READ_BYTES = 2**20
_PLAN_FILE = "plan.json"
_SUFFIXES = (".safetensors", ".npz")


@dataclass(frozen=True)
class EmbedOptions:
    """What is kept of a clip."""

    features: FeatureOptions
    tokens: Literal["pooled", "patches"] = "pooled"  # the mean over the patches, or each of them
    dtype: Literal["float32", "float16"] = "float32"


@dataclass(frozen=True)
class Parts:
    """Which clips each part holds."""

    clips: int  # in all
    size: int  # clips a part; a whole number of batches
    folder: Path

    def __len__(self) -> int:
        return -(-self.clips // self.size)

    def file(self, part: int) -> Path:
        """Where a finished part lies."""
        return self.folder / f"part-{part:06d}.safetensors"

    def rows(self, part: int) -> range:
        """The clips of a part."""
        return range(part * self.size, min((part + 1) * self.size, self.clips))

    def missing(self, rank: int, world: int) -> list[int]:
        """The parts that a rank has yet to make."""
        return [part for part in range(rank, len(self), world) if not self.file(part).exists()]


def run_embedding(values: dict[str, Any]) -> None:
    """Compute what is missing, then join all parts into the file.

    Raises:
        UserError: the file or its parts belong to something else, or the options do not fit.
        WorkFailed: too many clips cannot be read.
    """
    out: Path = values["out"]
    if out.suffix not in _SUFFIXES:
        raise UserError(f"{out}: the name must end in .safetensors or .npz.")
    trained = load_trained(values["checkpoint"])
    shards = open_shards(values["shards"], values)
    options = embed_options(values)
    check_modalities(trained, options.features.modalities)
    about = describe_run(trained, shards, options, pick(Selection, values))
    with joined_world(values["device"]) as world:
        parts = Parts(len(shards), part_size(trained, options), out.with_name(f"{out.name}.parts"))
        if out.exists():
            check_same(out, about)
            if world.is_main:
                drop(parts, about)  # what a kill behind the last step has left
                print(f"{out}: complete already")
            return
        claim(parts, about, world)
        trained = trained.to(world.device)
        missing = parts.missing(world.rank, world.size)
        todo = sum(len(parts.rows(part)) for part in missing)
        done = len(shards) - todo if world.size == 1 else 0
        with ProgressBar("embed", "clip", done + todo, initial=done, shown=world.is_main) as bar:
            make_parts(trained, shards, options, parts, missing, world.device, bar.update)
        world.barrier()
        if not world.is_main:
            return
        rows = join(parts, shards, options, out, about)
        drop(parts, about)
    unreadable = len(shards) - rows
    note = f", {unreadable} clips could not be read" if unreadable else ""
    print(f"{out}: {rows} clips{note}")


def embed_options(values: dict[str, Any]) -> EmbedOptions:
    """The command's values.

    Raises:
        UserError: patches of several frames at once.
    """
    modalities: tuple[Modality, ...] = (
        BOTH if values["modality"] == "both" else (values["modality"],)
    )
    frames = one_feature(values["frames"])
    if frames == "all" and values["tokens"] == "patches":
        raise UserError("--tokens patches: give one frame (--frames middle or a number), not all.")
    features = FeatureOptions(
        modalities, frames, values["batch_size"], values["workers"], values["max_bad_samples"]
    )
    return EmbedOptions(features, values["tokens"], values["dtype"])


def describe_run(
    trained: Trained, shards: ShardSet, options: EmbedOptions, selection: Selection
) -> str:
    """One line of JSON: all that the numbers depend on."""
    digest = hashlib.sha256()
    with trained.file.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    features = {
        name: value
        for name, value in asdict(options.features).items()
        if name not in ("workers", "max_bad_samples")
    }
    return json.dumps(
        {
            "checkpoint_sha256": digest.hexdigest(),
            "shards": shards.info.fingerprint,
            "clips": len(shards),
            **{name: sorted(set(chosen)) for name, chosen in asdict(selection).items() if chosen},
            **features,
            "tokens": options.tokens,
            "dtype": options.dtype,
        }
    )


def check_same(out: Path, about: str) -> None:
    """Raises UserError where a finished file holds something else."""
    try:
        if out.suffix == ".npz":
            with np.load(out, allow_pickle=False) as arrays:
                found = str(arrays["about"])
        else:
            with safe_open(out, "np") as reader:
                found = (reader.metadata() or {}).get("about", "")
    except (OSError, ValueError, KeyError, BadZipFile, SafetensorError):
        found = ""
    if found != about:
        raise UserError(
            f"{out}: exists already and is not what this command would write. Delete it or choose "
            "another --out."
        )


def part_size(trained: Trained, options: EmbedOptions) -> int:
    """Clips a part: a whole number of batches that neither limit is too small for, at least one."""
    config = trained.model.config
    patches = {"audio": config.audio_patches, "image": config.image_patches}
    vectors = sum(
        patches[name] if options.tokens == "patches" else 1 for name in options.features.modalities
    )
    clip = vectors * config.embed_dim * np.dtype(options.dtype).itemsize
    batch = options.features.batch_size
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


def make_parts(
    trained: Trained,
    shards: ShardSet,
    options: EmbedOptions,
    parts: Parts,
    missing: list[int],
    device: torch.device,
    on_batch: Callable[[int], object],
) -> None:
    """Compute and write parts, in one pass over their clips."""
    if not missing:
        return
    rows = np.concatenate([np.array(parts.rows(part), dtype=np.int64) for part in missing])
    loader = feature_loader(trained, shards.subset(rows), options.features)
    batches = token_batches(trained, loader, options.features.modalities, device)
    for part in missing:
        pieces: dict[str, list[NDArray]] = {}
        for _ in range(0, len(parts.rows(part)), options.features.batch_size):
            batch, tokens = next(batches)
            arrays: dict[str, NDArray] = {
                "index": rows[batch.index.numpy()],
                "labels": batch.labels.numpy().astype(np.uint8),
            }
            arrays |= {str(name): kept(found, options) for name, found in tokens.items()}
            for name, array in arrays.items():
                pieces.setdefault(name, []).append(array)
            on_batch(len(batch))
        whole = {name: np.concatenate(arrays) for name, arrays in pieces.items()}
        storage.write_atomic(parts.file(part), to_safetensors(whole))
    for _ in batches:  # ends the loader in order
        raise AssertionError("a batch that belongs to no part")


def kept(tokens: torch.Tensor, options: EmbedOptions) -> NDArray:
    """float [B, patches, dim] → what is stored of it."""
    stored = tokens.float().mean(dim=1) if options.tokens == "pooled" else tokens
    return stored.to(getattr(torch, options.dtype)).cpu().numpy()


def join(parts: Parts, shards: ShardSet, options: EmbedOptions, out: Path, about: str) -> int:
    """Write the file from its parts, never holding more than one; returns its rows."""
    rows = 0
    specs: dict[str, NDArray] = {}
    for part in range(len(parts)):
        with safe_open(parts.file(part), "np") as reader:
            rows += reader.get_slice("index").get_shape()[0]
            if not specs:
                specs = {name: reader.get_tensor(name) for name in sorted(reader.keys())}
    layout = {
        name: ArraySpec((rows, *array.shape[1:]), array.dtype) for name, array in specs.items()
    }

    def pieces(name: str) -> Iterator[NDArray]:
        for part in range(len(parts)):
            with safe_open(parts.file(part), "np") as reader:
                yield reader.get_tensor(name)

    index = np.concatenate(list(pieces("index")))
    ids = [shards.video_id(int(number)) for number in index]
    with storage.replacing(out) as file:
        if out.suffix == ".npz":
            texts = {"video_ids": np.array(ids, dtype=np.str_), "about": np.array(about)}
            write_npz(file, layout, pieces, texts)
        else:
            metadata = {"about": about, "video_ids": json.dumps(ids)}
            write_safetensors(file, layout, pieces, metadata)
    return rows
