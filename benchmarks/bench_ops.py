"""The mLSTM's operators, by backend and precision, beside their matrix products alone.

    python benchmarks/bench_ops.py
    python benchmarks/bench_ops.py --hidden-size 1024 --batch-size 1 128 --json ops.json

For each hidden size and batch: the recurrence forward and backward as in training, and forward as
in inference, over as many steps as take about a quarter of a second. What is compared is timed in
turn, so that all of it sees the same machine; a ratio (the float32 products' time over the
operator's, 1 is perfect in float32) is taken round by round. At batch 1 the products are
matrix-vector products, else matrix products with the weights laid out at their best. The LSTM of
torch does 16 H^2 FLOP a step and sequence forward where the mLSTM does 10: its time counts per
FLOP. Figures are the median with smallest and largest in brackets. Give it the machine to itself.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reporting import machine, spread

from skdiscovery import ops

N_SYMBOLS = 256
SECONDS_PER_TIMING = 0.25
MAX_STEPS = 256
BACKENDS = ("cpp", "torch")
FLOP_OF_MLSTM, FLOP_OF_LSTM = 10, 16


def main() -> None:
    """Time and print each combination; write all of it to a file if asked to."""
    options = parse_arguments()
    for backend in BACKENDS:
        ops.resolve_backend(backend)
    print(machine())
    records = []
    for hidden_size in options.hidden_size:
        for batch_size in options.batch_size:
            with ops.flush_denormals():
                record = compare(hidden_size, batch_size, options.repetitions)
            print_record(record)
            records.append(record)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "records": records}, indent=1))


def compare(hidden_size: int, batch_size: int, repetitions: int) -> dict:
    """Return the seconds per step of everything, round by round."""
    operands = Operands(hidden_size, batch_size, n_steps=1)
    one_step = seconds(operands.training_products)
    n_steps = max(1, min(MAX_STEPS, int(SECONDS_PER_TIMING / one_step)))
    operands = Operands(hidden_size, batch_size, n_steps)
    work: dict[str, Callable[[], None]] = {
        "training products": operands.training_products,
        "inference products": operands.inference_products,
    }
    narrow = operands.narrowed()
    for backend in BACKENDS:
        work[f"training {backend}"] = lambda backend=backend: operands.train(backend)
        work[f"inference {backend}"] = lambda backend=backend: operands.read(backend)
    work |= {
        "training cpp bfloat16": lambda: narrow.train("cpp"),
        "inference cpp bfloat16": lambda: narrow.read("cpp"),
        "inference cpp int8": operands.read_int8,
        "training nn.LSTM per FLOP": operands.train_lstm,
        "inference nn.LSTM per FLOP": operands.read_lstm,
    }
    rounds = [
        {name: per_flop(name, seconds(function)) / n_steps for name, function in work.items()}
        for _ in range(repetitions + 1)
    ]
    return {
        "hidden_size": hidden_size,
        "batch_size": batch_size,
        "n_steps": n_steps,
        "seconds_per_step": {name: [r[name] for r in rounds[1:]] for name in work},  # 0: warm-up
    }


def per_flop(name: str, duration: float) -> float:
    """Return a time as that of as much work as the mLSTM's."""
    return duration * FLOP_OF_MLSTM / FLOP_OF_LSTM if name.endswith("per FLOP") else duration


def print_record(record: dict) -> None:
    """Print a line for training and one for inference."""
    times = record["seconds_per_step"]
    for task in ("training", "inference"):
        products = times[f"{task} products"]
        parts = [f"products alone {1e6 * statistics.median(products):.0f} us per step"]
        for name, timings in times.items():
            if name.startswith(task) and timings is not products:
                ratios = [p / t for p, t in zip(products, timings, strict=True)]
                parts.append(f"{name.removeprefix(task + ' ')} {spread(ratios)}")
        print(f"H={record['hidden_size']} B={record['batch_size']} {task}: {', '.join(parts)}")


