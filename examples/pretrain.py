r"""Train a byte-level language model on text, without labels, for its neurons to find sentiment.

    python examples/pretrain.py --hidden-size 512 --learning-rate 5e-3 --checkpoint-every 500
    python examples/pretrain.py --train reviews.jsonl.gz more.csv --text-key review \
        --hidden-size 4096 --n-devices all --experiment-name reviews
    torchrun --nproc-per-node 8 examples/pretrain.py --train reviews.jsonl.gz --hidden-size 4096
    python examples/pretrain.py --evaluate-only --load default --test mine.csv

Run again after a kill, the same command goes on from its last checkpoint (one each
--checkpoint-every steps), and after its end it trains no more; with more --n-megabytes,
--max-steps or --epochs it goes on to the new end, at another --learning-rate or --dropout if
wished. Ctrl-C ends training early, and the model is written.

These files go to EXPERIMENT_DIR/EXPERIMENT_NAME (with --evaluate-only there are none):

    model.safetensors         the model, for --load and MLSTMFeaturizer
    history.csv               a row per 10 steps: loss, bits per byte, learning rate, speed
    validation_history.csv    a row per validation
    loss.png                  both, drawn
    results.json              bits per byte of held-out documents, bytes per second, options
    checkpoints/              what to resume from
"""

import argparse
import json
import logging
import math
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.figure import Figure

from skdiscovery import ByteMLSTMLanguageModel, LearningCurveDisplay, TextCorpus
from skdiscovery.datasets import fetch_imdb
from skdiscovery.inference.pooling import POOLINGS
from skdiscovery.nn import Architecture
from skdiscovery.nn.widening import widen_weights
from skdiscovery.ops.runtime import BACKENDS, PRECISIONS, resolve_device, resolve_precision
from skdiscovery.pretrained.format import StoredDtype
from skdiscovery.text.preprocessing import PREPROCESSORS
from skdiscovery.text.readers import FORMATS
from skdiscovery.text.splitting import normalized_proportions
from skdiscovery.training.distribution import count_devices, n_launched
from skdiscovery.training.lanes import Lanes

PARTS = ("train", "valid", "test")
HELD_OUT = PARTS[1:]
# What a model's file decides. Its hidden_size can be raised.
OF_THE_MODEL = {
    "cell": "--cell",
    "embedding_size": "--embedding-size",
    "n_layers": "--layers",
    "preprocessor": "--preprocessor",
}
WEIGHT_NORM = {"none": False, "recurrent": True, "all": "all"}

