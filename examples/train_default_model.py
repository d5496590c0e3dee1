"""Train the language model that ships with skdiscovery, from nothing but IMDB's reviews.

It reads the 25,000 training and 50,000 unlabelled reviews (98 MB of text; the labels are not
used), holds a few hundred of them out to measure bits per byte on, and writes one file. The test
reviews are not touched.

    python examples/train_default_model.py default.safetensors --n-megabytes 98

takes hours on two CPU cores. Ctrl-C ends it early and still writes the model; --start-from trains
such a model on, best with another --random-state, so that it meets the reviews in a new order.
"""

import argparse
import logging

from sklearn.model_selection import train_test_split

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.datasets import fetch_imdb

HELD_OUT_REVIEWS = 500


def main() -> None:
    """Train, measure, save."""
    options = parse_arguments()
    logging.basicConfig(level=logging.INFO)
    reviews = [
        review for subset in ("train", "unsupervised") for review in fetch_imdb(subset=subset).data
    ]
    train, held_out = train_test_split(reviews, test_size=HELD_OUT_REVIEWS, random_state=0)
    batch_bytes = options.batch_size * options.seq_length
    if options.start_from:
        model = ByteMLSTMLanguageModel.from_pretrained(options.start_from)
    else:
        model = ByteMLSTMLanguageModel(hidden_size=options.hidden_size)
    model.set_params(
        warm_start=True,
        dropout=options.dropout,
        batch_size=options.batch_size,
        seq_length=options.seq_length,
        max_epochs=100,
        max_steps=int(options.n_megabytes * 1e6 / batch_bytes),
        learning_rate=options.learning_rate,
        checkpoint_dir=options.checkpoint_dir,
        checkpoint_every=options.checkpoint_every,
        resume=options.checkpoint_dir is not None,
        random_state=options.random_state,
        verbose=1,
    )
    model.fit(train, X_val=held_out)
    model.config_ |= {"pooling": options.pooling}
    model.save_pretrained(options.output, dtype="float16")
    model.history_.to_csv(f"{options.output}.history.csv", index=False)
    print(model.validation_history_.to_string(index=False))


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", help="the .safetensors file to write, in half precision")
    parser.add_argument("--start-from", help="a model to train on, instead of a new one")
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seq-length", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--n-megabytes", type=float, default=98, help="text to read, in all")
    parser.add_argument("--checkpoint-dir", help="where to keep checkpoints, and resume from them")
    parser.add_argument("--checkpoint-every", type=int, default=1000, help="in steps")
    parser.add_argument("--random-state", type=int, default=0)
    parser.add_argument("--pooling", nargs="+", default=["mean"], help="what to recommend")
    return parser.parse_args()


if __name__ == "__main__":
    main()
