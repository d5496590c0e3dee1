r"""Classify sentiment with the neurons of a language model, and find the neuron that does it.

The model reads every text; what its neurons then hold are the features. An L1 logistic regression
on all of them ranks the neurons, and is compared with itself where all but the first few weights
are set to zero ("masked"), and with a regression fitted on those few alone ("n_neurons"). Each C
is chosen by the accuracy on the validation set (on the training set where there is none), the
smallest of equals; nothing but the training set is ever fitted.

    python examples/sentiment_transfer.py
    python examples/sentiment_transfer.py --train mine/train.csv --valid mine/val.csv \
        --test mine/test.jsonl.gz --text-key review --num-neurons 3 --write-results out.csv

Accuracies go to the standard output, and these files to
EXPERIMENT_DIR/EXPERIMENT_NAME/FOLDER_OF_THE_TRAINING_FILE/MODEL:

    sentiment_accuracies/*.txt    accuracy on train/valid/test, of each of the three
    test_probs/*.npy              probability of each class for each text of the test set
    logit_vis/RANK_NEURON.png     how the neuron's values are distributed, class by class, on the
                                  test set (on the training set where that has no labels)
    logit_vis/neuron_values.csv   those values
    sentiment/weight_vis.png      the weight of every neuron
    sentiment/neurons.json        C, weights, intercepts and the neurons' numbers
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from labelled_tables import labels_of, read_tables
from matplotlib.figure import Figure
from regressions import Parts, fit_tfidf, mask, search_l1
from sklearn.dummy import DummyClassifier
from sklearn.utils import check_random_state

from skdiscovery import (
    MLSTMFeaturizer,
    NeuronHistogramDisplay,
    NeuronWeightsDisplay,
    SentimentNeuronClassifier,
)
from skdiscovery.classifier import linear_terms
from skdiscovery.inference.pooling import POOLINGS
from skdiscovery.ops.runtime import PRECISIONS, resolve_device, resolve_precision

N_PLOTTED = 10
N_PRINTED = 5

FLAGS_OF_SENTIMENT_DISCOVERY = """\
The flags of sentiment-discovery's sentiment_transfer.py, and what they are here:
    -train -valid -test         --train --valid --test, also .tsv, .jsonl and compressed
    -split                      --split, drawn with --seed; without it nothing is split
    -text_key -label_key        --text-key --label-key
    -delim                      --delimiter
    -drop_unlabeled             --drop-unlabeled (was: without effect)
    -binarize_sent              --binarize-labels (was: without effect)
    -num_neurons                --num-neurons
    -no_test_eval               --no-test-eval
    -write_results              --write-results, also without a test set
    -load_model                 --language-model
    -cuda                       --device
    -seed                       --seed
    -experiment_dir             --experiment-dir
    -experiment_name            --experiment-name
    -cache -lazy                gone: texts are in memory; --cache is for their features
    -eval_text_key              gone: all files have the same --text-key
    -eval_label_key             gone: all files have the same --label-key
    -loose_json                 gone: a .json file is one list, or an object per line
    -data_set_type              gone: this script is the supervised one
    -rnn_type -rnn_size         gone: the model's file has its size
    -layers -embed_size         gone: likewise
    -data_size -weight_norm     gone: likewise
    -lstm_only -dropout         gone: likewise
    -preprocess                 gone: the model's file says how it reads a text
    -model_dir                  gone: --language-model is a path
    -seq_length -batch_size     gone: each text is read whole, from the zero state
    -eval_seq_length            gone: likewise
    -eval_batch_size            gone: likewise
    -persist_state -transpose   gone: likewise
    -shuffle -no_wrap           gone: likewise
    -num_shards -val_shards     gone: likewise
    -test_shards                gone: likewise
    -num_gpus -distributed      gone: one device reads; for several, featurize_with_dask.py
    -rank -world_size           gone: likewise
    -fp16                       --precision
    -fuse_lstm                  gone: the fastest kernels that there are
    -benchmark                  gone: nothing here is tuned by cuDNN
    -should_test                gone: nothing here is trained but the regressions
    -verbose -config            gone: there is nothing to set