FLAGS_OF_SENTIMENT_DISCOVERY = """\
The flags of sentiment-discovery's text_reconstruction.py, and what they are here:
  text
    -train -valid -test         --train --valid --test, also .tsv, .jsonl, .txt and compressed
    -split                      --split, drawn with --seed
    -text_key -delim            --text-key --delimiter
    -loose_json                 --format; not needed for .json and .jsonl
    -preprocess                 --preprocessor; done once, and again when a file has changed
    -cache -lazy                gone: files are always memory-mapped, from --cache-dir
    -eval_text_key              gone: all files have the same --text-key
    -label_key -eval_label_key  gone: no label is read
    -binarize_sent              gone: no label is read
    -drop_unlabeled             gone: no label is read
    -data_set_type              gone: this script is the unsupervised one
    -data_size                  gone: there are 256 bytes
  batches
    -batch_size                 --batch-size, of all devices together (was: of each)
    -seq_length                 --seq-length, or minus the number of sequences, as before
    -persist_state 0, 1, -1     --persist-state document, shard, always
    -num_shards                 gone: a shard is a megabyte of documents
    -transpose                  gone: a sequence always goes on where its last one ended
    -shuffle                    gone: shards and their documents are shuffled in each epoch
    -no_wrap                    gone: each byte is read once in an epoch
    -eval_seq_length            gone: each held-out document is read whole, from the zero state
    -eval_batch_size            gone: likewise
    -val_shards -test_shards    gone: likewise
  model
    -rnn_type                   --cell mlstm or lstm (others never worked)
    -rnn_size -embed_size       --hidden-size --embedding-size
    -layers -dropout            --layers --dropout
    -weight_norm                --weight-norm all
    -weight_norm -lstm_only     --weight-norm recurrent
    -load_model                 --load
    -model_dir                  gone: the model is model.safetensors
  training
    -epochs -max_iters          --epochs --max-steps, or --n-megabytes
    -lr --optimizer_type        --learning-rate --optimizer
    -lr_scheduler -lr_factor    --schedule --lr-decay
    -clip                       --clip, the norm of the gradient (was: each of its entries)
    -save_iters                 --checkpoint-every
    -save_epochs                gone: --checkpoint-every counts steps
    -save_optim -load_optim     gone: a checkpoint has all that it takes to go on
    -start_epoch -start_iter    gone: a run goes on from the step of its checkpoint
    -should_test                --evaluate-only
    -no_loss                    gone: training needs a loss
  machine
    -cuda                       --device
    -num_gpus                   --n-devices
    -distributed -rank          gone: --n-devices, or torchrun
    -world_size                 gone: --n-devices, or torchrun
    -fp16                       --precision bfloat16 to train, --dtype float16 for the file
    -fuse_lstm                  --backend
    -benchmark                  gone: nothing here is tuned by cuDNN
    -verbose                    gone: the first process shows progress, the others are silent
    -seed                       --seed, of all chance
    -config                     gone: it did nothing
    -experiment_dir             --experiment-dir
    -experiment_name            --experiment-name
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Train or evaluate as the command line says."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if is_first_process():
        logging.basicConfig(level=logging.INFO)
    try:  # all that can be wrong with the input, before any work
        lm = make_language_model(options)
        parts = read_parts(options, lm.preprocessor)
        if not options.evaluate_only:
            set_limits(lm, options, parts["train"])
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not options.evaluate_only:
        train(lm, parts, options, parser)
    if not is_first_process():
        return
    bits_per_byte = {part: -lm.score(parts[part]) for part in HELD_OUT if part in parts}
    for part, bits in bits_per_byte.items():
        corpus = parts[part]
        print(f"{part}: {bits:.4f} bits per byte, {len(corpus)} documents, {corpus.n_bytes} bytes")
    if not options.evaluate_only:
        write_results(lm, bits_per_byte, options)


def make_language_model(options: argparse.Namespace) -> ByteMLSTMLanguageModel:
    """Return a new model or the one to start from, with the parameters that the options give."""
    of_the_model = [name for name in OF_THE_MODEL if name in options]
    if options.load is None:
        lm = ByteMLSTMLanguageModel()
        if options.evaluate_only:
            raise ValueError("--evaluate-only needs a model: name it with --load")
    else:
        lm = ByteMLSTMLanguageModel.from_pretrained(options.load)
        if of_the_model:
            flags = ", ".join(OF_THE_MODEL[name] for name in of_the_model)
            raise ValueError(f"--load: the model's file decides about {flags}: leave that out")
        if "hidden_size" in options and options.hidden_size != lm.hidden_size:
            widen(lm, options.hidden_size, options.random_state)
    given = {name: value for name, value in vars(options).items() if name in lm.get_params()}
    given["weight_norm"] = WEIGHT_NORM[options.weight_norm]
    return lm.set_params(
        **given,
        warm_start=options.load is not None,
        checkpoint_dir=folder_of(options) / "checkpoints",
        resume=True,
        verbose=int(is_first_process()),
    )


def widen(lm: ByteMLSTMLanguageModel, hidden_size: int, seed: int) -> None:
    """Give a fitted model more neurons, so that it computes what it did before."""
    rng = np.random.RandomState(seed)
    lm.weights_ = widen_weights(lm.weights_, Architecture.from_config(lm.config_), hidden_size, rng)
    lm.config_ |= {"hidden_size": hidden_size}


def set_limits(lm: ByteMLSTMLanguageModel, options: argparse.Namespace, corpus: TextCorpus) -> None:
    """Set how long to train on the corpus."""
    n_steps, n_megabytes, n_epochs = options.max_steps, options.n_megabytes, options.max_epochs
    if n_megabytes is not None:
        if not 0 < n_megabytes < math.inf:
            raise ValueError(f"--n-megabytes: expected a number above 0, got {n_megabytes:g}")
        # What is out of range is for fit to refuse.
        lanes = Lanes(corpus, max(1, lm.batch_size), lm.seq_length or 1, lm.persist_state)
        n_steps = max(1, round(1e6 * n_megabytes * lanes.n_batches / corpus.n_bytes))
    if n_epochs is None:  # where steps are the limit, epochs must not be: each has a step at least
        n_epochs = 1 if n_steps is None else max(1, n_steps)
    lm.set_params(max_steps=n_steps, max_epochs=n_epochs)


def train(
    lm: ByteMLSTMLanguageModel,
    parts: dict[str, TextCorpus],
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
) -> None:
    """Train, and write what comes of it."""
    try:
        lm.fit(parts["train"], X_val=parts.get("valid"))
    except (MemoryError, OSError, ValueError) as error:
        # It trained until the loss became infinite, and has the last good weights; or not at all.
        if hasattr(lm, "history_") and not lm.history_.empty:
            write_model(lm, options)
        parser.error(str(error))
    write_model(lm, options)


def read_parts(options: argparse.Namespace, preprocessor: str | None) -> dict[str, TextCorpus]:
    """Return the documents to train on, to validate on and to test on, where there are such."""

    def read(part: str) -> TextCorpus:
        return TextCorpus.from_file(
            getattr(options, part),
            text_key=options.text_key,
            format=options.format,
            delimiter=options.delimiter,
            encoding=options.encoding,
            decode_error=options.decode_error,
            preprocessor=preprocessor,
            cache_dir=options.cache_dir,
        )

    parts = {part: read(part) for part in HELD_OUT if getattr(options, part)}
    if options.evaluate_only and parts:
        return parts
    if options.train:
        corpus = read("train")
    else:
        reviews = [fetch_imdb(subset=subset).data for subset in ("train", "unsupervised")]
        corpus = TextCorpus.from_documents(chain(*reviews), preprocessor=preprocessor)
    shares = split_shares(options.split, [part not in parts for part in PARTS])
    split = corpus.split(shares, random_state=options.random_state)
    parts |= {part: some for part, some in zip(PARTS, split, strict=True) if len(some)}
    if options.evaluate_only and parts.keys().isdisjoint(HELD_OUT):
        raise ValueError("--evaluate-only needs documents: give --valid, --test or --split")
    return parts


def split_shares(split: str, wanted: Sequence[bool]) -> list[float]:
    """Return the share of each part, with those that are not wanted left to the others."""
    shares = normalized_proportions(split)
    if len(shares) > len(PARTS) or not shares[0]:
        raise ValueError(f"--split: expected up to three shares, the first above 0, got {split!r}")
    shares = np.pad(shares, (0, len(PARTS) - len(shares))) * wanted
    return (shares / shares.sum()).tolist()


# ---- files out


def folder_of(options: argparse.Namespace) -> Path:
    """Return the folder of the run."""
    return options.experiment_dir / options.experiment_name


def is_first_process() -> bool:
    """Return whether this process is the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def write_model(lm: ByteMLSTMLanguageModel, options: argparse.Namespace) -> None:
    """Write the model, and how its training went."""
    if not is_first_process():
        return
    folder = folder_of(options)
    if options.pooling:
        lm.config_ |= {"pooling": list(dict.fromkeys(options.pooling))}
    lm.save_pretrained(folder / "model.safetensors", dtype=options.dtype)
    lm.history_.to_csv(folder / "history.csv", index=False)
    lm.validation_history_.to_csv(folder / "validation_history.csv", index=False)
    if not lm.history_.empty:  # as it is if Ctrl-C was quick
        figure = Figure(figsize=(8, 4.8), layout="constrained")
        LearningCurveDisplay.from_estimator(lm, ax=figure.subplots())
        figure.savefig(folder / "loss.png", dpi=150)


