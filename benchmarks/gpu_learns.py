"""Does a model learn on the GPU what the demo learns on a CPU? A part of `gpu.py`."""

from __future__ import annotations

import csv
import json
import shutil
import time

from gpu_part import Part, make_shards


def main() -> None:
    """Pretrain on made-up clips, and retrieve clips never seen with it and with a random start."""
    part = Part.from_command_line("learns")
    folder = part.out / "learns"
    shutil.rmtree(folder, ignore_errors=True)
    clips, unseen, epochs, batch = (64, 32, 1, 16) if part.quick else (2048, 512, 40, 128)
    train = make_shards(folder / "train", clips, 1.5, max(part.workers, 2))
    test = make_shards(folder / "test", unseen, 1.5, max(part.workers, 2), seed=1)
    size = "tiny" if part.quick else "small"
    recipe = [
        "--shards", train, "--model", size, "--audio-frames", 128, "--batch-size", batch,
        "--optimizer", "adamw", "--weight-decay", 0.05, "--schedule", "cosine",
        "--mask-ratio", 0.5, "--contrast-weight", 1.0, "--bidirectional",
        "--workers", part.workers, "--checkpoint-minutes", 60,
    ]  # fmt: skip
    fast = [] if part.device.type == "cpu" else ["--precision", "bf16"]
    part.run("pretrain", *recipe, "--epochs", 1, "--lr", 0, "--out", folder / "random-start")
    began = time.monotonic()
    part.run(
        "pretrain", *recipe, *fast, "--epochs", epochs, "--lr", 5e-4, "--warmup-epochs", 2,
        "--out", folder / "run",
    )  # fmt: skip
    with (folder / "run" / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    shown = ["loss_mae_audio", "loss_mae_image", "loss_contrast", "contrast_accuracy"]
    for row in (rows[0], rows[-1]):
        part.note(f"epoch {row['epoch']}", **{name: float(row[name]) for name in shown})
    part.note("pretraining", seconds=time.monotonic() - began, epochs=epochs, clips=clips)
    for run in ("random-start", "run"):
        said = part.run("retrieve", "--shards", test, "--checkpoint", folder / run, "--json",
                        "--out", folder / f"retrieval-{run}")  # fmt: skip
        (found,) = (json.loads(line) for line in said.splitlines() if line.startswith("{"))
        part.note(f"retrieval of {unseen} unseen clips, {run}", says=json.dumps(found))
    part.end()


if __name__ == "__main__":
    main()