What else is not as it was: features are those after the last byte, the blank at the end of the
text (was: after the one before it), or pooled over all; the solver is liblinear, as in OpenAI's
script, and runs until it has converged (was: saga, for 100 iterations).
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment that the command line describes."""
    parser = make_parser()
    options = parser.parse_args(argv)
    results = options.write_results
    try:  # all that can be wrong with the input and the folders, before any work
        if results and results.suffix.lower() not in (".csv", ".json"):
            raise ValueError(f"--write-results: expected .csv or .json, got {results}")
        check_random_state(options.seed)
        tables = read_tables(options)
        y = labels_of(tables, options)
        featurizer = make_featurizer(options)
        if results:
            made(results.parent)
        folder = made(experiment_folder(options))
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error))

    texts = {part: table[options.text_key] for part, table in tables.items()}
    start = time.perf_counter()
    X = {part: featurizer.transform(part_texts) for part, part_texts in texts.items()}
    seconds = time.perf_counter() - start
    X.setdefault("valid", X["train"])
    y.setdefault("valid", y["train"])

    names = neuron_names(featurizer)
    k = options.num_neurons
    search = search_l1(X, y, min(max(N_PLOTTED, k), len(names)), options.seed)
    everything, top = search.all_neurons_, search.neuron_indices_
    report("all_neurons", everything, X, y, folder, C=search.C)
    used = top[linear_terms(everything)[0][:, top].any(axis=0)]
    if len(used):
        printed, pooling = ", ".join(names[used[: max(N_PRINTED, k)]]), featurizer.pooling_
        pooled = "" if pooling == ("last",) else f" ({' and '.join(pooling)})"
        print(f"neuron(s) {printed} are top sentiment neurons{pooled}")
    else:
        print("no neuron is used: all weights are 0, and every text gets the same label")
    report("masked_n_neurons", mask(everything, top[:k]), X, y, folder)
    X_few = {part: features[:, top[:k]] for part, features in X.items()}
    few = search_l1(X_few, y, 1, options.seed)
    report("n_neurons", few.all_neurons_, X_few, y, folder, C=few.C)

    save_neurons(featurizer, search, few, k, folder)
    part = "test" if "test" in y else "train"
    drawn = used[:N_PLOTTED]
    draw_neurons(X[part][:, drawn], y[part], names[drawn], folder)
    draw_weights(search, names, folder)
    if results:
        part = "test" if "test" in tables else "train"
        table = results_table(tables[part], X[part], everything, top, names, options)
        write_table(table, results)
    if options.baselines:
        report_baselines(texts, y)
    report_speed(sum(map(len, texts.values())), seconds, options)


# ---- what is printed


def report_baselines(texts: Parts, y: Parts) -> None:
    """Print what always guessing the majority achieves, and what counting words does."""
    texts = {"valid": texts["train"], **texts}
    report("majority_class", DummyClassifier().fit(texts["train"], y["train"]), texts, y)
    best, X = fit_tfidf(texts, y)
    report("tfidf_1_2_grams", best, X, y, C=best.C)


def report(
    name: str, model: Any, X: Parts, y: Parts, folder: Path | None = None, C: float | None = None
) -> None:
    """Print the accuracies of a model, its C and number of features; write what goes to files."""
    scored = ("train", "valid", "test" if "test" in y else "valid")
    accuracies = "/".join(f"{100 * model.score(X[part], y[part]):05.2f}" for part in scored)
    print(f"{accuracies} train/val/test accuracy w/ {name}")
    if C is not None:
        print(f"{C:05.2f} regularization coef w/ {name}")
    if folder is None:
        return
    n_used = np.count_nonzero(linear_terms(model)[0].any(axis=0))
    print(f"{n_used:05d} features used w/ all neurons {name}")
    write_text(folder / "sentiment_accuracies" / f"{name}.txt", accuracies)
    probabilities = model.predict_proba(X.get("test", X["valid"]))
    np.save(made(folder / "test_probs") / f"{name}.npy", probabilities, allow_pickle=False)


def report_speed(n_texts: int, seconds: float, options: argparse.Namespace) -> None:
    """Print how fast texts were read, and by what."""
    device = resolve_device(options.device)
    precision = str(resolve_precision(options.precision, device)).removeprefix("torch.")
    speed = f"{n_texts / seconds:.1f} texts/s ({device}, {precision})"
    print(f"{seconds:.2f} seconds to featurise {n_texts} texts, {speed}")


# ---- features


def make_featurizer(options: argparse.Namespace) -> MLSTMFeaturizer:
    """Return the featurizer, ready to read."""
    featurizer = MLSTMFeaturizer(
        options.language_model,
        state=options.state,
        pooling=options.pooling[0] if len(options.pooling) == 1 else tuple(options.pooling),
        device=options.device,
        precision=options.precision,
        memory=options.cache,
    ).fit()
    n_features = len(featurizer.feature_neurons_)
    if not 1 <= options.num_neurons <= n_features:
        raise ValueError(
            f"--num-neurons: expected 1 to {n_features}, the number of features that the language "
            f"model gives, got {options.num_neurons}"
        )
    featurizer.transform([""])  # is the device there? The model's loading is not timed, either
    return featurizer


def neuron_names(featurizer: MLSTMFeaturizer) -> np.ndarray:
    """Return the neuron that each feature is about, with its pooling where there are several."""
    neurons, poolings = featurizer.feature_neurons_, featurizer.pooling_
    if len(poolings) == 1:
        return neurons.astype(str)
    pooled_by = np.repeat(poolings, len(neurons) // len(poolings))
    return np.array([f"{n} ({p})" for n, p in zip(neurons, pooled_by, strict=True)])


# ---- files out


def experiment_folder(options: argparse.Namespace) -> Path:
    """Return the folder for the experiment's files."""
    data_set = options.train.resolve().parent.name if options.train else "sst2"
    model = Path(options.language_model).name.removesuffix(".safetensors")
    return options.experiment_dir / options.experiment_name / data_set / model