def write_results(
    lm: ByteMLSTMLanguageModel, bits_per_byte: dict[str, float], options: argparse.Namespace
) -> None:
    """Write and print how fast the training was and how good the model is."""
    device = resolve_device(lm.device)
    precision = str(resolve_precision(lm.precision, device)).removeprefix("torch.")
    n_devices = n_launched() or count_devices(lm.n_devices, device, lm.batch_size)
    # Without a row if Ctrl-C was quick.
    speed = 0.0 if lm.history_.empty else lm.history_["bytes_per_second"].median()
    results = {
        "bits_per_byte": bits_per_byte,
        "n_steps": lm.n_steps_,
        "n_bytes_seen": lm.n_bytes_seen_,
        "bytes_per_second": speed,
        "trained_on": {"device": device.type, "n_devices": n_devices, "precision": precision},
        "parameters": lm.get_params(),
        "options": vars(options),
    }
    text = json.dumps(results, indent=2, default=str)
    (folder_of(options) / "results.json").write_text(text + "\n", encoding="utf-8")
    print(
        f"train: {lm.n_steps_} steps, {lm.n_bytes_seen_} bytes read, "
        f"{speed:.0f} bytes/s on {n_devices} x {device.type}, {speed / n_devices:.0f} each "
        f"({precision}, batches of {lm.batch_size} x {lm.seq_length}); see {folder_of(options)}"
    )


# ---- the command line


def number_or_none(text: str) -> float | None:
    """Return the number; None for 0."""
    return float(text) or None


