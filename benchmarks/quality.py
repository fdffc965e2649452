"""How many planted faults the measures find at their thresholds, and what measuring costs.

    python benchmarks/quality.py                 # 1,000 clips: ten minutes on two cores
    python benchmarks/quality.py --clips 100

Makes clips of three seconds, each fault of `avprep.quality.faults` in one of twenty, encoded with
various codecs, sizes and bit rates. A clip counts as found if it is beyond the threshold once it is
decoded. The cost is the CPU time of measuring a clip of ten seconds compared with that of all
else that makes a sample of it, measured in turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from extract import KINDS, make_clip
from rows import Row, add_rows_option, write_rows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from avprep.clips import Clip
from avprep.decode import decode_clip
from avprep.encode.sample import encode_clip
from avprep.options import SampleOptions
from avprep.quality.faults import FAULTS
from avprep.quality.measures import measure_clip
from tests.faulty_clips import MadeClip, fault_of, make_faulty_clip

RATE = 16000


def scores(made: list[MadeClip], measured: list[dict[str, float | str]]) -> list[Row]:
    """Recall and precision of each fault."""
    rows = []
    for fault in FAULTS:
        found = fault.found_in(np.array([one[fault.measure] for one in measured], float))
        has = np.array([fault.name in clip.faults for clip in made])
        right = int((found & has).sum())
        recall, precision = right / has.sum(), right / max(1, found.sum())
        figures = f"recall {recall:.3f}, precision {precision:.3f}"
        print(f"{fault.name:12} {fault.condition:20} {figures}  ({has.sum()} planted)")
        for clip, is_found, is_so in zip(made, found, has, strict=True):
            if is_found != is_so:
                print(f"    {'wrongly found' if is_found else 'missed'}: {clip}")
        what = f"planted faults, {len(made)} made-up clips: {fault.name}"
        rows.append(Row(what, figures, "", "", "each ≥ 0.98"))
    return rows


def cost(folder: Path, rounds: int) -> Row:
    """CPU time of measuring a clip, compared with that of all else in making its sample."""
    clip = Clip("a", video=str(make_clip(folder / "ten.mp4", KINDS[0])))
    options = SampleOptions()
    whole = measuring = 0.0
    for _ in range(rounds):
        begin = time.process_time()
        encode_clip(clip, options)
        whole += time.process_time() - begin
        media = decode_clip(clip.video)
        begin = time.process_time()
        measure_clip(media.pcm, media.frames, RATE)
        measuring += time.process_time() - begin
    rest = whole - measuring
    ours, other = (f"{1000 * value / rounds:.1f} ms" for value in (measuring, rest))
    print(f"measuring {ours} per clip, the rest {other}: {measuring / rest:.1%} more CPU")
    what = f"clip of 10 s, {KINDS[0].name}: CPU of measuring it while its shard is built"
    return Row(what, ours, f"the rest: {other}", f"{measuring / rest:.1%}", "≤ 5 %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000, help="clips to make")
    parser.add_argument("--first", type=int, default=0, help="number of the first clip: a seed")
    parser.add_argument("--rounds", type=int, default=10, help="of measuring one clip")
    add_rows_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quality-") as name, ThreadPoolExecutor(2) as threads:
        folder = Path(name)

        def make_and_measure(number: int) -> tuple[MadeClip, dict[str, float | str]]:
            clip = make_faulty_clip(folder, number, fault_of(number))
            media = decode_clip(clip.path)
            return clip, measure_clip(media.pcm, media.frames, RATE)

        numbers = range(arguments.first, arguments.first + arguments.clips)
        made, measured = zip(*threads.map(make_and_measure, numbers), strict=True)
        rows = scores(list(made), list(measured))
        rows.append(cost(folder, arguments.rounds))
    write_rows(arguments.rows, rows)


if __name__ == "__main__":
    main()
