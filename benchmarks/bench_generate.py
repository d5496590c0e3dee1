"""Writing text, beside the matrix products that it takes alone.

    python benchmarks/bench_generate.py
    python benchmarks/bench_generate.py --hidden-size 512 --n-samples 1 --json generate.json

For each hidden size and number of samples, bytes per second of ``generate``, and of the recurrent
and the output products alone (matrix-vector products at one sample). Both are timed in turn and the
ratio is taken round by round; figures are the median with smallest and largest in brackets. The
model is a new one. Give it the machine to itself.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from reporting import machine, seconds, spread

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.ops.runtime import resolve_device, resolve_precision


def main() -> None:
    """Time and print each combination; write all of it to a file if asked to."""
    options = parse_arguments()
    print(machine())
    records = []
    for hidden_size in options.hidden_size:
        lm = ByteMLSTMLanguageModel(
            hidden_size, max_steps=1, batch_size=1, seq_length=8, device=options.device
        ).fit(["a text to begin with"])
        for n_samples in options.n_samples:
            record = compare(lm, n_samples, options.n_bytes, options.repetitions)
            print_record(record)
            records.append(record)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "records": records}, indent=1))


def compare(lm: ByteMLSTMLanguageModel, n_samples: int, n_bytes: int, repetitions: int) -> dict:
    """Return the seconds of both, round by round."""
    products = make_products(lm, n_samples)

    def multiply() -> None:
        for _ in range(n_bytes):
            products()

    def write() -> None:
        lm.generate("It is", n_bytes=n_bytes, n_samples=n_samples, random_state=0)

    rounds = [(seconds(multiply), seconds(write)) for _ in range(repetitions + 1)][1:]  # 0: warm-up
    return {
        "hidden_size": lm.hidden_size,
        "n_samples": n_samples,
        "n_bytes": n_bytes,
        "seconds": dict(zip(("products", "generate"), zip(*rounds, strict=True), strict=True)),
    }


def make_products(lm: ByteMLSTMLanguageModel, n_samples: int) -> Callable[[], None]:
    """Return what multiplies as writing one byte of each sample does."""
    names = ("layers.0.wmh", "layers.0.wh", "head.weight")
    device = resolve_device(lm.device)
    dtype = resolve_precision(lm.precision, device)
    matrices = [torch.from_numpy(lm.weights_[name]).to(device, dtype) for name in names]
    if n_samples == 1:
        state = matrices[0].new_ones(lm.hidden_size)
        outputs = [state.new_empty(len(matrix)) for matrix in matrices]

        def vector_products() -> None:
            for matrix, output in zip(matrices, outputs, strict=True):
                torch.mv(matrix, state, out=output)

        return vector_products

    states = matrices[0].new_ones(n_samples, lm.hidden_size)
    transposed = [matrix.t().contiguous() for matrix in matrices]
    results = [states.new_empty(n_samples, len(matrix)) for matrix in matrices]

    def matrix_products() -> None:
        for matrix, result in zip(transposed, results, strict=True):
            torch.mm(states, matrix, out=result)

    return matrix_products


def print_record(record: dict) -> None:
    """Print bytes per second, and the ratio."""
    products, generate = (record["seconds"][name] for name in ("products", "generate"))
    n_written = record["n_bytes"] * record["n_samples"]
    print(
        f"H={record['hidden_size']}, {record['n_samples']} samples: generate "
        f"{spread([n_written / t for t in generate], '{:.0f}')} B/s, products alone "
        f"{spread([n_written / t for t in products], '{:.0f}')} B/s, ratio "
        f"{spread([p / t for p, t in zip(products, generate, strict=True)])}"
    )


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[512, 1024, 4096])
    parser.add_argument("--n-samples", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--n-bytes", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write all timings to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
