"""What training does on a GPU: is it right, how fast is it, is it kept fed, does it learn?

Each part runs in a process of its own with a time limit, and writes what it finds to
OUT/PART.json after every line, so that whatever cuts it off costs only the rest. A part that fails
costs the others nothing.

    right     steps and the front end on the GPU against the CPU; precisions, compiled blocks,
              recomputed activations, DDP and FSDP against the plain step; kill and resume;
              eval, embed, retrieve and predict on both devices
    speed     samples per second, MFU and memory of a pretraining step beside the published
              arithmetic, by precision, compilation and batch size; the front end's share
    profile   the kernels of the fastest setting, and the time in which the GPU had none
    fed       `cavmae pretrain` from FLAC shards: samples per second and the share spent waiting
    learns    a short pretraining: contrastive accuracy and R@10 beside the random start

    python benchmarks/gpu.py --out runs/gpu                # 15 minutes on one H100
    python benchmarks/gpu.py --out runs/gpu --device cpu --model tiny --quick    # a rehearsal
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PARTS = {"right": 200, "speed": 240, "profile": 60, "fed": 120, "learns": 220}  # seconds at most
HERE = Path(__file__).resolve().parent


def run_part(name: str, seconds: float, arguments: list[str]) -> str:
    """Run a part; returns how it ended, in words."""
    began = time.monotonic()
    command = [sys.executable, str(HERE / f"gpu_{name}.py"), *arguments]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
        how = "done" if code == 0 else f"ended with {code}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        how = "cut off"
    return f"{how} after {time.monotonic() - began:.0f} s"


def main() -> int:
    """Run the parts in order; 1 if one did not end well or found something wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, nargs="+", default=[],
                        help="limit of each part, in the order of --parts")  # fmt: skip
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="base")
    parser.add_argument("--workers", type=int, default=12, help="loading processes")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    limits = {**PARTS, **dict(zip(options.parts, options.seconds, strict=False))}
    passed_on = [
        f"--out={options.out}", f"--device={options.device}", f"--model={options.model}",
        f"--workers={options.workers}", *(["--quick"] if options.quick else []),
    ]  # fmt: skip
    is_well = True
    for name in options.parts:
        print(f"\n== {name}", flush=True)
        ended = run_part(name, limits[name], passed_on)
        print(f"== {name}: {ended}", flush=True)
        found = options.out / f"{name}.json"
        lines = json.loads(found.read_text()) if found.exists() else []
        is_well &= ended.startswith("done") and all(line.get("ok", True) for line in lines)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