def save_neurons(
    featurizer: MLSTMFeaturizer,
    search: SentimentNeuronClassifier,
    few: SentimentNeuronClassifier,
    k: int,
    folder: Path,
) -> None:
    """Write both regressions, and which neurons they are about."""
    content: dict[str, Any] = {
        "classes": search.classes_.tolist(),
        "state": featurizer.state,
        "pooling": featurizer.pooling_,
    }
    for name, fitted, features in (
        ("all_neurons", search, np.arange(search.n_features_in_)),
        ("n_neurons", few, search.neuron_indices_[:k]),
    ):
        coef, intercept, _ = linear_terms(fitted.all_neurons_)
        content[name] = {
            "C": fitted.C,
            "features": features.tolist(),
            "neurons": featurizer.feature_neurons_[features].tolist(),
            "coefficients": coef.tolist(),
            "intercepts": intercept.tolist(),
        }
    content["top_features"] = search.neuron_indices_.tolist()
    write_text(folder / "sentiment" / "neurons.json", json.dumps(content))


def draw_neurons(values: np.ndarray, labels: np.ndarray, names: np.ndarray, folder: Path) -> None:
    """Draw how each neuron's values are distributed, class by class, and write them down."""
    folder = made(folder / "logit_vis")
    for drawn_before in folder.glob("*.png"):
        drawn_before.unlink()
    table = pd.DataFrame(values, columns=[f"neuron {name}" for name in names])
    table.insert(0, "label", labels)
    write_table(table, folder / "neuron_values.csv")
    for rank, name in enumerate(names):
        figure = Figure(layout="constrained")
        display = NeuronHistogramDisplay(values[:, rank], labels, name=f"neuron {name}")
        display.plot(ax=figure.subplots())
        figure.savefig(folder / f"{rank}_{name.split()[0]}.png")


