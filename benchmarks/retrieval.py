"""How long ranking all pairs of a retrieval takes, compared with the published one.

Random unit features of N clips, 768 numbers each. Published, re-created: similarities one pair at
a time in a Python loop, then for each direction a sort of every row and a look for the right
answer. Ours: `rank_pairs`, both directions from one product. Both give the same recall. CPU time,
medians of interleaved rounds; ours also on a set far beyond the other's reach.

    python benchmarks/retrieval.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray
from rows import Row, add_rows_option, part, write_rows

from cavmae.evaluation.ranking import rank_pairs

DIM = 768


def features(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio and image features that agree about as well as a trained model's."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(count, DIM, generator=generator)
    halves = (shared + 4 * torch.randn(count, DIM, generator=generator) for _ in range(2))
    audio, image = (torch.nn.functional.normalize(half, dim=1) for half in halves)
    return audio, image


def published(audio: NDArray[np.float32], image: NDArray[np.float32]) -> float:
    """R@10 of audio → image, computed as published for both directions."""
    recalls = []
    for queries, answers in ((audio, image), (image, audio)):
        similarity = np.zeros((len(queries), len(answers)))
        for row in range(len(queries)):
            for column in range(len(answers)):
                similarity[row, column] = np.dot(queries[row], answers[column])
        order = np.argsort(-similarity, axis=1)
        ranks = [int(np.where(order[row] == row)[0][0]) for row in range(len(queries))]
        recalls.append(float((np.array(ranks) < 10).mean()))
    return recalls[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clips", type=int, default=1500, help="as 5 a class of VGGSound")
    parser.add_argument("--many", type=int, default=20_000, help="clips for ours alone")
    parser.add_argument("--rounds", type=int, default=5)
    add_rows_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    audio, image = features(arguments.clips)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        began = time.process_time()
        ranks, _ = rank_pairs(audio, image)
        ours.append(time.process_time() - began)
        began = time.process_time()
        recall = published(audio.numpy(), image.numpy())
        theirs.append(time.process_time() - began)
        assert abs(ranks.recall(10) - recall) < 1e-9
    fast, slow = statistics.median(ours), statistics.median(theirs)
    print(f"{arguments.clips} clips: ours {fast * 1000:.0f} ms, published {slow:.1f} s, "
          f"ratio {part(fast, slow)}; R@10 {recall:.3f} from both")  # fmt: skip
    many = features(arguments.many)
    began = time.process_time()
    rank_pairs(*many)
    seconds = time.process_time() - began
    print(f"{arguments.many} clips: ours {seconds:.1f} s")
    write_rows(
        arguments.rows,
        [
            Row(f"retrieval, ranking {arguments.clips:,} clips both ways, CPU",
                f"{fast * 1000:.0f} ms", f"published loop, re-created: {slow * 1000:.0f} ms",
                part(fast, slow)),
            Row(f"retrieval, ranking {arguments.many:,} clips both ways, CPU",
                f"{seconds:.1f} s", "", ""),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
