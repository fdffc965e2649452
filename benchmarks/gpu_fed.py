"""Do the loading processes keep a GPU busy? Pretraining from FLAC shards. A part of `gpu.py`."""

from __future__ import annotations

import csv
import shutil
import statistics

from gpu_part import Part, make_shards, repeat_shards


def main() -> None:
    """Pretrain for an epoch and read its log."""
    part = Part.from_command_line("fed")
    folder = part.out / "fed"
    shutil.rmtree(folder, ignore_errors=True)
    clips, times, batch = (16, 2, 4) if part.quick else (64, 384, 256)
    seconds = 2 if part.quick else 10
    shards = make_shards(folder / "data", clips, seconds, max(part.workers, 2), grain=1.0)
    size = sum(path.stat().st_size for path in shards.glob("*.tar"))
    part.note("shards", kilobytes_per_clip=size / clips / 1000)
    longer = repeat_shards(shards, folder / "longer", times)
    run = folder / "run"
    fast = [] if part.device.type == "cpu" else ["--precision", "bf16", "--compile"]
    part.run(
        "pretrain", "--shards", longer, "--out", run, "--model", part.model, "--epochs", 1,
        "--batch-size", batch, "--workers", part.workers, "--log-steps", 1 if part.quick else 10,
        "--checkpoint-minutes", 60, *fast,
    )  # fmt: skip
    with (run / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "epoch so far"]
    later = rows[len(rows) // 2 :]  # when everything is compiled and in memory
    names = ["samples_per_second", "data_wait", "mfu", "gpu_gb"]
    part.note(
        f"pretrain, batch {batch}, {part.workers} loading processes",
        **{
            name: statistics.median(float(row[name]) for row in later)
            for name in names
            if later and later[0].get(name)
        },
        steps=int(rows[-1]["step"]),
    )
    part.end()


if __name__ == "__main__":
    main()
