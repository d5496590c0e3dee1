"""Featurising reviews, by precision, beside the recurrence's matrix products alone.

    python benchmarks/bench_transform.py
    python benchmarks/bench_transform.py --hidden-size 1024 --n-documents 100 --json transform.json

For each hidden size, ``MLSTMFeaturizer.transform`` of reviews of IMDB, whole, in each precision;
the float32 matrix products of the same documents, at the batch sizes that they are read at; and the
loop of sentiment-discovery v0, which reads batches of 128 in the order of the data set, padded on
the right. Then one text of 100 bytes, beside its matrix-vector products. What is compared is timed
in turn and a ratio is taken round by round; figures are the median with smallest and largest in
brackets. The model is a new one, read from its file: what it computes takes as long as what a
trained one does. Give it the machine to itself.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from reporting import machine, seconds, spread

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, ops
from skdiscovery.datasets import fetch_imdb
from skdiscovery.inference.ragged import length_sorted_batches

PRECISIONS = {"cpu": ("float32", "bfloat16", "int8"), "cuda": ("float32", "bfloat16")}
PADDED_BATCH = 128
TEXT = (
    "It is not a great film, but the actors are good, and I would watch it again with my friends."
)


def main() -> None:
    """Time and print each hidden size; write all of it to a file if asked to."""
    options = parse_arguments()
    print(machine())
    rng = np.random.default_rng(0)
    reviews = rng.choice(fetch_imdb(subset="train").data, options.n_documents, replace=False)
    records = []
    for hidden_size in options.hidden_size:
        with ops.flush_denormals():
            record = compare(hidden_size, list(map(str, reviews)), options)
        print_record(record)
        records.append(record)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "records": records}, indent=1))


def compare(hidden_size: int, reviews: list[str], options: argparse.Namespace) -> dict:
    """Return the seconds that everything takes, round by round."""
    lm = ByteMLSTMLanguageModel(hidden_size, max_steps=1, batch_size=1, seq_length=8)
    lm.fit(["a text to begin with"])
    documents = lm.preprocess(reviews)
    device = ops.resolve_device(options.device)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        lm.save_pretrained(file)
        featurizers = {
            precision: MLSTMFeaturizer(file, precision=precision, device=str(device)).fit()
            for precision in PRECISIONS[device.type]
        }
    baseline = Baseline(lm.weights_, device)
    work: dict[str, Callable[[], object]] = {
        "products": lambda: baseline.products([len(document) for document in documents]),
        "padded loop": lambda: baseline.padded_loop(documents),
        "vector products": lambda: baseline.vector_products(len(lm.preprocess([TEXT])[0])),
    }
    for precision, featurizer in featurizers.items():
        work[f"reviews, {precision}"] = lambda f=featurizer: f.transform(reviews)
        work[f"one text, {precision}"] = lambda f=featurizer: f.transform([TEXT])
    rounds = [
        {name: seconds(function) for name, function in work.items()}
        for _ in range(options.repetitions + 1)
    ]
    return {
        "hidden_size": hidden_size,
        "precisions": list(featurizers),
        "n_bytes": sum(map(len, documents)),
        "seconds": {name: [r[name] for r in rounds[1:]] for name in work},  # 0: warm-up
    }


def print_record(record: dict) -> None:
    """Print throughput, and ratios to what they are measured by."""
    times, n_bytes = record["seconds"], record["n_bytes"]

    def over(name: str, base: str) -> str:
        return spread([b / t for b, t in zip(times[base], times[name], strict=True)])

    print(f"H={record['hidden_size']}, {n_bytes} bytes of reviews")
    for precision in record["precisions"]:
        name = f"reviews, {precision}"
        speed = spread([n_bytes / t / 1e3 for t in times[name]], "{:.1f}")
        print(
            f"  {precision}: {speed} kB/s; over the products alone {over(name, 'products')}, over "
            f"the padded loop {over(name, 'padded loop')}, over float32 "
            f"{over(name, 'reviews, float32')}"
        )
    for precision in record["precisions"]:
        name = f"one text, {precision}"
        milliseconds = spread([1e3 * t for t in times[name]], "{:.1f}")
        ratios = zip(times[name], times["vector products"], strict=True)
        print(
            f"  one text, {precision}: {milliseconds} ms, "
            f"{spread([t / p for t, p in ratios])} times its matrix-vector products"
        )


class Baseline:
    """What featurising is measured by, on the same weights."""

    def __init__(self, weights: dict[str, np.ndarray], device: torch.device):
        self.device = device
        self.embedding, self.wx, self.wmx, self.bias, self.wh, self.wmh = (
            torch.from_numpy(weights[name]).to(device)
            for name in (
                "embedding", "layers.0.wx", "layers.0.wmx", "layers.0.bias", "layers.0.wh",
                "layers.0.wmh",
            )
        )  # fmt: skip
        self.hidden_size = self.wh.shape[1]
        self.wh_t, self.wmh_t = self.wh.t().contiguous(), self.wmh.t().contiguous()

    @torch.no_grad()
    def products(self, lengths: Sequence[int]) -> None:
        """Multiply as reading documents of these lengths does."""
        for batch in length_sorted_batches(lengths, self.device):
            longest = np.asarray(lengths)[batch]
            state = self.wh.new_zeros(len(batch), self.hidden_size)
            m, z = torch.empty_like(state), self.wh.new_empty(len(batch), 4 * self.hidden_size)
            for n in np.searchsorted(-longest, -np.arange(longest[0]), side="left"):
                torch.mm(state[:n], self.wmh_t, out=m[:n])
                torch.mm(m[:n], self.wh_t, out=z[:n])

    @torch.no_grad()
    def vector_products(self, n_steps: int) -> None:
        """Multiply as reading a single document does."""
        state = self.wh.new_zeros(self.hidden_size)
        m, z = torch.empty_like(state), self.wh.new_empty(4 * self.hidden_size)
        for _ in range(n_steps):
            torch.mv(self.wmh, state, out=m)
            torch.mv(self.wh, m, out=z)

    @torch.no_grad()
    def padded_loop(self, documents: Sequence[bytes]) -> np.ndarray:
        """Read as sentiment-discovery v0 does; return the state after each last byte."""
        features = []
        for start in range(0, len(documents), PADDED_BATCH):
            batch = documents[start : start + PADDED_BATCH]
            lengths = torch.tensor([len(document) for document in batch], device=self.device)
            longest = int(lengths.max())
            padded = torch.tensor([list(document.ljust(longest)) for document in batch])
            padded = padded.to(self.device)
            h = c = last = self.wh.new_zeros(len(batch), self.hidden_size)
            for t in range(longest):
                inputs = self.embedding[padded[:, t]]
                m = (inputs @ self.wmx.T) * (h @ self.wmh.T)
                gates = inputs @ self.wx.T + m @ self.wh.T + self.bias
                i, f, o, u = gates.chunk(4, dim=1)
                c = f.sigmoid() * c + i.sigmoid() * u.tanh()
                h = o.sigmoid() * c.tanh()
                last = torch.where(lengths[:, None] == t + 1, c, last)
            features.append(last.cpu().numpy())
        return np.concatenate(features)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--n-documents", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write all timings to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