def draw_weights(search: SentimentNeuronClassifier, names: np.ndarray, folder: Path) -> None:
    """Draw the weight of every feature, for each class."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    coef, *_ = linear_terms(search.all_neurons_)
    display = NeuronWeightsDisplay(coef, search.classes_, names=names)
    display.plot(n_labelled=N_PRINTED, ax=figure.subplots())
    figure.savefig(made(folder / "sentiment") / "weight_vis.png")


def results_table(
    table: pd.DataFrame,
    features: np.ndarray,
    model: Any,
    top: np.ndarray,
    names: np.ndarray,
    options: argparse.Namespace,
) -> pd.DataFrame:
    """Return label, probabilities, values of the top neurons and text, a row per text."""
    k = options.num_neurons
    columns = {}
    if options.label_key in table:
        columns[options.label_key] = table[options.label_key]
    models = {"prob w/ all": model, f"prob w/ {k} masked": mask(model, top[:k])}
    if k < N_PRINTED:
        models[f"prob w/ {N_PRINTED} masked"] = mask(model, top[:N_PRINTED])
    for title, each in models.items():
        probabilities = each.predict_proba(features)
        if len(model.classes_) == 2:
            columns[title] = probabilities[:, 1]
        else:
            for label, column in zip(model.classes_, probabilities.T, strict=True):
                columns[f"{title} {label}"] = column
    columns |= {f"neuron {names[i]}": features[:, i] for i in top[: max(N_PRINTED, k)]}
    columns[options.text_key] = table[options.text_key]
    return pd.DataFrame(columns)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write csv or json, by the extension."""
    if path.suffix.lower() == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", force_ascii=False)


def write_text(path: Path, text: str) -> None:
    """Write a text and the end of its line."""
    made(path.parent)
    path.write_text(text + "\n", encoding="utf-8")


def made(folder: Path) -> Path:
    """Return the folder, after making it."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ---- the command line


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the description's lines, and show each default that is not None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]",
        description=__doc__,
        epilog=FLAGS_OF_SENTIMENT_DISCOVERY,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    kinds = "csv, tsv, json, jsonl, or one of these compressed with gz, bz2 or xz"
    add("--train", type=Path, help=f"training set: {kinds}. Default: SST-2, as for the next two")
    instead = "Without, the training set stands for it"
    add("--valid", type=Path, help=f"validation set, likewise. {instead}")
    instead = "Without, or without its labels, the validation set stands for it"
    add("--test", type=Path, help=f"test set, likewise. {instead}")
    add("--split", help="shares of --train for training, validation and test; files replace theirs")
    add("--text-key", default="sentence", help="column of the texts")
    add("--label-key", default="label", help="column of the labels, of two classes or more")
    add("--drop-unlabeled", action="store_true", help="leave out rows that have no label")
    halves = "1 for labels above the middle of their range in the training set, else 0"
    add("--binarize-labels", action="store_true", help=halves)
    add("--delimiter", default=",", help="between the columns of csv files")
    add("--encoding", default="utf-8", help="of the files")
    ways = ("strict", "ignore", "replace")
    add("--decode-error", choices=ways, default="strict", help="of bytes that are not in it")
    add("--language-model", default="default", help="name of a shipped model, or a file")
    poolings = ("auto", *POOLINGS)
    add("--pooling", nargs="+", choices=poolings, default=["auto"], help="of states over the bytes")
    add("--state", choices=("cell", "hidden"), default="cell", help="which state of the model")
    add("--num-neurons", type=int, default=1, help="how many neurons are the few")
    add("--no-test-eval", action="store_true", help="the test set has no labels")
    add("--write-results", type=Path, metavar="PATH", help="csv or json, a row per test text")
    add("--experiment-dir", type=Path, default=Path("experiments"), help="folder of all results")
    add("--experiment-name", default="transfer", help="folder in that folder")
    add("--cache", type=Path, metavar="DIR", help="folder that keeps features for the next run")
    baselines = argparse.BooleanOptionalAction
    add("--baselines", action=baselines, default=True, help="compare with majority and tf-idf")
    add("--device", default="auto", help="a torch device")
    add("--precision", choices=PRECISIONS, default="auto", help="of the model; int8 on a CPU only")
    add("--seed", type=int, default=0, help="of --split, and of the order of the solver's steps")
    return parser


if __name__ == "__main__":
    main()
