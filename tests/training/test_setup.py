import functools

import numpy as np
import pytest

from skdiscovery import ByteMLSTMLanguageModel, TextCorpus
from skdiscovery.training.setup import hold_out

TEXTS = [f"Film {k}: {'what a delight' if k % 2 else 'a waste of time'}!" for k in range(30)]


def small(folder=None, **params):
    settings = {
        "hidden_size": 12,
        "embedding_size": 8,
        "batch_size": 4,
        "seq_length": 16,
        "schedule": "constant",
        "checkpoint_dir": folder,
        "resume": folder is not None,
        "random_state": 0,
    }
    return ByteMLSTMLanguageModel(**settings | params)


def encode(text, errors):
    return text.encode(errors=errors)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("random_state", lambda: np.random.RandomState(3)),
        ("preprocessor", lambda: lambda text: text.upper().encode()),
        ("preprocessor", lambda: functools.partial(encode, errors="replace")),
        ("hidden_size", lambda: np.int64(12)),
        ("dropout", lambda: np.float32(0.5)),
    ],
)
def test_parameters_that_are_objects_are_those_of_another_process(name, make, tmp_path):
    killed, again, unbroken = (make() for _ in range(3))  # as if each process had made its own
    small(tmp_path, max_steps=5, **{name: killed}).fit(TEXTS)
    resumed = small(tmp_path, **{name: again}).fit(TEXTS)
    whole = small(**{name: unbroken}).fit(TEXTS)
    assert resumed.n_steps_ == whole.n_steps_ > 5
    for weight, array in whole.weights_.items():
        np.testing.assert_array_equal(resumed.weights_[weight], array)


def test_numbers_of_numpy_are_pythons(tmp_path):
    small(tmp_path, hidden_size=np.int64(12), max_steps=2).fit(TEXTS)
    assert small(tmp_path, max_steps=4).fit(TEXTS).n_steps_ == 4


def test_a_run_goes_on_where_and_how_it_can(tmp_path):
    small(tmp_path / "first", max_steps=2, backend="torch", device="cpu").fit(TEXTS)
    moved = (tmp_path / "first").rename(tmp_path / "then")
    resumed = small(moved, max_steps=4, backend="auto", device="auto", verbose=1).fit(TEXTS)
    assert resumed.n_steps_ == 4


def test_another_function_is_another_run(tmp_path):
    small(tmp_path, max_steps=2, preprocessor=functools.partial(encode, errors="strict")).fit(TEXTS)
    with pytest.raises(ValueError, match="preprocessor was 'partial' and is 'review'"):
        small(tmp_path).fit(TEXTS)


def test_a_fraction_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match=r"validation_fraction=0.99 holds out 30 of 30 document"):
        small(validation_fraction=0.99).fit(TEXTS)


def test_the_seed_decides_what_is_held_out():
    corpus = TextCorpus.from_documents(TEXTS)
    first, again, other = (hold_out(corpus, 0.2, seed)[1] for seed in (0, 0, 1))
    assert first == again != other


def test_what_is_left_to_train_on_keeps_its_order():
    corpus = TextCorpus.from_documents(TEXTS, preprocessor=None)
    training, held_out = hold_out(corpus, 0.2, 0)
    assert len(held_out) == 6
    assert list(training) == [text for text in corpus if text not in held_out]
