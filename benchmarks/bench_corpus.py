"""Megabytes per second and memory in building a corpus from a file of JSON lines.

    python benchmarks/bench_corpus.py --megabytes 1000

The file is made up, in a temporary folder, and is built in a process of its own, so that the peak
of that process's memory is the build's. Figures are the median with smallest and largest in
brackets. Give it the machine to itself, and TMPDIR a disk with twice the space.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from reporting import machine, spread

MB = 1e6
BUILD = """
import json, sys, time
from pathlib import Path
from skdiscovery import TextCorpus

def peak():  # Linux; that of getrusage is inherited from the process that started this one
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

before, start = peak(), time.perf_counter()
corpus = TextCorpus.from_file(
    sys.argv[1], text_key="reviewText", label_key="overall", cache_dir=sys.argv[2]
)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "memory": peak() - before, "documents": len(corpus)}))
"""


def main() -> None:
    """Make the file, build it a few times, and print."""
    options = parse_arguments()
    print(machine())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.jsonl"
        write_reviews(path, options.megabytes * MB, options.non_ascii)
        size = path.stat().st_size
        runs = [build(path) for _ in range(options.repetitions)]
    print(
        f"{size / MB:.0f} MB of JSON lines, {runs[0]['documents']} documents, "
        f"{options.non_ascii:.0%} of them not ASCII: "
        f"{spread([size / MB / run['seconds'] for run in runs], '{:.1f}')} MB/s, "
        f"{spread([run['memory'] / MB for run in runs], '{:.0f}')} MB above import"
    )


def write_reviews(path: Path, n_bytes: float, non_ascii: float) -> None:
    """Write about ``n_bytes`` of reviews with the keys of those sold with books and films."""
    random = np.random.RandomState(0)
    letters = np.array(list("etaoinshrdlu"))
    words = ["".join(random.choice(letters, n)) for n in random.randint(2, 10, size=5000)]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < n_bytes:
            for n_words in random.lognormal(4.3, 0.8, size=100).astype(int) + 1:
                chosen = [words[i] for i in random.randint(len(words), size=n_words)]
                if random.random_sample() < non_ascii:
                    chosen[0] = "“Café”"
                review = {
                    "reviewerID": "A2SUAM1J3GNN3B",
                    "asin": "0000013714",
                    "helpful": [2, 3],
                    "reviewText": " ".join(chosen),
                    "overall": float(random.randint(1, 6)),
                    "unixReviewTime": 1252800000,
                }
                file.write(json.dumps(review, ensure_ascii=False) + "\n")


def build(path: Path) -> dict[str, float]:
    """Build the corpus in a new process and an empty cache; return what that took."""
    with TemporaryDirectory(dir=path.parent) as cache:
        result = subprocess.run(
            [sys.executable, "-c", BUILD, path, cache], stdout=subprocess.PIPE, check=True
        )
    return json.loads(result.stdout)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--non-ascii", type=float, default=0.05, help="share of the documents")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
