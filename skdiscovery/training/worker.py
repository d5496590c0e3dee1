"""What a process does that :func:`skdiscovery.training.distribution.spawned_ranks` started.

``python -m skdiscovery.training.worker RANK N_RANKS PORT DEVICE``: the first rank tells it
the plan and the corpus, and it trains on its lanes.
"""

import os
import sys
import threading

import torch

from skdiscovery.nn import ByteLanguageModel
from skdiscovery.training.distribution import joined_as_worker
from skdiscovery.training.loop import train
from skdiscovery.training.trainer import Trainer


def main() -> None:
    """Take part in one run."""
    threading.Thread(target=end_with_the_first_rank, daemon=True).start()
    rank, n_ranks, port = map(int, sys.argv[1:4])
    device = torch.device(sys.argv[4])
    with joined_as_worker(rank, n_ranks, port, device) as (group, (plan, corpus)):
        # Without initial weights: a run begins with those of the first rank.
        model = plan.prepare(ByteLanguageModel(plan.architecture, plan.dropout), device)
        train(Trainer(plan, model), plan.lanes(corpus), group)


def end_with_the_first_rank() -> None:
    """Wait until the process that started this one is gone, however it went, and follow it."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
