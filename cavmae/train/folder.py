"""The run directory, and whether a run may be resumed with the options given now."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Any

from avprep import storage, wording
from avprep.errors import UserError
from avprep.shards.format import DATASET_FILE
from cavmae.distributed import World
from cavmae.train.checkpoint import list_checkpoints
from cavmae.train.events import Note
from cavmae.train.options import PretrainRun, Run
from cavmae.train.place import CHECKPOINTS, CONFIG_FILE, RunFolder
from cavmae.train.start import Start, facts_of

# What may differ when a run is resumed, because no result depends on it (but by rounding). Shards
# are known by what is in them, see `facts_of`, and not by where they are; batches by how many
# samples of all processes make a step, see `facts_of`.
_FREE = frozenset(
    (
        *("out", "resume", "device", "workers", "max_bad_samples", "epochs"),
        *("shards", "val_shards", "select", "val_select"),
        *("track", "log_steps", "checkpoint_steps", "checkpoint_minutes", "keep_checkpoints"),
        *("retries", "timeout", "cache", "cache_gb"),
        *("compile", "activation_checkpointing", "parallel", "profile"),
        *("batch_size", "accumulate", "contrasted_clips"),
    )
)
_WATCHING = frozenset(("val_splits", "val_clips"))  # pretraining's validation decides nothing


def prepare_folder(folder: RunFolder, options: Run, start: Start) -> None:
    """Make the run directory and write config.json, or check that an old one fits.

    Args:
        folder: the run directory.
        options: of the run.
        start: what the options came to: the set, the model and the processes.

    Raises:
        UserError: the folder holds another run or a shard set, or cannot be written to.
        WorkFailed: its store cannot be reached.
    """
    if (folder.path / DATASET_FILE).exists():
        raise UserError(
            f"{folder.place}: is a shard set, not a folder for a run. Choose another --out."
        )
    world = start.world
    world.gather_results(folder.fetch)
    described = {**dataclasses.asdict(options), **facts_of(options, start)}
    config = json.loads(json.dumps(dict(sorted(described.items())), default=str))
    run_id = uuid.uuid4().hex
    found = folder.path / CONFIG_FILE
    if list_checkpoints(folder.path / CHECKPOINTS):
        if options.resume == "never":
            raise UserError(
                f"{folder.place}: holds a run already. Delete it, choose another --out, or use "
                "--resume auto."
            )
        if not found.is_file():
            raise UserError(
                f"{folder.shown(CONFIG_FILE)}: missing beside checkpoints, which may be those of "
                "another run. Put it back, or choose another --out."
            )
        theirs = parsed_config(found.read_bytes(), folder.shown(CONFIG_FILE))
        check_resumed(folder.place, theirs, config, free_options(options), world)
        run_id = theirs.get("run_id", run_id)
        before, now = theirs.get("contrasted_clips"), config.get("contrasted_clips")
        if before != now:
            start.tell(
                Note(
                    f"each image is now contrasted with {now} clips at a time, before with "
                    f"{before}: contrastive losses and accuracies cannot be compared",
                    is_warning=True,
                )
            )
    world.barrier()
    world.on_main(lambda: write_config(folder, {**config, "run_id": run_id}))


def free_options(options: Run) -> frozenset[str]:
    """The names in config.json that may differ when a run is resumed."""
    free = _FREE
    if options.schedule == "cosine":  # its rate depends on how many steps there are to be
        free -= {"epochs"}
    return free | _WATCHING if isinstance(options, PretrainRun) else free


def parsed_config(data: bytes, place: str) -> dict[str, Any]:
    """What a run's config.json says.

    Raises:
        UserError: it is damaged.
    """
    try:
        config = json.loads(data)
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{place}: is damaged ({error}). Put back a whole copy, or start another run."
        ) from error
    return config


def write_config(folder: RunFolder, config: dict[str, Any]) -> None:
    """Write config.json into a run directory, which is made if it is not there."""
    storage.make_folder(folder.path)
    storage.write_json(folder.path / CONFIG_FILE, config)
    folder.push()


def check_resumed(
    folder: str,
    theirs: dict[str, Any],
    config: dict[str, Any],
    free: frozenset[str],
    world: World,
) -> None:
    """Check that a run may be resumed.

    Args:
        folder: of the run.
        theirs: the config that it was started with.
        config: the one to resume it with.
        free: the names that may differ.
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
    held = [name for name in config if name not in free]
    before, now = ({name: each.get(name) for name in held} for each in (theirs, config))
    if changed := wording.changes(before, now):
        raise UserError(
            f"{folder}: its run was started with {changed}. Give the same options and data to "
            "resume it, or another --out."
        )


def way_to_fit(folder: RunFolder, options: Run) -> str:
    """What to do when memory ran out: from where the run resumes, and with which options."""
    saved = "No checkpoint was written yet."
    if checkpoints := list_checkpoints(folder.path / CHECKPOINTS):
        newest = storage.join(folder.shown(CHECKPOINTS), checkpoints[-1].name)
        saved = f"The last checkpoint, {newest}, is complete."
    smaller = max(options.batch_size // 2, 1)
    return (
        f"{saved} {way_to_batch(options.batch_size * options.accumulate, smaller, 1)}, "
        "--activation-checkpointing or fewer --workers, and run the same command again; --dry-run "
        "shows how much memory a run takes."
    )


def way_to_batch(total: int, largest: int, processes: int) -> str:
    """What to type for steps of `total` samples, in batches of `largest` at most."""
    if total % processes:
        return f"Start a number of processes that divides {total}"
    each = total // processes
    batch = max(size for size in range(1, min(each, largest) + 1) if not each % size)
    return f"Give --batch-size {batch} --accumulate {each // batch}"
