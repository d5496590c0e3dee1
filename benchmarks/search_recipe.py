"""What a small model makes of the same bytes by one recipe or another.

    python benchmarks/search_recipe.py --csv recipes.csv

trains a model of 256 neurons on 6 MB of IMDB's training and unlabelled reviews, by a recipe and by
others that differ from it in one thing, and prints their bits per byte on 500 reviews held out, and
the spread over seeds. Every model reads the same documents; the number of steps follows from the
batch. No test review is read, and no label.
"""

import argparse
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from reporting import machine
from torch import nn

from skdiscovery import ByteMLSTMLanguageModel, TextCorpus
from skdiscovery.datasets import fetch_imdb
from skdiscovery.nn.cells import RecurrentLayer, _uniform

RECIPE = {
    "learning_rate": 9.6e-3,
    "batch_size": 32,
    "seq_length": 128,
    "schedule": "linear",
    "weight_norm": True,
    "cell": "mlstm",
    "initialisation": "orthogonal",
}
OTHERS = {
    "batch_size": (16, 64),
    "seq_length": (64, 256),
    "schedule": ("constant",),
    "weight_norm": (False, "all"),
    "cell": ("lstm",),
    "learning_rate": (3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3, 1.92e-2),
    "dropout": (0.1,),
    "grad_clip": (None,),
    "persist_state": ("document", "always"),
    "initialisation": ("uniform", "forget gate half open"),
}


def main() -> None:
    """Print a row per recipe."""
    options = parse_arguments()
    print(machine())
    train, held_out = read_reviews(options.n_held_out)
    trials: list[tuple[dict, int]] = [({}, seed) for seed in range(options.n_seeds)]
    trials += [({name: value}, 0) for name in options.vary for value in OTHERS[name]]
    rows = []
    for change, seed in trials:
        rows.append(assess(train, held_out, change, seed, options))
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
        if options.csv:
            pd.DataFrame(rows).to_csv(options.csv, index=False)


def read_reviews(n_held_out: int) -> tuple[TextCorpus, TextCorpus]:
    """Return the documents to train on and those held out."""
    reviews = [fetch_imdb(subset=subset).data for subset in ("train", "unsupervised")]
    corpus = TextCorpus.from_documents(chain(*reviews))
    n_train = len(corpus) - n_held_out
    train, held_out = corpus.split((n_train, n_held_out), random_state=0)
    return train, held_out


def model_for(recipe: dict, n_megabytes: float, **params: object) -> ByteMLSTMLanguageModel:
    """Return a model that is to read so much text by a recipe."""
    n_steps = round(n_megabytes * 1e6 / (recipe["batch_size"] * recipe["seq_length"]))
    return ByteMLSTMLanguageModel(**recipe, **params, max_steps=n_steps)


def initialised(way: str) -> AbstractContextManager:
    """Return a context in which a new model's weights are drawn in a certain way."""
    if way == "uniform":  # as the input matrices are
        return patch.object(nn.init, "orthogonal_", _uniform)
    if way == "forget gate half open":
        initialise = RecurrentLayer.initialise

        def without_bias(layer: RecurrentLayer, generator: torch.Generator) -> None:
            initialise(layer, generator)
            nn.init.zeros_(layer.bias)

        return patch.object(RecurrentLayer, "initialise", without_bias)
    return nullcontext()


def assess(
    train: TextCorpus,
    held_out: TextCorpus,
    change: dict,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, object]:
    """Train by the recipe with one change, and return what came of it."""
    start = time.perf_counter()
    recipe = RECIPE | change
    way = recipe.pop("initialisation")
    lm = model_for(
        recipe,
        options.n_megabytes,
        hidden_size=options.hidden_size,
        precision=options.precision,
        random_state=seed,
    )
    try:
        with initialised(way):
            bits = -lm.fit(train).score(held_out)
    except ValueError:  # the loss became nan: nothing else is wrong with what is given
        bits = math.nan
    (change_shown,) = [f"{k}={v}" for k, v in change.items()] or ["the recipe"]
    return {
        "change": change_shown,
        "seed": seed,
        "steps": lm.max_steps,
        "bits per byte": round(bits, 4),
        "seconds": round(time.perf_counter() - start),
    }


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--n-megabytes", type=float, default=6.0)
    parser.add_argument("--n-held-out", type=int, default=500)
    parser.add_argument("--n-seeds", type=int, default=3, help="of the recipe without a change")
    parser.add_argument(
        "--vary", nargs="*", choices=OTHERS, default=list(OTHERS), help="what to change, in turn"
    )
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
