"""Features of many files on many machines, with Dask: a ``.npy`` file for each file of texts.

    python examples/featurize_with_dask.py reviews/*.jsonl.gz --text-key review --folder features
    python examples/featurize_with_dask.py *.csv --folder features --scheduler tcp://host:8786

Without --scheduler it starts a cluster on this machine, a process per core. Rows are in the order
of a file's documents. A file of features has the whole name of its texts' file, and ``.npy``; it is
there once it is whole, so the same command, run again, makes only those that are missing, also when
more files match. Workers may come and go: what a dead one was at is done again.

Several GPUs: start one worker of one thread for each, number k with

    CUDA_VISIBLE_DEVICES=k dask worker HOST:8786 --nthreads 1

besides a ``dask scheduler`` on HOST, and give --scheduler tcp://HOST:8786.

The model reaches each worker once, whatever the number of files: it is what the task ``load``
returns, and Dask keeps a task's result where it was needed. Texts in a collection of Dask's, as a
``dask.bag``, are featurised in the same way:

    featurizer = client.submit(load, MLSTMFeaturizer("default"), pure=False)
    features = bag.map_partitions(lambda texts, featurizer: featurizer.transform(texts), featurizer)

scikit-learn's own parallel loops, as of GridSearchCV(n_jobs=-1), run on a cluster within
``joblib.parallel_config("dask")``.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from distributed import Client, LocalCluster, as_completed

from skdiscovery import MLSTMFeaturizer, transform_to_npy
from skdiscovery.files import remove_unfinished
from skdiscovery.inference.pooling import POOLINGS
from skdiscovery.pretrained import find_model
from skdiscovery.text.readers import Reader


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:  # before a cluster is started
        refuse_namesakes(options.files)
        find_model(options.language_model)
        for file in options.files:
            file.open().close()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    pooling = options.pooling if len(options.pooling) > 1 else options.pooling[0]
    featurizer = MLSTMFeaturizer(options.language_model, pooling=pooling, device=options.device)
    reader = Reader(text_key=options.text_key)
    # A thread per worker, for the products of one text's batch already take all that a core has.
    cluster = options.scheduler or LocalCluster(threads_per_worker=1, n_workers=options.n_workers)
    try:
        with Client(cluster) as client:
            print(f"{len(options.files)} files; {client}")
            for target, n_documents in featurize(
                client, options.files, options.folder, featurizer, reader
            ):
                print(f"{target}: {n_documents} documents", flush=True)
    except ExceptionGroup as failed:
        parser.exit(1, "".join(f"error: {error}\n" for error in failed.exceptions))
    finally:
        if not options.scheduler:
            cluster.close()


def featurize(
    client: Client,
    files: Sequence[Path],
    folder: Path,
    featurizer: MLSTMFeaturizer,
    reader: Reader,
) -> Iterator[tuple[Path, int]]:
    """Write the features of all files; yield each file's, and its number of rows, when done.

    Files of features that are there already are not made again. Those that fail do not keep others
    from being read; their errors are raised in the end.
    """
    refuse_namesakes(files)
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    missing = {}
    for file in files:
        target = folder / f"{file.name}.npy"
        if not target.exists():
            missing[target] = file.absolute()
    # Not client.scatter: what is lost with a worker can be loaded again, but not scattered again.
    loaded = client.submit(load, featurizer, pure=False)
    written = client.map(
        write_features, missing.values(), missing, featurizer=loaded, reader=reader, pure=False
    )
    errors = []
    for future in as_completed(written):
        if future.status == "error":
            errors.append(future.exception())
        else:
            yield future.result()
    remove_unfinished(folder)  # of workers that died
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(files)} files", errors)


def refuse_namesakes(files: Sequence[Path]) -> None:
    """Raise a ValueError if files of several folders have one name."""
    by_name = defaultdict(list)
    for file in files:
        by_name[file.name].append(str(file))
    for namesakes in by_name.values():
        if len(namesakes) > 1:
            raise ValueError(
                f"{' and '.join(namesakes)} would have one file of features: give them other "
                "names, or give each its own --folder in a run of its own."
            )


def load(featurizer: MLSTMFeaturizer) -> MLSTMFeaturizer:
    """Return the featurizer with its model in memory."""
    return featurizer.fit()


def write_features(
    file: Path, target: Path, featurizer: MLSTMFeaturizer, reader: Reader
) -> tuple[Path, int]:
    """Write the features of a file's documents; return where to, and how many they are."""
    texts = (text for text, _ in reader.read([file]))
    return target, len(transform_to_npy(featurizer, texts, target))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", type=Path, help=".csv, .tsv, .json, .jsonl, .txt; .gz, .bz2, .xz"
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the features go")
    parser.add_argument("--text-key", default="sentence", help="column or key of the texts")
    parser.add_argument("--language-model", default="default", help="a name or a file")
    poolings = ("auto", *POOLINGS)
    parser.add_argument(
        "--pooling", nargs="+", choices=poolings, default=["auto"], help="of states over the bytes"
    )
    parser.add_argument("--device", default="auto", help="device of each worker")
    parser.add_argument(
        "--scheduler", help="address of a running cluster; else one of this machine"
    )
    parser.add_argument("--n-workers", type=int, help="processes on this machine; one per core")
    return parser


if __name__ == "__main__":
    main()
