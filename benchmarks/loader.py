"""How fast samples are loaded, beside the published loader.

Makes shard sets (FLAC and WAV) and the same clips as files in the published layout, then times:
- ours: `ShardLoader`, whole batches, in this process and through one worker process;
- the published loader re-created: a `Dataset` item is a WAV file read, its mean subtracted, one
  Kaldi fbank, padding, SpecAugment, normalising and noise; one JPEG read, bicubic resize, centre
  crop, normalising; collated by `DataLoader`.
The rounds of all sides are interleaved, so that a busy machine slows all of them, and medians are
compared. Run it on one core: `taskset -c 0 python benchmarks/loader.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures are for one core

import numpy as np
import soundfile
import torch
import torchaudio
import torchvision.transforms as transforms
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
