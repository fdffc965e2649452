"""One thread for each test process: the models are small, and threads of several tests would wait
for one another."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
