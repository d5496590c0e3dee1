"""Labelled texts from files, for sentiment_transfer.py: a table for each of train, valid, test."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from pretrain import PARTS, split_shares
from regressions import Parts
from sklearn.utils.multiclass import type_of_target

from skdiscovery.datasets import fetch_sst2
from skdiscovery.text.labels import Label, as_numbers, is_missing
from skdiscovery.text.readers import Reader
from skdiscovery.text.splitting import part_sizes


def read_tables(options: argparse.Namespace) -> Parts:
    """Return the table of each part that there is, with a text in each row."""
    text_key, label_key = options.text_key, options.label_key
    tables = {}
    for part, subset in zip(PARTS, ("train", "validation", "test"), strict=True):
        path = getattr(options, part)
        if path is not None:
            table = read_table(path, part, options)
        elif options.train is None:
            table = fetch_sst2(subset=subset, as_frame=True).frame.rename(
                columns={"text": text_key, "label": label_key}
            )
        else:
            continue
        if options.drop_unlabeled and is_scored(part, options):
            table = table.dropna(subset=[label_key]).reset_index(drop=True)
            table[label_key] = table[label_key].convert_dtypes()  # 1 again, not 1.0 as beside NaN
            if table.empty:
                raise ValueError(f"--{part}: no row has a label")
        tables[part] = table
    return split_training_set(tables, options) if options.split else tables


def split_training_set(tables: Parts, options: argparse.Namespace) -> Parts:
    """Return the tables and, in place of those that there are not, parts of the training set."""
    shares = split_shares(options.split, [part == "train" or part not in tables for part in PARTS])
    table = tables["train"]
    sizes = part_sizes(len(table), np.array(shares))
    order = np.random.default_rng(options.seed).permutation(len(table))
    drawn = {
        part: table.iloc[np.sort(rows)].reset_index(drop=True)
        for part, rows in zip(PARTS, np.split(order, np.cumsum(sizes)[:-1]), strict=True)
        if len(rows)
    }
    return tables | drawn


def read_table(path: Path, part: str, options: argparse.Namespace) -> pd.DataFrame:
    """Read the texts of a file and, if the part is scored, their labels."""
    is_labelled = is_scored(part, options)
    try:
        reader = Reader(
            text_key=options.text_key,
            label_key=options.label_key if is_labelled else None,
            delimiter=options.delimiter,
            encoding=options.encoding,
            decode_error=options.decode_error,
        )
        texts, labels = zip(*reader.read([path]), strict=True)
    except ValueError as error:
        hint = " A test set without labels? See --no-test-eval." if part == "test" else ""
        raise ValueError(f"--{part}: {error}{hint}") from error
    table = pd.DataFrame({options.text_key: texts})
    return table.assign(**{options.label_key: read_labels(labels)}) if is_labelled else table


def read_labels(labels: Iterable[Label]) -> pd.Series:
    """Return labels as numbers if all read as such; NaN where one is missing."""
    column = pd.Series(labels, dtype=object)
    is_known = ~column.map(is_missing)
    known = column[is_known].tolist()
    numbers = as_numbers(known)
    values = pd.Series(known if numbers is None else numbers, index=column.index[is_known])
    return values.reindex(column.index)


def labels_of(tables: Parts, options: argparse.Namespace) -> Parts:
    """Return the labels of each part that is scored, as arrays of numbers or of strings."""
    key = options.label_key
    y: Parts = {}
    for part, table in tables.items():
        if not is_scored(part, options):
            continue
        if n_missing := int(table[key].isna().sum()):
            counts = f"{n_missing} of {len(table)} rows have no {key!r}"
            hint = " Or --no-test-eval?" if part == "test" else ""
            raise ValueError(f"--{part}: {counts}: --drop-unlabeled?{hint}")
        y[part] = np.asarray(table[key].tolist())
    if len(np.unique(y["train"])) < 2:
        raise ValueError(f"--train: two labels are needed, and every one is {y['train'][0]}")
    if options.binarize_labels:
        y = binarized(y)
    for part, labels in y.items():
        if type_of_target(labels) == "continuous":
            raise ValueError(
                f"--{part}: expected classes, got fractions such as {labels[labels % 1 != 0][0]}: "
                "--binarize-labels?"
            )
    for part in y:
        if set(y[part].tolist()).isdisjoint(y["train"].tolist()):
            raise ValueError(
                f"--{part}: labels {np.unique(y[part])}, but those of --train are "
                f"{np.unique(y['train'])}"
            )
    return y


def binarized(y: Parts) -> Parts:
    """Return 1 for labels above the middle of the range of the training set's, else 0."""
    for part, labels in y.items():
        if labels.dtype.kind not in "iuf":
            got = labels.tolist()[0]
            raise ValueError(f"--{part}: --binarize-labels needs numbers, got {got!r}")
    middle = (y["train"].min() + y["train"].max()) / 2
    return {part: (labels > middle).astype(int) for part, labels in y.items()}


def is_scored(part: str, options: argparse.Namespace) -> bool:
    """Return whether a part has labels."""
    return not (part == "test" and options.no_test_eval)
