"""The mLSTM's operators, by backend and precision, beside their matrix products alone.

    python benchmarks/bench_ops.py
    python benchmarks/bench_ops.py --hidden-size 1024 --batch-size 1 128 --json ops.json

For each hidden size and batch: the recurrence forward and backward as in training, and forward as
in inference, over as many steps as take about a quarter of a second. What is compared is timed in
turn, so that all of it sees the same machine; a ratio (the float32 products' time over the
operator's, 1 is perfect in float32) is taken round by round. At batch 1 the products are
matrix-vector products, else matrix products with the weights laid out at their best. The LSTM of
torch, cuDNN's on a GPU, does 16 H^2 FLOP a step and sequence forward where the mLSTM does 10: its
time counts per FLOP. On a GPU the plain loops are also timed under one CUDA graph of all steps, and
bfloat16 is measured by its own products. Figures are the median with smallest and largest in
brackets. Give it the machine to itself.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from reporting import machine, seconds, spread

from skdiscovery import ops
from skdiscovery.nn.model import N_SYMBOLS

SECONDS_PER_TIMING = 0.25
MAX_STEPS = 256
COMPILED = {"cpu": "cpp", "cuda": "cuda"}
FLOP_OF_MLSTM, FLOP_OF_LSTM = 10, 16


def main() -> None:
    """Time and print each combination; write all of it to a file if asked to."""
    options = parse_arguments()
    device = ops.resolve_device(options.device)
    ops.resolve_backend(COMPILED[device.type], device)
    print(machine())
    records = []
    for hidden_size in options.hidden_size:
        for batch_size in options.batch_size:
            with ops.flush_denormals():
                record = compare(hidden_size, batch_size, options.repetitions, device)
            print_record(record)
            records.append(record)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "records": records}, indent=1))


def compare(hidden_size: int, batch_size: int, repetitions: int, device: torch.device) -> dict:
    """Return the seconds per step of everything, round by round."""
    operands = Operands(hidden_size, batch_size, 1, device)
    seconds(operands.training_products)  # a warm-up
    one_step = seconds(operands.training_products)
    n_steps = max(1, min(MAX_STEPS, int(SECONDS_PER_TIMING / one_step)))
    work = work_of(Operands(hidden_size, batch_size, n_steps, device))
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


def work_of(operands: "Operands") -> dict[str, Callable[[], None]]:
    """Return what is to be timed, by name."""
    narrow = operands.narrowed()
    compiled = COMPILED[operands.x.device.type]
    work: dict[str, Callable[[], None]] = {}
    for precision, given in (("", operands), (" bfloat16", narrow)):
        work[f"training products{precision}"] = given.training_products
        work[f"inference products{precision}"] = given.inference_products
        work[f"training {compiled}{precision}"] = partial(given.train, compiled)
        work[f"inference {compiled}{precision}"] = partial(given.read, compiled)
    work |= {
        "training torch": partial(operands.train, "torch"),
        "inference torch": partial(operands.read, "torch"),
        "training nn.LSTM per FLOP": operands.train_lstm,
        "inference nn.LSTM per FLOP": operands.read_lstm,
    }
    if operands.x.is_cuda:
        work |= {
            "training nn.LSTM bfloat16 per FLOP": narrow.train_lstm,
            "inference nn.LSTM bfloat16 per FLOP": narrow.read_lstm,
            "training torch bfloat16 in a graph": captured(partial(narrow.train, "torch")),
            "inference torch bfloat16 in a graph": captured(partial(narrow.read, "torch")),
        }
    else:
        work["inference cpp int8"] = operands.read_int8
    return work


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """Return what replays ``work`` as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def per_flop(name: str, duration: float) -> float:
    """Return a time as that of as much work as the mLSTM's."""
    return duration * FLOP_OF_MLSTM / FLOP_OF_LSTM if name.endswith("per FLOP") else duration


def print_record(record: dict) -> None:
    """Print a line for training and one for inference."""
    times = record["seconds_per_step"]
    for task in ("training", "inference"):
        alone = times[f"{task} products"]
        parts = [f"products alone {1e6 * statistics.median(alone):.1f} us per step"]
        for name, timings in times.items():
            if name.startswith(task) and timings is not alone:
                # On a CPU without instructions for it, bfloat16's own products are no yardstick.
                on_gpu = "training torch bfloat16 in a graph" in times
                products = times[f"{task} products bfloat16"] if on_gpu and "16" in name else alone
                ratios = [p / t for p, t in zip(products, timings, strict=True)]
                parts.append(f"{name.removeprefix(task + ' ')} {spread(ratios)}")
        print(f"H={record['hidden_size']} B={record['batch_size']} {task}: {', '.join(parts)}")


class Operands:
    """Random operands of a recurrence, and what can be timed with them."""

    def __init__(self, hidden_size: int, batch_size: int, n_steps: int, device: torch.device):
        torch.set_default_device(device)
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
        torch.set_default_device(None)

    def mark_trained(self) -> None:
        """Ask for gradients of what training asks them of."""
        self.trained = [t.clone().requires_grad_() for t in (self.x, self.mx, self.wh, self.wmh)]

    def narrowed(self) -> "Operands":
        """Return the same in bfloat16, but for the cell state."""
        narrow = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(narrow, name, value.to(torch.bfloat16))
        narrow.cell_state = self.cell_state
        narrow.lstm = copy.deepcopy(self.lstm).to(torch.bfloat16)
        narrow.lstm.flatten_parameters()  # as cuDNN wants them, which the copy's are not
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


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[256, 512, 1024, 4096])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write all timings to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
