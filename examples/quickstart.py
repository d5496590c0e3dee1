"""The main job in two minutes, offline: pretrain, featurise, find the neuron, draw it, write text.

    python examples/quickstart.py

pretrains a tiny language model for a few seconds to show how that goes, and does everything else
with the model and the 400 reviews that ship with skdiscovery. Pictures go to runs/quickstart/.
"""

import time
import warnings
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # pictures go to files: no display is needed

from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from skdiscovery import (
    ByteMLSTMLanguageModel,
    LearningCurveDisplay,
    MLSTMFeaturizer,
    SentimentNeuronClassifier,
    plot_heatmap,
)
from skdiscovery.datasets import load_reviews

FOLDER = Path("runs/quickstart")
TEXT = (
    "It is a beautiful and touching story with excellent performances. But the sequel is terrible: "
    "boring, stupid and a complete waste of time."
)
SENTIMENT_NEURON = 423  # of the model that ships, as its card says: high for praise


def main() -> None:
    """Run all five parts."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    texts, labels = load_reviews(return_X_y=True)

    print("1. Pretraining: a tiny model, a few seconds, no labels")
    pretrain(texts)

    print("\n2. The model that ships, as features for scikit-learn")
    train_texts, test_texts, train_labels, test_labels = train_test_split(
        texts, labels, test_size=0.25, random_state=0, stratify=labels
    )
    chance = DummyClassifier().fit(train_texts, train_labels)
    searches = {n: fit(train_texts, train_labels, n_neurons=n) for n in (None, 1)}
    print(f"   accuracy on {len(test_texts)} held-out reviews")
    print(f"   majority class:           {chance.score(test_texts, test_labels):.2f}")
    print(f"   all neurons that L1 kept: {searches[None].score(test_texts, test_labels):.2f}")
    print(f"   one neuron:               {searches[1].score(test_texts, test_labels):.2f}")
    print(
        "   (Few and subtle reviews to learn from: the README has the figures on SST-2 and IMDB.)"
    )
    pipeline = searches[1].best_estimator_

    print("\n3. The sentiment neuron")
    describe_neuron(pipeline)
    print(f"   SST-2's thousands of labels say {SENTIMENT_NEURON}, which parts 4 and 5 are about.")

    print("\n4. What it thinks of a text, letter by letter")
    path = FOLDER / "heatmap.png"
    plot_heatmap(pipeline, TEXT, neuron=SENTIMENT_NEURON).figure_.savefig(path, dpi=150)
    print(f"   {path}")

    print("\n5. Text written with the neuron held")
    model = pipeline["featurizer"].language_model_
    for value in (2, -2):  # a state is within -1 and 1 by itself: these push
        written = model.generate(
            "The acting was",
            n_bytes=100,
            n_samples=3,
            temperature=0.6,
            overwrite={SENTIMENT_NEURON: value},
            random_state=0,
        )
        for text in written:
            print(f"   at {value:+d}: {' '.join(text.split())}")
    print(f"\nDone in {time.perf_counter() - start:.0f} seconds.")


def pretrain(texts: list[str]) -> None:
    """Train a tiny model and draw its learning curve."""
    model = ByteMLSTMLanguageModel(
        hidden_size=64,
        batch_size=16,
        seq_length=64,
        max_epochs=10,
        learning_rate=5e-3,
        validation_fraction=0.1,
        random_state=0,
        verbose=1,
    ).fit(texts)
    curve, held_out = model.history_, model.validation_history_
    print(
        f"   bits per byte: {curve.bits_per_byte.iloc[0]:.2f} at the start, "
        f"{curve.bits_per_byte.iloc[-1]:.2f} at the end, "
        f"{held_out.bits_per_byte.iloc[-1]:.2f} on held-out reviews"
    )
    path = FOLDER / "learning_curve.png"
    LearningCurveDisplay.from_estimator(model).figure_.savefig(path, dpi=150)
    print(f"   {path}")


def fit(texts: list[str], labels: list[int], n_neurons: int | None) -> GridSearchCV:
    """Search the penalty; each review is featurised once in all, thanks to ``memory``."""
    pipeline = Pipeline(
        [
            # Weights in eight bits: on most CPUs two to four times as fast, and as good.
            (
                "featurizer",
                MLSTMFeaturizer(memory=FOLDER / "cache", device="cpu", precision="int8"),
            ),
            ("classifier", SentimentNeuronClassifier(n_neurons=n_neurons)),
        ]
    )
    grid = {"classifier__C": [0.0625, 0.125, 0.25, 0.5, 1.0]}
    with warnings.catch_warnings():
        # The smallest C may leave nothing to decide by, which is what a search is for.
        warnings.filterwarnings("ignore", message="This classifier is right in")
        return GridSearchCV(pipeline, grid, cv=3).fit(texts, labels)


def describe_neuron(pipeline: Pipeline) -> None:
    """Print what the classifier found."""
    featurizer, classifier = pipeline["featurizer"], pipeline["classifier"]
    print(f"   {classifier.n_features_used_} of {classifier.n_features_in_} features kept by L1")
    if classifier.threshold_ is None:
        print("   so these reviews are too few to find it by.")
        return
    name = featurizer.get_feature_names_out()[classifier.neuron_indices_[0]]
    direction = "above" if classifier.neuron_sign_ > 0 else "below"
    print(f"   the first is {name}: positive {direction} {classifier.threshold_:.2f}")


if __name__ == "__main__":
    main()
