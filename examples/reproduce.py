r"""Sentiment by a language model's neurons, beside counts of words: a table for anyone to make.

On SST-2 (sentences) and IMDB (whole reviews) it measures the accuracy of

- all neurons: an L1 logistic regression on the features of MLSTMFeaturizer;
- the same with the weights of all but its first neuron set to zero ("masked");
- a regression on that neuron alone;
- the majority class;
- tf-idf: a logistic regression on counts of words and pairs of words.

Each C is the best on validation, the smallest of equals. IMDB has no validation set: it is the last
fifth of the training reviews. Nothing but the training set is fitted, and nothing is chosen on the
test set. Then, of the same classifiers,

- "0% edits" and so on: accuracy on the first 2,000 test texts after so many of their characters
  were replaced, dropped, added to or swapped at random; training was on clean ones;
- "10 labels" and so on: accuracy on the test set after training on so few texts, C by 3-fold
  cross-validation among them; mean and standard deviation of five draws. tf-idf has its words and
  their weights from all training texts, for that takes no labels.

    python examples/reproduce.py
    python examples/reproduce.py --data imdb --n-train 5000 --n-test 5000
    python examples/reproduce.py --language-model path/to/openai --expect openai

The figures are compared with the recorded ones in reproduced.json, beside this script, for the same
model and as many texts; it exits with 1 if one is further off than the tolerance there. --record
writes them there instead. It has published figures too: --expect names them.

Files, in the folder --output:

    table.md, table.csv     the table, in per cent; how it was made
    DATA_weights.png        the weight of every neuron
    DATA_neuron.png         the values of the first neuron, class by class
    DATA_neurons.png        accuracy by the number of neurons
    DATA_labels.png         accuracy by the number of labelled texts
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import parallel_config
from matplotlib.figure import Figure
from reproduce_measures import (
    ALL,
    COLUMNS,
    FETCH,
    MAJORITY,
    N_DRAWS,
    ONE,
    TFIDF,
    Outcome,
    few_labels,
    load,
    log,
    measure,
)
from sentiment_transfer import HelpFormatter, made, neuron_names

from skdiscovery import MLSTMFeaturizer, NeuronHistogramDisplay, NeuronWeightsDisplay
from skdiscovery.classifier import linear_terms
from skdiscovery.ops.runtime import PRECISIONS

RECORDED = Path(__file__).with_name("reproduced.json")
TITLES = {"sst2": "SST-2", "imdb": "IMDB"}

# Colour, marker and line, so that neither the colour-blind nor a grey print mixes them up.
STYLES = {
    ALL: ("#0072B2", "o", "-"),
    ONE: ("#009E73", "s", "-."),
    TFIDF: ("#D55E00", "^", "--"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write and compare what the command line asks for."""
    parser = make_parser()
    options = parser.parse_args(argv)
    start = time.perf_counter()
    try:  # all that can be wrong with the input, before any work
        model = options.language_model
        featurizer = MLSTMFeaturizer(model, precision=options.precision, memory=options.cache).fit()
        loaded = {name: load(name, options.n_train, options.n_test) for name in options.data}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    made(options.output)
    expect = options.expect or Path(model).name.removesuffix(".safetensors")
    outcomes = {}
    for name, (texts, y, classes) in loaded.items():
        with parallel_config(n_jobs=options.n_jobs):
            outcomes[name] = measure(name, texts, y, classes, featurizer)
        draw(name, outcomes[name], neuron_names(featurizer), options.output)
    table = pd.concat({name: outcome.table for name, outcome in outcomes.items()})
    table.to_csv(options.output / "table.csv", index_label=["data", "by"], float_format="%.2f")
    command = " ".join(["python examples/reproduce.py", *(sys.argv[1:] if argv is None else argv)])
    seconds = time.perf_counter() - start
    text = f"{to_markdown(table)}\n\n{describe(featurizer, outcomes, command, seconds)}"
    (options.output / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    if options.record:
        record(expect, outcomes)
    else:
        sys.exit(compare(expect, outcomes))


# ---- the table


def to_markdown(table: pd.DataFrame) -> str:
    """Return the table in Markdown, in per cent."""
    few = [column for column in map(str, table) if column.endswith("labels")]
    shown = pd.DataFrame(index=table.index)
    for column in [*COLUMNS, *few, "C", "features"]:
        if column in few:
            means, deviations = table[column], table[f"{column}, std"]
            shown[column] = [
                "" if np.isnan(mean) else f"{mean:.1f} ± {deviation:.1f}"
                for mean, deviation in zip(means, deviations, strict=True)
            ]
        else:
            form = {"C": "{:g}", "features": "{:.0f}"}.get(column, "{:.2f}")
            shown[column] = ["" if pd.isna(x) else form.format(x) for x in table[column]]
    titles = ["data", "by", *shown.columns]
    rows = [titles, ["---"] * len(titles)]
    rows += [[*index, *cells] for index, cells in zip(shown.index, shown.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def describe(
    featurizer: MLSTMFeaturizer, outcomes: dict[str, Outcome], command: str, seconds: float
) -> str:
    """Return what was measured, on what, and how it was made."""
    config = featurizer.language_model_.config_
    bits = f", {config['bits_per_byte']:.3f} bits per byte" if "bits_per_byte" in config else ""
    lines = [
        f"Model: {featurizer.language_model} ({config['n_layers']} layer(s) of "
        f"{config['hidden_size']} neurons{bits}), {' and '.join(featurizer.pooling_)} over the "
        "bytes. Accuracy in per cent."
    ]
    names = neuron_names(featurizer)
    for name, outcome in outcomes.items():
        sizes = [f"{len(outcome.y[part]):,}" for part in ("train", "valid", "test")]
        top = ", ".join(names[outcome.ranking[:5]])
        lines.append(f"{name}: {' / '.join(sizes)} texts; neurons {top} first.")
    lines.append(
        f"Made by `{command}` in {seconds:.0f} seconds (features from --cache are free), "
        f"{torch.get_num_threads()} thread(s) of {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}."
    )
    return "\n".join(lines)


# ---- figures on record


def figures_of(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a data set as they are kept: all means, in per cent."""
    means = [c for c in map(str, outcome.table) if c in COLUMNS or c.endswith("labels")]
    return {
        "n_train": len(outcome.y["train"]),
        "n_test": len(outcome.y["test"]),
        "accuracy": {
            method: row.dropna().to_dict()
            for method, row in outcome.table[means].round(2).iterrows()
        },
    }


def record(name: str, outcomes: dict[str, Outcome]) -> None:
    """Keep the figures of a model, in place of those that there were of it."""
    kept = json.loads(RECORDED.read_text(encoding="utf-8"))
    kept["models"].setdefault(name, {}).update(
        {data: figures_of(outcome) for data, outcome in outcomes.items()}
    )
    RECORDED.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    log(f"recorded as the figures of {name!r} in {RECORDED}")


def compare(name: str, outcomes: dict[str, Outcome]) -> int:
    """Print what is off the figures on record; return the exit status."""
    kept = json.loads(RECORDED.read_text(encoding="utf-8"))
    tolerance, of_model = kept["tolerance"], kept["models"].get(name, {})
    n_off = 0
    for data, outcome in outcomes.items():
        expected, got = of_model.get(data), figures_of(outcome)
        if expected is None:
            print(f"{data}: there are no figures of {name!r} on record")
            continue
        if any(expected[size] != got[size] for size in ("n_train", "n_test")):
            print(
                f"{data}: not compared, for the figures of {name!r} on record are of "
                f"{expected['n_train']} and {expected['n_test']} texts, training and test, and "
                f"these of {got['n_train']} and {got['n_test']}"
            )
            continue
        off = [
            f"  {method}, {column}: {got['accuracy'][method][column]:.2f}, on record {value:.2f}"
            for method, row in expected["accuracy"].items()
            for column, value in row.items()
            if abs(got["accuracy"][method][column] - value) > tolerance
        ]
        n_off += len(off)
        n_figures = sum(map(len, expected["accuracy"].values()))
        print(
            f"{data}: {n_figures - len(off)} of {n_figures} figures of {name!r} are within "
            f"{tolerance} of those on record",
            *off,
            sep="\n",
        )
    return int(n_off > 0)


# ---- plots


def draw(name: str, outcome: Outcome, names: np.ndarray, folder: Path) -> None:
    """Draw weights, first neuron, and the accuracy by number of neurons and of labels."""
    coef, *_ = linear_terms(outcome.methods[ALL].model)
    title = TITLES[name]
    ax = new_axes(f"Weights of all neurons, {title}")
    NeuronWeightsDisplay(coef, outcome.classes, names=names).plot(ax=ax)
    save(ax, folder / f"{name}_weights.png")

    first = outcome.ranking[0]
    model = outcome.methods[ONE].model
    ax = new_axes(f"The first neuron, test set of {title}")
    NeuronHistogramDisplay(
        outcome.methods[ALL].X["test"][:, first],
        np.array(outcome.classes)[outcome.y["test"]],
        threshold=-model.intercept_[0] / model.coef_[0, 0] if model.coef_.any() else None,
        name=f"neuron {names[first]}",
    ).plot(ax=ax)
    save(ax, folder / f"{name}_neuron.png")

    ax = new_axes(f"Accuracy by the number of neurons, {title}")
    colour, marker, _ = STYLES[ALL]
    ax.plot(outcome.curve, color=colour, marker=marker, label="the first neurons, by their weights")
    for method in (TFIDF, MAJORITY):
        draw_level(ax, outcome.table, method)
    ax.set_xscale("log", base=2)
    ax.set_xlabel("number of neurons")
    finish(ax, outcome.curve.index)
    save(ax, folder / f"{name}_neurons.png")
    draw_few_labels(name, outcome, folder)


def draw_few_labels(name: str, outcome: Outcome, folder: Path) -> None:
    """Draw the accuracy after training on few labels, and on all."""
    n_all = len(outcome.y["train"])
    few = few_labels(outcome.y)
    ax = new_axes(f"Accuracy by the number of labelled texts, {TITLES[name]}")
    for method, (colour, marker, line) in STYLES.items():
        row = outcome.table.loc[method]
        means = [*row[[f"{n} labels" for n in few]], row["test"]]
        deviations = [*row[[f"{n} labels, std" for n in few]], 0]
        style = {"color": colour, "marker": marker, "linestyle": line, "capsize": 4}
        ax.errorbar([*few, n_all], means, deviations, label=method, **style)
    draw_level(ax, outcome.table, MAJORITY)
    ax.set_xscale("log")
    ax.set_xlabel(f"labelled texts (mean and standard deviation of {N_DRAWS} draws; last: all)")
    finish(ax, [*few, n_all])
    save(ax, folder / f"{name}_labels.png")


def new_axes(title: str) -> Any:
    """Return the axes of a new figure."""
    ax = Figure(figsize=(8, 4.8), layout="constrained").subplots()
    ax.set_title(title)
    return ax


def draw_level(ax: Any, table: pd.DataFrame, method: str) -> None:
    """Draw the accuracy of a method that does not depend on what is on the lower axis."""
    colour, _, line = STYLES.get(method, ("0.4", "", ":"))
    ax.axhline(table.loc[method, "test"], color=colour, linestyle=line, label=method)


def finish(ax: Any, ticks: Iterable[int]) -> None:
    """Put plain numbers where there are points, and a legend."""
    ax.set_ylabel("accuracy on the test set (%)")
    ax.set_xticks(list(ticks), [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend()


def save(ax: Any, path: Path) -> None:
    """Write the figure that the axes are on."""
    ax.figure.savefig(path, dpi=150)


# ---- the command line


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", choices=FETCH, default=list(FETCH), help="which data sets")
    add("--language-model", default="default", help="name of a model, or a file")
    add("--n-train", type=int, help="train (and validate, in IMDB) on the first so many texts only")
    add("--n-test", type=int, help="test on the first so many texts only")
    add("--precision", choices=PRECISIONS, default="auto", help="of the features")
    add("--n-jobs", type=int, default=-1, help="regressions at a time; -1 is one per processor")
    add("--cache", type=Path, default=Path("runs/reproduce/cache"), help="folder of the features")
    add("--output", type=Path, default=Path("runs/reproduce"), help="folder of what comes of it")
    add("--expect", metavar="NAME", help="the model on record to compare with. Default: its name")
    add("--record", action="store_true", help="keep the figures on record instead of comparing")
    return parser


if __name__ == "__main__":
    main()
