"""How much memory a training step takes, before it is taken."""

import logging
import math
import os
from pathlib import Path

import torch

from skdiscovery.nn import ByteLanguageModel
from skdiscovery.nn.model import N_SYMBOLS

logger = logging.getLogger("skdiscovery")

USABLE_SHARE = 0.9
"""Of the free memory: the rest is for what an estimate forgets, and for fragmentation."""

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where a container on Linux sees its limits, and what it has of them."""


def lanes_at_once(
    model: ByteLanguageModel, dtype: torch.dtype, n_lanes: int, seq_length: int, n_ranks: int = 1
) -> int:
    """Return how many lanes can go through the model together: all, or as many as fit.

    Parameters
    ----------
    model : ByteLanguageModel
        The model, on the device where it trains.
    dtype : torch.dtype
        The dtype of the recurrent products.
    n_lanes, seq_length : int
        Size of a batch.
    n_ranks : int, default=1
        Among how many processes of this machine a CPU's memory is shared.

    Raises
    ------
    MemoryError
        If not even one lane fits.
    """
    device = model.embedding.device
    free = free_memory(device) * USABLE_SHARE / (n_ranks if device.type == "cpu" else 1)
    fixed, per_lane = bytes_of_training(model), bytes_per_lane(model, dtype, seq_length)
    n_fitting = (free - fixed) / per_lane
    if n_fitting >= n_lanes:
        return n_lanes
    if n_fitting < 1:
        sizes = model.architecture
        raise MemoryError(
            f"Training needs about {_gb(fixed)} for gradients and optimizer, and {_gb(per_lane)} "
            f"for one lane of a batch, but {device} has {_gb(free)} to give: lower hidden_size "
            f"(now {sizes.hidden_size}), n_layers (now {sizes.n_layers}) or seq_length (now "
            f"{seq_length})."
        )
    n_passes = -(-n_lanes // int(n_fitting))
    logger.warning(
        "a batch of %d lanes needs about %s, and %s has %s: it goes through the model in %d parts",
        n_lanes, _gb(fixed + n_lanes * per_lane), device, _gb(free), n_passes,
    )  # fmt: skip
    return -(-n_lanes // n_passes)


def bytes_of_training(model: ByteLanguageModel) -> int:
    """Estimate the bytes that training adds to a model, whatever the batch.

    Gradients, two moments of the optimizer, the last good weights, the matrices that weight norm
    makes, and their gradients.
    """
    return 6 * sum(p.numel() * p.element_size() for p in model.parameters())


def bytes_per_lane(model: ByteLanguageModel, dtype: torch.dtype, seq_length: int) -> int:
    """Estimate the bytes that one lane's sequence takes in a step, at its peak.

    All layers keep gates (4H), hidden state, ``Wmh h`` and cell, and with dropout its output and
    mask; those above the first, their projected input, what ``Wmx`` makes of it and the sum below,
    too. Then either the head has the logits, their softmax, and their gradient, or one layer its
    backward: the gradients of all these, and what they are products with.
    """
    hidden, n_layers = model.architecture.hidden_size, model.architecture.n_layers
    narrow, wide = dtype.itemsize, model.embedding.element_size()
    is_multiplicative = model.architecture.cell == "mlstm"
    of_a_layer = (5 + is_multiplicative) * narrow + wide
    of_dropout = 2 * narrow if model.dropout.p else 0
    of_an_input = (5 + is_multiplicative) * narrow
    kept = n_layers * (of_a_layer + of_dropout) + (n_layers - 1) * of_an_input
    backward = (6 + 5 * is_multiplicative) * narrow + wide  # of plain torch, which takes most
    return seq_length * (hidden * kept + max(hidden * backward, 3 * N_SYMBOLS * wide))


def free_memory(device: torch.device) -> float:
    """Return the bytes that a device has left; infinite where that cannot be known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min(_left_on_machine(), _left_in_container())


def _left_on_machine() -> float:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # Linux: what programs can have without swapping
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # as on Windows
        return math.inf


def _left_in_container() -> float:
    try:
        limit, used, statistics = (
            (CONTROL_GROUP / f"memory.{name}").read_text() for name in ("max", "current", "stat")
        )
    except OSError:  # there is no container, or none of version 2
        return math.inf
    if limit.strip() == "max":
        return math.inf
    entries = dict(line.split() for line in statistics.splitlines())
    # Of what counts as used, the pages of files that nobody has read lately go first.
    return int(limit) - int(used) + int(entries["inactive_file"])


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2g} GB"
