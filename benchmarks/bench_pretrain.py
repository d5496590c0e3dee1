"""Bytes per second in pretraining, beside what the step's matrix products alone would allow.

    python benchmarks/bench_pretrain.py --hidden-size 512 --batch-size 64

Steps and products are timed in turn, so that both see the same machine; the ratio is taken pair by
pair. Figures are the median with smallest and largest in brackets. Give it the machine to itself.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from reporting import machine, spread

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.ops import flush_denormals, resolve_device
from skdiscovery.text import TextCorpus
from skdiscovery.training import Lanes, OptimizationOptions, Trainer

N_SYMBOLS = 256
N_STEPS = 3


def main() -> None:
    """Time steps and products for each hidden size."""
    options = parse_arguments()
    device = resolve_device(options.device)
    print(machine())
    print(f"batch {options.batch_size}, sequence {options.seq_length}, float32")
    for hidden_size in options.hidden_size:
        n_bytes = N_STEPS * options.batch_size * options.seq_length
        steps, products = [], []
        train = training_steps(hidden_size, options.batch_size, options.seq_length, device)
        multiply = matrix_products(hidden_size, options.batch_size, options.seq_length, device)
        with flush_denormals():
            for _ in range(options.repetitions + 1):
                steps.append(n_bytes / seconds(train, device))
                products.append(n_bytes / seconds(multiply, device))
        steps, products = steps[1:], products[1:]  # the first is a warm-up
        ratios = [step / product for step, product in zip(steps, products, strict=True)]
        print(
            f"H={hidden_size}: training {spread(steps, '{:.0f}')} B/s, "
            f"products alone {spread(products, '{:.0f}')} B/s, ratio {spread(ratios)}"
        )


def training_steps(
    hidden_size: int, batch_size: int, seq_length: int, device: torch.device
) -> Callable[[], None]:
    """Return a function that makes ``N_STEPS`` steps of the real training loop."""
    model = ByteLanguageModel(Architecture(hidden_size)).initialise(torch.Generator())
    trainer = Trainer(
        model.normalise_weights().to(device),
        OptimizationOptions("adam", 5e-4, "constant", 1.0, 1.0),
        torch.float32,
        np.random.RandomState(0),
    )
    text = np.random.RandomState(0).bytes(N_STEPS * batch_size * seq_length + 1)
    lanes = Lanes(
        TextCorpus.from_documents([text], preprocessor=None), batch_size, seq_length, "shard"
    )
    return lambda: trainer.run(lanes, max_epochs=1, max_steps=None, checkpoint_every=N_STEPS + 1)


def matrix_products(
    hidden_size: int, batch_size: int, seq_length: int, device: torch.device
) -> Callable[[], None]:
    """Return a function that makes the products of ``N_STEPS`` steps, and nothing else."""

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device)

    h, m, z = (new(batch_size, width * hidden_size) for width in (1, 1, 4))
    wmh, wh = new(hidden_size, hidden_size), new(4 * hidden_size, hidden_size)
    wmh_t, wh_t = wmh.t().contiguous(), wh.t().contiguous()
    n_rows = batch_size * seq_length
    all_h, all_m, all_z = (new(n_rows, width * hidden_size) for width in (1, 1, 4))
    head, all_logits = new(N_SYMBOLS, hidden_size), new(n_rows, N_SYMBOLS)
    scratch = torch.empty_like(h), torch.empty_like(m), torch.empty_like(z)

    def multiply_one_step() -> None:
        for _ in range(seq_length):  # forward
            torch.mm(h, wmh_t, out=scratch[1])
            torch.mm(m, wh_t, out=scratch[2])
        for _ in range(seq_length):  # backward
            torch.mm(z, wh, out=scratch[1])
            torch.mm(m, wmh, out=scratch[0])
        torch.mm(all_z.t(), all_m, out=wh.new_empty(wh.shape))  # weight gradients
        torch.mm(all_m.t(), all_h, out=wmh.new_empty(wmh.shape))
        torch.mm(all_h, head.t())  # the head, and its gradients
        torch.mm(all_logits, head)
        torch.mm(all_logits.t(), all_h)

    def multiply() -> None:
        for _ in range(N_STEPS):
            multiply_one_step()

    return multiply


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return how long ``work`` takes, on the device too."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[512])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seq-length", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
