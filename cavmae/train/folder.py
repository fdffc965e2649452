"""The run directory, and whether a run may be resumed with the options given now."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from avprep import storage
from avprep.errors import UserError, WorkFailed
from cavmae.distributed import World
from cavmae.train.checkpoint import list_checkpoints

# What may differ when a run is resumed, because no result depends on it (but by rounding). Shards
# are known by what is in them, see `data_facts`, and not by where they are; batches by how many
# samples of all processes make a step, see `step_facts`.
_FREE = frozenset(
    (
        *("out", "resume", "device", "workers", "max_bad_samples", "log_steps", "epochs"),
        *("shards", "val_shards", "checkpoint_steps", "checkpoint_minutes", "keep_checkpoints"),
        *("retries", "timeout", "cache", "cache_gb"),
        *("compile", "activation_checkpointing", "parallel", "profile", "dry_run"),
        *("batch_size", "accumulate", "contrasted_clips"),
    )
)
_WATCHING = frozenset(("val_splits", "val_clips"))  # pretraining's validation decides nothing


def prepare_folder(values: dict[str, Any], resolved: dict[str, Any], world: World) -> Path:
    """Make the run directory and write config.json, or check that an old one fits.

    Args:
        values: the command's options.
        resolved: what they came to, by the same names, and what is known of the data.
        world: this process among its peers.

    Raises:
        UserError: the folder holds another run.
    """
    folder = values["out"]
    described = dict(sorted({**values, **resolved}.items()))
    config = json.loads(json.dumps(described, default=str))
    found = folder / "config.json"
    if list_checkpoints(folder / "checkpoints"):
        if values["resume"] == "never":
            raise UserError(
                f"{folder}: holds a run already. Delete it, choose another --out, or use "
                "--resume auto."
            )
        if not found.is_file():
            raise UserError(
                f"{found}: missing beside checkpoints, so that nothing tells whether they are of "
                "this run. Put it back, or choose another --out."
            )
        check_resumed(folder, json.loads(found.read_bytes()), config, world)
    world.barrier()
    failure: UserError | WorkFailed | None = None
    if world.is_main:
        try:
            storage.make_folder(folder)
            storage.write_json(found, config)
        except (UserError, WorkFailed) as error:
            failure = error
    world.raise_together(failure)
    return folder


def check_resumed(
    folder: Path, theirs: dict[str, Any], config: dict[str, Any], world: World
) -> None:
    """Check that a run may be resumed, and say where that changes what is contrasted.

    Args:
        folder: of the run.
        theirs: the config that it was started with.
        config: the one to resume it with.
        world: this process among its peers.

    Raises:
        UserError: results depend on something that differs.
    """
    total, batch, accumulate = (
        config[name] for name in ("global_batch", "batch_size", "accumulate")
    )
    if theirs.get("global_batch", total) != total:
        raise UserError(
            f"{folder}: each step of its run takes {theirs['global_batch']} samples; {world.size} "
            f"process(es) × --batch-size {batch} × --accumulate {accumulate} are {total}. "
            f"{way_to_batch(theirs['global_batch'], batch, world.size)}, or choose another --out."
        )
    # A cosine's rate at every step depends on how many there are to be.
    free = _FREE - {"epochs"} if config["schedule"] == "cosine" else _FREE
    if "contrast_weight" in config:
        free = free | _WATCHING
    for name, value in config.items():
        if name not in free and theirs.get(name) != value:
            raise UserError(
                f"{folder}: its run was started with {name} = {theirs.get(name)!r}, not "
                f"{value!r}. Give the same options and data to resume it, or another --out."
            )
    before, now = theirs.get("contrasted_clips"), config.get("contrasted_clips")
    if before != now and world.is_main:
        print(
            f"warning: each image is now contrasted with {now} clips at a time, before with "
            f"{before}: contrastive losses and accuracies cannot be compared",
            file=sys.stderr,
        )


def step_facts(values: dict[str, Any], world: World) -> dict[str, int]:
    """How many samples of all processes make a step, and how many clips are contrasted at once."""
    batch = values["batch_size"]
    facts = {"global_batch": batch * values["accumulate"] * world.size}
    if values.get("contrast_weight"):
        everyone = world.size if values["contrast_scope"] == "global" else 1
        facts["contrasted_clips"] = batch * everyone
    return facts


def way_to_batch(total: int, largest: int, processes: int) -> str:
    """What to type for steps of `total` samples, in batches of `largest` at most."""
    if total % processes:
        return f"Start a number of processes that divides {total}"
    each = total // processes
    batch = max(size for size in range(1, min(each, largest) + 1) if not each % size)
    return f"Give --batch-size {batch} --accumulate {each // batch}"
