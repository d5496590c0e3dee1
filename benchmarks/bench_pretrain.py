"""Bytes per second in pretraining, beside what the step's matrix products alone would allow.

    python benchmarks/bench_pretrain.py --hidden-size 256 512 1024
    python benchmarks/bench_pretrain.py --n-devices 1 2 --hidden-size 512

Steps and products are timed in turn, so that both see the same machine; the ratio is taken pair by
pair. What a run spends outside its steps (reading the corpus, history) is a share of the same runs.
With --n-devices, whole trainings are timed instead, on so many GPUs or processes that share the
CPU's threads. Figures are the median with smallest and largest in brackets. Give it the machine to
itself.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from reporting import machine, now, seconds, spread

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.nn import Architecture
from skdiscovery.nn.model import N_SYMBOLS
from skdiscovery.ops import flush_denormals, resolve_device
from skdiscovery.ops.runtime import resolve_precision
from skdiscovery.text import TextCorpus
from skdiscovery.training import OptimizationOptions, Trainer, TrainingPlan, train
from skdiscovery.training.history import LOG_EVERY


def main() -> None:
    """Time steps and products, or whole trainings, for each hidden size."""
    options = parse_arguments()
    print(machine())
    dtype = resolve_precision(options.precision, resolve_device(options.device))
    print(f"batch {options.batch_size}, sequence {options.seq_length}, {dtype}")
    for hidden_size in options.hidden_size:
        if options.n_devices:
            compare_devices(hidden_size, options)
        else:
            compare_with_products(hidden_size, options)


def compare_with_products(hidden_size: int, options: argparse.Namespace) -> None:
    """Print how fast training is, and how fast its matrix products alone."""
    device = resolve_device(options.device)
    dtype = resolve_precision(options.precision, device)
    sizes = Sizes(hidden_size, options.batch_size, options.seq_length, options.n_steps)
    n_bytes = sizes.n_steps * sizes.batch_size * sizes.seq_length
    steps, products, outside = [], [], []
    runs = TimedRuns(sizes, device, dtype)
    multiply = matrix_products(sizes, device, dtype)
    with flush_denormals():
        for _ in range(options.repetitions + 1):
            runs.seconds_in_steps = 0.0
            took = seconds(runs)
            steps.append(n_bytes / took)
            outside.append(100 * (1 - runs.seconds_in_steps / took))
            products.append(n_bytes / seconds(multiply))
    steps, products, outside = steps[1:], products[1:], outside[1:]  # the first is a warm-up
    ratios = [step / product for step, product in zip(steps, products, strict=True)]
    print(
        f"H={hidden_size}: training {spread(steps, '{:.0f}')} B/s, "
        f"products alone {spread(products, '{:.0f}')} B/s, ratio {spread(ratios)}, "
        f"outside the steps {spread(outside, '{:.1f}')}%"
    )


def compare_devices(hidden_size: int, options: argparse.Namespace) -> None:
    """Print how fast training is on each number of devices: the rows of its history."""
    n_steps = LOG_EVERY * (options.repetitions + 1)
    corpus = random_corpus(n_steps * options.batch_size * options.seq_length)
    for n_devices in options.n_devices:
        model = ByteMLSTMLanguageModel(
            hidden_size,
            batch_size=options.batch_size,
            seq_length=options.seq_length,
            device=options.device,
            precision=options.precision,
            n_devices=n_devices,
            random_state=0,
        ).fit(corpus)
        rates = model.history_["bytes_per_second"].tolist()[1:]
        print(f"H={hidden_size}, {n_devices} devices: training {spread(rates, '{:.0f}')} B/s")


class Sizes(NamedTuple):
    """What the work of a run follows from."""

    hidden_size: int
    batch_size: int
    seq_length: int
    n_steps: int


class TimedRuns:
    """Runs of some steps of the real training loop, which note the time in the steps."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype):
        hidden_size, batch_size, seq_length, n_steps = sizes
        plan = TrainingPlan(
            Architecture(hidden_size),
            OptimizationOptions("adam", 5e-4, "constant", 1.0, 1.0),
            seed=0,
            dtype=dtype,
            batch_size=batch_size,
            seq_length=seq_length,
        )
        self.trainer = Trainer(plan, plan.prepare(plan.new_model(), device))
        self.lanes = plan.lanes(random_corpus(n_steps * batch_size * seq_length))
        self.seconds_in_steps = 0.0
        optimizer = self.trainer.optimizer
        # A step begins with the model's forward and ends with the update.
        self.trainer.model.register_forward_pre_hook(self._begin)
        optimizer.register_step_post_hook(self._end)

    def __call__(self) -> None:
        """Make one run."""
        train(self.trainer, self.lanes)

    def _begin(self, *_: object) -> None:
        self._started = now()

    def _end(self, *_: object) -> None:
        self.seconds_in_steps += now() - self._started


def random_corpus(n_bytes: int) -> TextCorpus:
    """Return a corpus of documents of 500 random bytes."""
    text = np.random.RandomState(0).bytes(n_bytes)
    documents = [text[start : start + 500] for start in range(0, n_bytes, 500)]
    return TextCorpus.from_documents(documents, preprocessor=None)


def matrix_products(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that makes the products of a run's steps, and nothing else."""
    hidden_size, batch_size, seq_length, n_steps = sizes

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

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
        for _ in range(n_steps):
            multiply_one_step()

    return multiply


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seq-length", type=int, default=128)
    parser.add_argument("--n-steps", type=int, default=3, help="of a run without --n-devices")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--n-devices", type=int, nargs="+", help="time trainings on so many")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="of both; auto is bfloat16 on a GPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