def number_or_all(text: str) -> int | str:
    """Return the number, or the word "all"."""
    return text if text == "all" else int(text)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]",
        description=__doc__,
        epilog=FLAGS_OF_SENTIMENT_DISCOVERY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parameters: dict[str, Any] = ByteMLSTMLanguageModel().get_params()

    def parameter(flag: str, name: str, text: str, **details: Any) -> None:
        """Add a flag for a parameter of the estimator; if it is not given, there is no value."""
        details = {"type": type(parameters[name]), "default": argparse.SUPPRESS, **details}
        add(flag, dest=name, help=f"{text} (default: {parameters[name]})", **details)

    add = parser.add_argument_group("text").add_argument
    kinds = "csv, tsv, json, jsonl, txt, or one of these compressed with gz, bz2 or xz"
    add("--train", nargs="+", metavar="FILE", help=f"{kinds}. Default: IMDB, without its test set")
    add("--valid", nargs="+", metavar="FILE", help="to measure the loss on while training")
    add("--test", nargs="+", metavar="FILE", help="to measure the loss on at the end")
    shares = "shares of --train for training, validation and test; files replace theirs"
    add("--split", default="1000,1,1", help=f"{shares} (default: %(default)s)")
    add("--text-key", default="sentence", help="column or key of the texts (default: %(default)s)")
    add("--delimiter", default=",", help="between the columns of csv files (default: a comma)")
    add("--encoding", default="utf-8", help="of the files (default: %(default)s)")
    ways, wrong = ("strict", "ignore", "replace"), "what becomes of bytes that are not in it"
    add("--decode-error", choices=ways, default="strict", help=f"{wrong} (default: %(default)s)")
    formats = ("auto", *FORMATS)
    add("--format", choices=formats, default="auto", help="of the files (default: by extension)")
    parameter("--preprocessor", "preprocessor", "how a text becomes bytes", choices=PREPROCESSORS)
    add("--cache-dir", help="for texts as bytes (default: in scikit-learn's data folder)")

    add = parser.add_argument_group("model").add_argument
    load = (
        "a file or shipped name to start from; a larger --hidden-size copies its neurons (Net2Net)"
    )
    add("--load", metavar="MODEL", help=load)
    parameter("--cell", "cell", "kind of layer", choices=("mlstm", "lstm"))
    parameter("--hidden-size", "hidden_size", "neurons of each layer")
    parameter("--embedding-size", "embedding_size", "width of the vector that stands for a byte")
    parameter("--layers", "n_layers", "number of layers")
    parameter("--dropout", "dropout", "share of a layer's outputs that are zeroed in training")
    norms = "matrices with weight normalisation: of the layers, or of the output too"
    add("--weight-norm", choices=WEIGHT_NORM, default="recurrent", help=f"{norms} (%(default)s)")

    training = parser.add_argument_group("training")
    add = training.add_argument
    add("--evaluate-only", action="store_true", help="score --load on held-out text; no training")
    parameter("--batch-size", "batch_size", "sequences side by side, on all devices together")
    length = "bytes through which the gradient flows back; negative: number of sequences"
    parameter("--seq-length", "seq_length", length)
    states = ("document", "shard", "always")
    parameter("--persist-state", "persist_state", "what the state is kept through", choices=states)
    epochs = "passes over the text (default: 1, or as many as the next two need)"
    add("--epochs", dest="max_epochs", type=int, help=epochs)
    limit = training.add_mutually_exclusive_group()
    limit.add_argument("--max-steps", type=int, help="number of updates")
    limit.add_argument("--n-megabytes", type=float, help="text to read in all, some of it again")
    parameter("--optimizer", "optimizer", "any of torch.optim")
    parameter("--learning-rate", "learning_rate", "of the first step")
    schedules = ("linear", "exponential", "constant")
    parameter("--schedule", "schedule", "how the learning rate goes on", choices=schedules)
    parameter("--lr-decay", "lr_decay", "factor per epoch of the exponential schedule")
    parameter("--clip", "grad_clip", "largest norm of the gradient; 0: any", type=number_or_none)
    every = "steps from one validation and checkpoint to the next"
    parameter("--checkpoint-every", "checkpoint_every", every)
    add("--seed", dest="random_state", type=int, default=0, help="of all chance (%(default)s)")

    add = parser.add_argument_group("machine").add_argument
    parameter("--device", "device", "a torch device")
    devices = 'number of devices, or "all"; torchrun sets its own'
    parameter("--n-devices", "n_devices", devices, type=number_or_all)
    precisions = [name for name in PRECISIONS if name != "int8"]  # which is for reading alone
    parameter("--precision", "precision", "of the recurrent products", choices=precisions)
    parameter("--backend", "backend", "what runs the recurrence", choices=BACKENDS)

    add = parser.add_argument_group("files").add_argument
    add("--experiment-dir", type=Path, default=Path("experiments"), help="folder of all runs")
    add("--experiment-name", default="mlstm", help="folder in it (default: %(default)s)")
    dtypes = get_args(StoredDtype)
    pooling = "what the model's file recommends to MLSTMFeaturizer"
    add("--pooling", nargs="+", choices=POOLINGS, help=pooling)
    add("--dtype", choices=dtypes, default="float32", help="of model.safetensors (%(default)s)")
    return parser


if __name__ == "__main__":
    main()
