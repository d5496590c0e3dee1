"""A page in which to look at many neurons over many texts, in one file, for any browser."""

import base64
import hashlib
import json
import unicodedata
from importlib.resources import files
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval, validate_params

from skdiscovery.plotting.cells import Cell, character_ends
from skdiscovery.plotting.colours import CLASS_COLOURS, cell_colours, ink_colours
from skdiscovery.plotting.html import hex_colours
from skdiscovery.plotting.neuron_features import featurizer_and_classifier, language_model_of
from skdiscovery.plotting.neuron_values import layer_name
from skdiscovery.text import TextCorpus

# A value takes one character of the page: of printable ASCII, what JSON writes as it is.
LEVELS = "".join(map(chr, sorted(set(range(ord("#"), ord("~") + 1)) - set(b"<\\"))))

N_SHADES = 101


@validate_params(
    {
        "X": ["array-like"],
        "y": ["array-like", None],
        "n_neurons": [Interval(Integral, 1, None, closed="left")],
        "max_characters": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=False,
)
def neuron_browser_html(
    estimator: Any, X: Any, y: Any = None, *, n_neurons: int = 100, max_characters: int = 200
) -> str:
    """Write a page in which to look at the neurons that matter, and at the texts they react to.

    Neurons are ranked: those that the classifier of a pipeline decides by come first, then those
    that tell the classes of these texts apart best. For the chosen one, the page shows its values
    by class, the texts where it is highest and lowest, and any text coloured by it. It is a file
    of its own that loads nothing; 200 texts and 100 neurons take less than 5 MB.

    Parameters
    ----------
    estimator : estimator instance
        A fitted featurizer, a fitted `~sklearn.pipeline.Pipeline` with one, or a fitted search over
        one of these.
    X : array-like of str or bytes, of shape (n_texts,)
        The texts, one or more.
    y : array-like of shape (n_texts,), default=None
        The class of each text.
    n_neurons : int, default=100
        How many neurons to show at most, the first of the ranking.
    max_characters : int, default=200
        How much of a text is shown. A neuron's value for the text is that of the whole text.

    Returns
    -------
    str
        The page. It grows by a byte per character shown and neuron.

    Raises
    ------
    TypeError
        If ``estimator`` is none of the above.
    ValueError
        If there is no text, the lengths of ``X`` and ``y`` differ, or a parameter is out of range.
    sklearn.exceptions.NotFittedError
        If ``estimator`` is not fitted.

    Examples
    --------
    >>> from skdiscovery import MLSTMFeaturizer
    >>> from skdiscovery.plotting import neuron_browser_html
    >>> X, y = ["A lovely film.", "A dull film.", "I loved it."], ["good", "bad", "good"]
    >>> page = neuron_browser_html(MLSTMFeaturizer().fit(), X, y, n_neurons=20)
    >>> len(page) < 50_000
    True
    """
    texts = list(column_or_1d(X, dtype=object))
    if not texts:
        raise ValueError(
            "X must have a text at least, for there to be something to show. Got none."
        )
    labels = np.full(len(texts), "text") if y is None else column_or_1d(y)
    check_consistent_length(texts, labels)
    texts, featurizer, classifier = featurizer_and_classifier(estimator, texts)
    classes, codes = np.unique(labels, return_inverse=True)
    features = np.asarray(featurizer.transform(texts))
    scores = features.std(axis=0) if y is None else class_correlations(features, codes)
    kind = "standard deviation" if y is None else "correlation"
    columns = _ranked_columns(featurizer.feature_neurons_, classifier, np.abs(scores))[:n_neurons]
    shown, ranges, traces = _shown_values(featurizer, texts, columns, max_characters)
    names = featurizer.get_feature_names_out()
    return _page(
        {
            "summary": _summary(featurizer, len(texts), len(columns)),
            "pooling": " and ".join(featurizer.pooling_),
            "score": f"{kind} ratio" if len(classes) > 2 else kind,
            "classes": [str(label) for label in classes],
            "class_colours": CLASS_COLOURS,
            "levels": LEVELS,
            **_palette(),
            "texts": [
                {**text, "label": int(code)} for text, code in zip(shown, codes, strict=True)
            ],
            "neurons": [
                {
                    "name": names[column],
                    "score": float(scores[column]),
                    "values": [float(f"{value:.4g}") for value in features[:, column]],
                    "threshold": _threshold(classifier, column),
                    "lowest": float(lowest),
                    "step": float(step),
                    "traces": of_texts,
                }
                for column, (lowest, step), of_texts in zip(columns, ranges, traces, strict=True)
            ],
        }
    )


def class_correlations(features: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return how well each feature tells the classes apart, of shape (n_features,).

    It is the correlation ratio: the root of the share of the variance that lies between the
    classes. Of two classes it has the sign of the difference, and is Pearson's correlation.
    """
    centred = features - features.mean(axis=0, dtype=np.float64)
    sizes = np.bincount(codes)
    means = np.array([centred[codes == code].mean(axis=0) for code in range(len(sizes))])
    total = (centred**2).sum(axis=0)
    between = (sizes[:, None] * means**2).sum(axis=0)
    ratio = np.sqrt(between / np.where(total > 0, total, 1))
    return np.sign(means[1]) * ratio if len(sizes) == 2 else ratio


def _ranked_columns(neurons: np.ndarray, classifier: Any, scores: np.ndarray) -> np.ndarray:
    """Return the columns in the order of the list, and only the first one of each neuron."""
    order = np.argsort(-scores, kind="stable")
    if classifier is not None:
        chosen = classifier.neuron_indices_
        order = np.concatenate([chosen[classifier.coef_[:, chosen].any(axis=0)], order])
    _, first = np.unique(neurons[order], return_index=True)
    return order[np.sort(first)]


def _threshold(classifier: Any, column: int) -> float | None:
    """Return where the classifier's decision flips, if it decides by this column alone."""
    if classifier is None or column != classifier.neuron_indices_[0]:
        return None
    return classifier.threshold_


def _shown_values(
    featurizer: Any, texts: list, columns: np.ndarray, max_characters: int
) -> tuple[list[dict], np.ndarray, list[list[str]]]:
    """Return the beginning of each text, and the neurons' values over it.

    The values are a character of ``LEVELS`` for each of the text, a list of texts per neuron. The
    ranges, of shape (n_neurons, 2), are the value of the first level and the step to the next.
    """
    language_model = language_model_of(featurizer)
    shown, beginnings, ends_of_characters = [], [], []
    for document in language_model.preprocess(texts):
        # A character has four bytes at most; one more tells whether the text goes on.
        characters, last_bytes = character_ends(document[: 4 * (max_characters + 1)])
        shown.append(
            {
                "characters": "".join(map(_one_character, characters[:max_characters])),
                "is_cut": len(characters) > max_characters,
                "n_bytes": len(document),
            }
        )
        ends_of_characters.append(last_bytes[:max_characters])
        beginnings.append(document[: last_bytes[:max_characters].max(initial=-1) + 1])
    activations = language_model.activations(
        TextCorpus.from_documents(beginnings, preprocessor=None),
        neurons=featurizer.feature_neurons_[columns],
        state=featurizer.state,
        layer=featurizer.layer,
    )
    values = [of_text[ends] for of_text, ends in zip(activations, ends_of_characters, strict=True)]
    flat = np.concatenate(values)
    in_range = flat if len(flat) else np.zeros((1, len(columns)))
    lowest = in_range.min(axis=0)
    steps = (in_range.max(axis=0) - lowest) / (len(LEVELS) - 1)
    levels = np.rint((flat - lowest) / np.where(steps > 0, steps, 1)).astype(int)
    written = np.frombuffer(LEVELS.encode(), dtype=np.uint8)[levels.T]
    ends = np.cumsum([len(of_text) for of_text in values])[:-1]
    traces = [[part.tobytes().decode() for part in np.split(row, ends)] for row in written]
    return shown, np.column_stack([lowest, steps]), traces


def _one_character(character: str) -> str:
    """Return what stands for the character where marks sit on the letter before them."""
    return character if unicodedata.combining(character) else Cell(character, 0.0).symbol


def _palette() -> dict[str, list[str]]:
    """Return the colours from one end of the scale to the other, and the ink for each."""
    rgb = cell_colours(np.linspace(0, 1, N_SHADES), 0, 1)
    return {"colours": hex_colours(rgb), "inks": ink_colours(rgb)}


def _summary(featurizer: Any, n_texts: int, n_neurons: int) -> str:
    config = featurizer.language_model_.config_
    where = layer_name(featurizer.layer, config["n_layers"])
    return (
        f"{n_texts} texts, and {n_neurons} of {config['hidden_size']} neurons: {featurizer.state} "
        f"state of {where}, {' and '.join(featurizer.pooling_)} over the bytes of a text."
    )


def _page(data: dict) -> str:
    """Put the data into the page, which may run its own script and nothing else."""
    folder = files("skdiscovery.plotting")
    page, style, script = (
        (folder / f"neuron_browser.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    for name, value in (
        ("style_source", _source(style)),
        ("script_source", _source(script)),
        ("style", style),
        ("script", script),
        ("data", content),  # last: a text may look like a name
    ):
        page = page.replace("{{" + name + "}}", value)
    return page


def _source(code: str) -> str:
    """Return how a Content Security Policy allows this code and no other."""
    digest = hashlib.sha256(code.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