class Operands:
    """Random operands of a recurrence, and what can be timed with them."""

    def __init__(self, hidden_size: int, batch_size: int, n_steps: int):
        self.symbols = torch.randint(N_SYMBOLS, (n_steps, batch_size))
        scale = hidden_size**-0.5
        self.x, self.mx = (
            torch.randn(N_SYMBOLS, 4 * hidden_size),
            torch.randn(N_SYMBOLS, hidden_size),
        )
        self.wh = torch.randn(4 * hidden_size, hidden_size) * scale
        self.wmh = torch.randn(hidden_size, hidden_size) * scale
        self.state = self.cell_state = torch.randn(batch_size, hidden_size)
        self.batch_sizes = [batch_size] * n_steps
        self.mark_trained()
        self.int8 = [ops.Int8Matrix.of(matrix) for matrix in (self.wh, self.wmh)]
        self.lstm = torch.nn.LSTM(hidden_size, hidden_size)
        self.lstm_inputs = torch.randn(n_steps, batch_size, hidden_size)
        # What the products alone work on.
        self.all_z = torch.randn(n_steps * batch_size, 4 * hidden_size)
        self.all_m = torch.randn(n_steps * batch_size, hidden_size)
        self.z, self.m = torch.randn(batch_size, 4 * hidden_size), torch.randn_like(self.state)
        self.h = torch.empty_like(self.state)
        self.wh_t, self.wmh_t = self.wh.t().contiguous(), self.wmh.t().contiguous()
        self.dwh, self.dwmh = torch.empty_like(self.wh), torch.empty_like(self.wmh)

    def mark_trained(self) -> None:
        """Ask for gradients of what training asks them of."""
        self.trained = [t.clone().requires_grad_() for t in (self.x, self.mx, self.wh, self.wmh)]

    def narrowed(self) -> "Operands":
        """Return the same in bfloat16, but for the cell state."""
        narrow = copy.copy(self)
        for name in ("x", "mx", "wh", "wmh", "state"):
            setattr(narrow, name, getattr(self, name).to(torch.bfloat16))
        narrow.mark_trained()
        return narrow

    def train(self, backend: str) -> None:
        """Run forward, and backward from the sum of all hidden states."""
        x, mx, wh, wmh = self.trained
        h, _, _ = ops.mlstm(
            x, mx, self.symbols, wh, wmh, self.state, self.cell_state, backend=backend
        )
        torch.autograd.grad(h.sum(), self.trained)

    @torch.no_grad()
    def read(self, backend: str) -> None:
        """Run forward as inference does."""
        symbols = self.symbols.flatten()
        ops.mlstm_packed(
            self.x, self.mx, symbols, self.batch_sizes, self.wh, self.wmh, self.state,
            self.cell_state, backend=backend,
        )  # fmt: skip

    @torch.no_grad()
    def read_int8(self) -> None:
        """Run forward with the matrices in int8."""
        symbols = self.symbols.flatten()
        ops.mlstm_packed_int8(
            self.x, self.mx, symbols, self.batch_sizes, *self.int8, self.state, self.cell_state
        )

    def train_lstm(self) -> None:
        """Run torch's LSTM as :meth:`train` runs the mLSTM."""
        output, _ = self.lstm(self.lstm_inputs)
        torch.autograd.grad(output.sum(), list(self.lstm.parameters()))

    @torch.no_grad()
    def read_lstm(self) -> None:
        """Run torch's LSTM forward."""
        self.lstm(self.lstm_inputs)

    def inference_products(self) -> None:
        """Multiply as a run forward does."""
        for _ in self.batch_sizes:
            if len(self.state) == 1:
                torch.mv(self.wmh, self.state[0], out=self.m[0])
                torch.mv(self.wh, self.m[0], out=self.z[0])
            else:
                torch.mm(self.state, self.wmh_t, out=self.m)
                torch.mm(self.m, self.wh_t, out=self.z)

    def training_products(self) -> None:
        """Multiply as a run forward and backward does."""
        self.inference_products()
        for _ in self.batch_sizes:
            if len(self.state) == 1:
                torch.mv(self.wh.t(), self.z[0], out=self.m[0])
                torch.mv(self.wmh.t(), self.m[0], out=self.h[0])
            else:
                torch.mm(self.z, self.wh, out=self.m)
                torch.mm(self.m, self.wmh, out=self.h)
        torch.mm(self.all_z.t(), self.all_m, out=self.dwh)
        torch.mm(self.all_m.t(), self.all_m, out=self.dwmh)


def seconds(work: Callable[[], None]) -> float:
    """Return how long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[256, 512, 1024, 4096])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write all timings to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
