import copy
import math
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.utils.estimator_checks as checks
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch.utils._python_dispatch import TorchDispatchMode

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, TextCorpus, language_model
from skdiscovery.nn.model import Architecture
from skdiscovery.nn.weights import weight_shapes
from skdiscovery.ops import extension
from skdiscovery.ops.runtime import BACKEND_VARIABLE
from skdiscovery.training.loop import _Run

TEXTS = ["What a lovely film!", "What a dull film.", "I loved it.", "Dull, dull, dull."] * 10
UNSEEN = ["A lovely, lovely film.", "", "It was dull", "é <br /> x"]


def small(**params):
    """Return an unfitted model that trains in a moment."""
    defaults = {
        "hidden_size": 16,
        "embedding_size": 8,
        "batch_size": 8,
        "seq_length": 24,
        "max_epochs": 8,
        "learning_rate": 0.03,
        "device": "cpu",
        "random_state": 0,
    }
    return ByteMLSTMLanguageModel(**defaults | params)


@pytest.fixture(scope="module")
def lm():
    """One layer of mLSTM; not to be changed."""
    return small().fit(TEXTS)


@pytest.fixture(scope="module", params=[("mlstm", 1), ("mlstm", 2), ("lstm", 2)], ids=str)
def any_lm(request):
    """A fitted model of each kind; not to be changed."""
    cell, n_layers = request.param
    return small(cell=cell, n_layers=n_layers, max_epochs=2).fit(TEXTS)


def assert_same_weights(model, other):
    assert model.weights_.keys() == other.weights_.keys()
    for name, array in model.weights_.items():
        np.testing.assert_array_equal(array, other.weights_[name])


def interrupt_at(monkeypatch, step):
    """Press Ctrl-C at the beginning of a step."""
    make_step, calls = _Run._step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return make_step(*arguments)

    monkeypatch.setattr(_Run, "_step", interrupted)


# Training


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"cell": "lstm"},
        {"n_layers": 2, "dropout": 0.2},
        {"weight_norm": False},
        {"cell": "lstm", "n_layers": 2, "weight_norm": False},
        {"precision": "float64"},
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "cell": "lstm", "n_layers": 2},
        {"persist_state": "document"},
        {"persist_state": "always"},
        {"optimizer": "rmsprop", "schedule": "exponential", "lr_decay": 0.9},
        {"schedule": "constant", "grad_clip": None},
        {"preprocessor": None, "batch_size": 1, "max_epochs": 2},
    ],
    ids=str,
)
def test_training_lowers_the_bits_per_byte(params):
    model = small(**params).fit(TEXTS)

    bits = model.history_["bits_per_byte"]
    assert bits.iloc[-1] < bits.iloc[0] - 0.5
    assert -model.score(TEXTS) < 6
    shapes = weight_shapes(Architecture(16, 8, model.n_layers, model.cell))
    assert {name: array.shape for name, array in model.weights_.items()} == shapes
    assert {array.dtype for array in model.weights_.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(array).all() for array in model.weights_.values())


@pytest.mark.parametrize(
    "X",
    [
        (text for text in TEXTS),
        [text.encode() for text in TEXTS],
        pd.Series(TEXTS, index=range(40, 0, -1)),
        pd.DataFrame({"text": TEXTS}),
        TextCorpus.from_documents(TEXTS),
    ],
    ids=lambda X: type(X).__name__,
)
def test_documents_of_any_kind_give_bitwise_the_same_weights(lm, X):
    assert_same_weights(small().fit(X), lm)


@pytest.mark.parametrize(
    "params",
    [
        {"n_layers": 2, "dropout": 0.3, "validation_fraction": 0.2},
        {"precision": "bfloat16", "random_state": np.random.RandomState(5)},
    ],
)
def test_a_seed_fixes_the_weights(params):
    params = params | {"max_epochs": 1}
    one, same = (small(**copy.deepcopy(params)).fit(TEXTS) for _ in range(2))
    assert_same_weights(one, same)
    assert not np.array_equal(
        one.weights_["head.weight"],
        small(**params | {"random_state": 8}).fit(TEXTS).weights_["head.weight"],
    )


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_global_generators_are_left_alone(method):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = getattr(small(dropout=0.5, validation_fraction=0.2, max_epochs=1), method)(TEXTS)
    model.score(TEXTS)
    model.generate(n_bytes=3, random_state=0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_persist_state_decides_how_long_the_state_lasts():
    losses = {
        how: small(persist_state=how, max_steps=12).fit(TEXTS).history_["loss"].iloc[-1]
        for how in ("document", "shard", "always")
    }
    assert len(set(losses.values())) == 3, losses


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_torch_is_set_to_for_something_else_changes_nothing(surroundings, precision, tmp_path):
    def work():
        params = {"max_steps": 6, "dropout": 0.1, "validation_fraction": 0.2}
        model = small(precision=precision, **params).fit(TEXTS)
        model.partial_fit(TEXTS)
        model.save_pretrained(tmp_path / "model.safetensors", dtype="int8")
        saved = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "model.safetensors")
        return model, (
            model.score(UNSEEN),
            model.activations(UNSEEN[:1])[0].tolist(),
            model.generate("A", n_bytes=9, overwrite={3: 1.0}, random_state=0),
            saved.set_params(precision="float32", device="cpu").score_samples(UNSEEN).tolist(),
        )

    expected, said = work()
    with surroundings():
        model, said_there = work()
    assert_same_weights(model, expected)
    assert said_there == said


def test_measuring_the_loss_does_not_change_the_training(lm):
    model = small(checkpoint_every=7).fit(TEXTS, X_val=UNSEEN)
    assert_same_weights(model, lm)


def test_the_history_agrees_with_itself_and_with_the_model(lm):
    history = lm.history_
    assert list(history) == [
        *("step", "epoch", "bytes", "loss", "bits_per_byte"),
        *("learning_rate", "grad_norm", "bytes_per_second"),
    ]
    np.testing.assert_allclose(history["bits_per_byte"], history["loss"] / math.log(2))
    assert history["step"].is_monotonic_increasing
    assert history["step"].iloc[-1] == lm.n_steps_ == lm.config_["n_steps"]
    assert history["bytes"].iloc[-1] == lm.n_bytes_seen_ == lm.config_["n_bytes_seen"]
    assert list(history["step"][:2]) == [10, 20]
    assert history["epoch"].iloc[-1] == 8
    n_bytes = sum(map(len, lm.preprocess(TEXTS)))
    assert lm.n_bytes_seen_ == 8 * n_bytes
    assert lm.validation_history_.empty


def test_a_given_validation_set_is_measured_when_due_and_at_the_end():
    model = small(max_steps=8, checkpoint_every=3).fit(TEXTS, X_val=UNSEEN)

    history = model.validation_history_
    assert list(history) == ["step", "epoch", "bytes", "loss", "bits_per_byte"]
    assert list(history["step"]) == [3, 6, 8]
    np.testing.assert_allclose(history["bits_per_byte"], history["loss"] / math.log(2))
    assert history["bits_per_byte"].iloc[-1] == pytest.approx(-model.score(UNSEEN), rel=1e-5)


def test_a_model_knows_its_loss_on_validation(tmp_path, lm):
    assert "bits_per_byte" not in lm.config_
    model = small(max_steps=4).fit(TEXTS, X_val=UNSEEN)
    model.save_pretrained(tmp_path / "model.safetensors")
    config = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "model.safetensors").config_
    assert config["bits_per_byte"] == pytest.approx(-model.score(UNSEEN), rel=1e-5)


def test_a_loss_on_validation_is_that_of_the_last_training():
    model = small(max_steps=4, warm_start=True).fit(TEXTS, X_val=UNSEEN)
    assert "bits_per_byte" in model.config_
    assert "bits_per_byte" not in model.partial_fit(TEXTS).config_
    assert "bits_per_byte" not in model.fit(TEXTS).config_
    bits = model.fit(TEXTS, X_val=UNSEEN).config_["bits_per_byte"]
    assert bits == pytest.approx(-model.score(UNSEEN), rel=1e-5)


def test_a_share_of_the_documents_is_held_out():
    texts = [f"text {i:02}" for i in range(40)]
    model = small(validation_fraction=0.25, batch_size=2, max_epochs=1, preprocessor=None)
    model.fit(texts)

    assert list(model.validation_history_["step"]) == [model.n_steps_]
    assert model.n_bytes_seen_ == 30 * len(texts[0])


@pytest.mark.parametrize("X_val", [[], [""]])
def test_a_validation_set_without_anything_to_predict_is_refused_before_the_training(X_val):
    model = small(preprocessor=None)
    with pytest.raises(ValueError, match="no document has a byte after its first"):
        model.fit(TEXTS, X_val=X_val)
    assert not hasattr(model, "weights_")


@pytest.mark.parametrize(
    ("params", "n_steps"), [({"max_steps": 5}, 5), ({"max_epochs": 1, "max_steps": 10_000}, 4)]
)
def test_steps_or_epochs_end_the_training(params, n_steps):
    assert small(**params).fit(TEXTS).n_steps_ == n_steps


@pytest.mark.parametrize("step", [1, 4, 13])
def test_an_interrupt_leaves_a_usable_model(monkeypatch, step):
    interrupt_at(monkeypatch, step)
    model = small(schedule="constant").fit(TEXTS)
    monkeypatch.undo()

    assert model.n_steps_ == step - 1
    assert len(model.history_) == (step - 1) // 10
    assert math.isfinite(model.score(TEXTS))
    if step > 1:
        assert_same_weights(model, small(schedule="constant", max_steps=step - 1).fit(TEXTS))


def test_a_lost_training_keeps_the_last_good_weights():
    model = small(learning_rate=1e300)
    with pytest.raises(ValueError, match=r"loss became (nan|inf) at step \d+.*learning_rate"):
        model.fit(TEXTS)

    assert model.n_steps_ == 0
    assert all(np.isfinite(array).all() for array in model.weights_.values())
    assert math.isfinite(model.score(TEXTS))
    assert len(model.generate("What", n_bytes=5)[0]) >= 4


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_that_the_last_update_spoiled_are_an_error(optimizer):
    model = small(learning_rate=1e300, optimizer=optimizer, max_steps=1)
    with pytest.raises(ValueError, match="learning_rate"):
        model.fit(TEXTS)
    assert all(np.isfinite(array).all() for array in model.weights_.values())


# Going on


def test_warm_start_goes_on_from_the_weights():
    model = small(warm_start=True, max_epochs=2).fit(TEXTS)
    n_steps, n_bytes, n_rows = model.n_steps_, model.n_bytes_seen_, len(model.history_)
    bits = -model.score(TEXTS)

    model.fit(TEXTS)

    assert model.n_steps_ == 2 * n_steps
    assert model.n_bytes_seen_ == 2 * n_bytes
    assert len(model.history_) == 2 * n_rows
    assert model.history_["step"].iloc[-1] == model.n_steps_
    assert model.history_["bytes"].is_monotonic_increasing
    assert -model.score(TEXTS) < bits


def test_without_warm_start_fit_starts_anew(lm):
    model = small(max_epochs=1).fit(TEXTS[:20])
    assert_same_weights(model.set_params(max_epochs=8).fit(TEXTS), lm)
    assert model.n_steps_ == lm.n_steps_


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 8}, {"embedding_size": 4}, {"n_layers": 2}, {"cell": "lstm"}],
    ids=str,
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_does_not_go_on_with_another_architecture(method, change):
    model = small(warm_start=True, max_epochs=1)
    getattr(model, method)(TEXTS)
    weights, config = model.weights_, model.config_
    with pytest.raises(ValueError, match="cannot go on"):
        getattr(model.set_params(**change), method)(TEXTS)
    assert joblib.hash(model.weights_) == joblib.hash(weights)
    assert model.config_ == config


def test_training_goes_on_from_a_file(lm, tmp_path):
    lm.save_pretrained(tmp_path / "model")
    model = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "model", device="cpu")
    model.set_params(warm_start=True, batch_size=8, seq_length=24, random_state=1).fit(TEXTS)
    assert model.n_steps_ > lm.n_steps_
    assert model.n_bytes_seen_ > lm.n_bytes_seen_
    assert model.score(TEXTS) > lm.score(TEXTS)


def test_a_training_that_cannot_start_leaves_the_model_as_it_was(monkeypatch):
    @contextmanager
    def no_rank_starts(*_):
        raise RuntimeError("Rank 1 failed")
        yield

    monkeypatch.setattr(language_model, "complete", no_rank_starts)
    model = small()
    with pytest.raises(RuntimeError, match="Rank 1 failed"):
        model.fit(TEXTS)
    assert not hasattr(model, "weights_")

    monkeypatch.undo()
    before = model.fit(TEXTS).weights_
    monkeypatch.setattr(language_model, "complete", no_rank_starts)
    with pytest.raises(RuntimeError, match="Rank 1 failed"):
        model.fit(TEXTS)
    assert model.weights_ is before


def test_a_training_whose_ranks_do_not_end_well_is_kept(lm, monkeypatch):
    @contextmanager
    def ends_badly(group, *_):
        yield group
        raise RuntimeError("Rank 1 hangs")

    monkeypatch.setattr(language_model, "complete", ends_badly)
    model = small()
    with pytest.raises(RuntimeError, match="Rank 1 hangs"):
        model.fit(TEXTS)
    assert_same_weights(model, lm)


def test_the_recommended_pooling_lasts_as_long_as_training_goes_on():
    model = small(max_steps=1).fit(TEXTS)
    model.config_["pooling"] = "mean"
    assert model.partial_fit(TEXTS).config_["pooling"] == "mean"
    assert model.set_params(warm_start=True).fit(TEXTS).config_["pooling"] == "mean"
    assert "pooling" not in model.set_params(warm_start=False).fit(TEXTS).config_


def test_partial_fit_again_and_again_improves():
    model, bits = small(), []
    for _ in range(3):
        bits.append(-model.partial_fit(TEXTS).score(TEXTS))
    assert bits[0] > bits[1] > bits[2]
    assert model.n_steps_ == 12
    assert set(model.history_["learning_rate"]) == {0.03}


def test_partial_fit_carries_the_optimizer_on():
    carried, forgetful = small().partial_fit(TEXTS), small().partial_fit(TEXTS)
    forgetful = pickle.loads(pickle.dumps(forgetful))
    carried.partial_fit(TEXTS)
    forgetful.partial_fit(TEXTS)
    assert not np.array_equal(carried.weights_["head.weight"], forgetful.weights_["head.weight"])


@pytest.mark.parametrize("look_at", [pickle.dumps, copy.deepcopy, joblib.hash])
def test_a_copy_does_not_change_how_the_original_goes_on(look_at):
    looked_at, left_alone = small().partial_fit(TEXTS), small().partial_fit(TEXTS)
    look_at(looked_at)
    assert_same_weights(looked_at.partial_fit(TEXTS), left_alone.partial_fit(TEXTS))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"dropout": 0.3}, {"dropout": 0.0}),
        ({"dropout": 0.0}, {"dropout": 0.3}),
        ({"weight_norm": True}, {"weight_norm": False}),
        ({"optimizer": "adam"}, {"optimizer": "sgd"}),
        ({"precision": "float32"}, {"precision": "float64"}),
    ],
    ids=str,
)
def test_partial_fit_goes_on_by_parameters_that_have_changed(before, after, monkeypatch):
    model = small(**before).partial_fit(TEXTS)
    anew = pickle.loads(pickle.dumps(model))  # which has the weights and nothing else
    seed = model._running[0].plan.seed
    monkeypatch.setattr(
        language_model, "check_random_state", lambda _: SimpleNamespace(randint=lambda _: seed)
    )
    for global_seed, each in enumerate((model, anew)):
        torch.manual_seed(global_seed)  # which nothing may depend on
        each.set_params(**after).partial_fit(TEXTS)
    assert_same_weights(model, anew)


def test_partial_fit_goes_on_from_weights_that_were_altered():
    model = small(learning_rate=1e-12).partial_fit(TEXTS)
    model.weights_["head.bias"][0] = 3
    model.partial_fit(TEXTS)
    assert model.weights_["head.bias"][0] == pytest.approx(3)


def test_a_refused_partial_fit_changes_nothing():
    refused, left_alone = small().partial_fit(TEXTS), small().partial_fit(TEXTS)
    with pytest.raises(ValueError, match="8 bytes in 1 documents"):
        refused.partial_fit(["short"])
    with pytest.raises(ValueError, match="Unknown optimizer"):
        refused.set_params(optimizer="nonsense").partial_fit(TEXTS)
    with pytest.raises(ValueError, match="8 bytes in 1 documents"):
        refused.set_params(optimizer="adam", dropout=0.3).partial_fit(["short"])
    refused.set_params(dropout=0.0)
    assert_same_weights(refused.partial_fit(TEXTS), left_alone.partial_fit(TEXTS))


@pytest.mark.parametrize(
    "params", [{"grad_clip": -1.0}, {"persist_state": "documents"}, {"batch_size": 0}], ids=str
)
def test_every_partial_fit_checks_the_parameters(params):
    model = small().partial_fit(TEXTS)
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
        model.set_params(**params).partial_fit(TEXTS)
    assert model.n_steps_ == 4


def test_an_interrupt_ends_the_loop_around_partial_fit_too(monkeypatch):
    model = small()
    interrupt_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(TEXTS)
    assert model.n_steps_ == 2
    assert math.isfinite(model.score(TEXTS))


def test_partial_fit_recovers_from_a_lost_training():
    model = small().partial_fit(TEXTS)
    before = model.score(TEXTS)
    with pytest.raises(ValueError, match="learning_rate"):
        model.set_params(learning_rate=1e300).partial_fit(TEXTS)
    assert model.set_params(learning_rate=0.03).partial_fit(TEXTS).score(TEXTS) > before


# What a fitted model says (the rest: test_fitted_language_model.py)


def test_a_document_without_a_second_byte_has_likelihood_one():
    model = small(preprocessor=None, max_steps=1).fit(TEXTS)
    likelihoods = model.score_samples(["", "a", "ab"])
    assert list(likelihoods[:2]) == [0, 0]
    assert likelihoods[2] < 0
    assert [len(trace) for trace in model.activations(["", "a", "ab"])] == [0, 1, 2]
    with pytest.raises(ValueError, match="nothing to score"):
        model.score(["", "a"])


def test_a_corpus_is_scored_as_it_is():
    # A preprocessor that shows whether it was applied a second time.
    model = small(preprocessor=lambda text: f"<{text}>".encode(), max_steps=2).fit(TEXTS)
    corpus = TextCorpus.from_documents(TEXTS, preprocessor=model.preprocessor)
    assert model.score(corpus) == model.score(TEXTS)


def test_a_corpus_from_another_preprocessor_is_noticed():
    corpus = TextCorpus.from_documents(TEXTS, preprocessor="openai")
    with pytest.warns(UserWarning, match="'openai', and the model will read .*='review'"):
        model = small(max_steps=2).fit(corpus)
    with pytest.warns(UserWarning, match="trained on .*='review', and reads .*='openai'"):
        model.score(corpus[:2])


def test_a_corpus_of_bytes_as_they_are_may_come_from_anything(recwarn):
    model = small(max_steps=2).fit(TextCorpus.from_documents(TEXTS, preprocessor=None))
    model.score(TextCorpus.from_documents(TEXTS, preprocessor=None))
    assert not recwarn.list


# Errors


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.preprocess(TEXTS),
        lambda model: model.score(TEXTS),
        lambda model: model.score_samples(TEXTS),
        lambda model: model.activations(TEXTS),
        lambda model: model.generate(),
        lambda model: model.save_pretrained("no-such-folder/model"),
    ],
)
def test_an_unfitted_model_says_so(call):
    with pytest.raises(NotFittedError):
        call(small())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backend": "cpp"}, "'cpp' is not available"),
        ({"backend": "cuda", "device": "cpu"}, "'cuda' does not run on device 'cpu'"),
        ({"device": "no-device"}, "'no-device' is not available"),
        pytest.param(
            {"device": "cuda"},
            "'cuda' is not available",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_what_is_not_available_is_refused(lm, monkeypatch, params, message):
    no_kernels = extension.Outcome(None, "there is no compiler")
    monkeypatch.setattr(extension, "load", lambda backend: no_kernels)
    for call in (small(**params).fit, small(**params).partial_fit):
        with pytest.raises(ValueError, match=message):
            call(TEXTS)
    with pytest.raises(ValueError, match=message):
        copy.copy(lm).set_params(**params).score(TEXTS)


class RecurrentOperators(TorchDispatchMode):
    """Notes which operators run the recurrence."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.namespace == "skdiscovery":
            self.names.add(operator._opname)
        return operator(*args, **kwargs or {})


def use(backend):
    """Train a model, use all of its methods, and return what they return and what ran."""
    with RecurrentOperators() as operators:
        model = small(backend=backend, precision="float64", max_epochs=2).fit(TEXTS)
        results = [
            *model.weights_.values(),
            model.score_samples(UNSEEN),
            *model.activations(UNSEEN),
            np.frombuffer(model.generate("What", n_bytes=9, temperature=0)[0].encode(), np.uint8),
            *MLSTMFeaturizer(model, backend=backend, precision="float64").fit_transform(UNSEEN),
        ]
    return results, operators.names


@pytest.mark.skipif(
    os.environ.get(BACKEND_VARIABLE) == "torch", reason="compiled kernels are forbidden"
)
def test_backends_agree_and_are_those_that_were_asked_for():
    results, operators = use("cpp")
    expected, operators_of_torch = use("torch")
    assert operators == {"mlstm", "mlstm_backward", "mlstm_packed"}
    assert operators_of_torch == {name + "_torch" for name in operators}
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("a text", ValueError, "string object received"),
        (["a", None], ValueError, "index 1 is missing"),
        (["a", 2], TypeError, "index 1 is of type int"),
        (5, TypeError, "Expected an iterable"),
        ([], ValueError, "0 bytes in 0 documents"),
        (["short"], ValueError, "8 bytes in 1 documents, but batch_size=8 and seq_length=24"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_documents_are_refused_before_the_training(method, X, error, message):
    model = small()
    with pytest.raises(error, match=message):
        getattr(model, method)(X)
    assert not hasattr(model, "weights_")


@pytest.mark.parametrize(
    "params",
    [
        *({"hidden_size": 0}, {"dropout": 1.0}, {"cell": "gru"}, {"preprocessor": "none"}),
        *({"learning_rate": 0}, {"grad_clip": 0}, {"optimizer": 1}, {"max_steps": 0}),
        *({"validation_fraction": 1.0}, {"persist_state": 1}, {"lr_decay": 1.5}),
    ],
    ids=str,
)
def test_a_bad_parameter_is_refused_by_name(params):
    (name,) = params
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        small(**params).fit(TEXTS)


def test_an_optimizer_may_be_named_in_any_case():
    assert small(optimizer="SGD", max_steps=1).fit(TEXTS).n_steps_ == 1


def test_an_unknown_optimizer_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"Unknown optimizer 'lbfgs': expected one of .*'adam'"):
        small(optimizer="lbfgs").fit(TEXTS)


# As an estimator


def test_copies_score_the_same_and_hold_no_torch_object(lm, tmp_path):
    joblib.dump(lm, tmp_path / "lm.joblib")
    fed = small(max_steps=2).partial_fit(TEXTS)  # goes on within the process
    copies = [
        (lm, pickle.loads(pickle.dumps(lm))),
        (lm, joblib.load(tmp_path / "lm.joblib")),
        (lm, copy.deepcopy(lm)),
        (fed, pickle.loads(pickle.dumps(fed))),
        (fed, copy.deepcopy(fed)),
    ]
    for original, made in copies:
        assert_same_weights(made, original)
        assert made.score(UNSEEN) == original.score(UNSEEN)
        pd.testing.assert_frame_equal(made.history_, original.history_)
        assert b"torch" not in pickle.dumps(original)
        assert {type(array) for array in made.weights_.values()} == {np.ndarray}


def test_equal_fits_have_equal_hashes(lm):
    same = small().fit(TEXTS)
    for what in (lambda model: model.weights_, lambda model: model.config_):
        assert joblib.hash(what(same)) == joblib.hash(what(lm))
    assert joblib.hash(lm.weights_) != joblib.hash(small(random_state=1).fit(TEXTS).weights_)
    # Only the time that the steps took differs.
    same_but_time = same.history_.drop(columns="bytes_per_second")
    pd.testing.assert_frame_equal(same_but_time, lm.history_.drop(columns="bytes_per_second"))
    same.history_ = lm.history_
    assert joblib.hash(same) == joblib.hash(lm)


def test_use_does_not_change_the_hash(lm):
    model = copy.deepcopy(lm)
    before = joblib.hash(model)
    model.score(UNSEEN)
    model.activations(UNSEEN)
    model.generate(n_bytes=2)
    assert joblib.hash(model) == before


def test_a_clone_is_unfitted_with_the_same_parameters(lm):
    made = clone(lm)
    assert made.get_params() == lm.get_params()
    with pytest.raises(NotFittedError):
        made.score(TEXTS)


def test_fit_leaves_the_parameters_as_they_were(lm):
    assert lm.get_params() == small().get_params()


def test_the_tags_say_that_the_input_is_text(lm):
    tags = lm.__sklearn_tags__()
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "check",
    [
        checks.check_no_attributes_set_in_init,
        checks.check_parameters_default_constructible,
        checks.check_get_params_invariance,
        checks.check_set_params,
        checks.check_param_validation,
        checks.check_do_not_raise_errors_in_init_or_set_params,
        checks.check_estimator_cloneable,
        checks.check_estimator_repr,
        checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types,
        checks.check_mixin_order,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_checks_that_need_no_texts(check):
    check("ByteMLSTMLanguageModel", small())


# Files


def test_a_saved_model_comes_back(any_lm, tmp_path):
    path = tmp_path / "model.safetensors"
    any_lm.save_pretrained(path)

    model = ByteMLSTMLanguageModel.from_pretrained(path, device="cpu")

    assert_same_weights(model, any_lm)
    assert {name: model.config_[name] for name in any_lm.config_} == any_lm.config_
    for name in ("hidden_size", "embedding_size", "n_layers", "cell", "preprocessor"):
        assert getattr(model, name) == getattr(any_lm, name)
    assert (model.n_steps_, model.n_bytes_seen_) == (any_lm.n_steps_, any_lm.n_bytes_seen_)
    assert model.score(UNSEEN) == any_lm.score(UNSEEN)
    again = tmp_path / "again.safetensors"
    model.save_pretrained(again)
    assert_same_weights(ByteMLSTMLanguageModel.from_pretrained(again, device="cpu"), model)


def test_a_model_saved_in_half_precision_scores_nearly_the_same(lm, tmp_path):
    lm.save_pretrained(tmp_path / "half", dtype="float16")
    model = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "half", device="cpu")
    assert model.score(UNSEEN) == pytest.approx(lm.score(UNSEEN), rel=1e-3)


def test_a_model_whose_sizes_are_numpy_numbers_is_saved(tmp_path):
    model = small(hidden_size=np.int64(16), n_layers=np.int32(1), max_steps=1).fit(TEXTS)
    model.save_pretrained(tmp_path / "model")
    loaded = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "model", device="cpu")
    assert_same_weights(loaded, model)


def test_a_function_as_preprocessor_is_not_saved(lm, tmp_path):
    model = small(preprocessor=str.encode, max_steps=1).fit(TEXTS)
    with pytest.raises(ValueError, match="function as its preprocessor"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'no-such-model': .* models that ship .* \["):
        ByteMLSTMLanguageModel.from_pretrained("no-such-model")


LOADS_WITHOUT_A_GPU = """
import sys, joblib, numpy as np, torch
assert not torch.cuda.is_available()
model, texts, scores = joblib.load(sys.argv[1])
np.testing.assert_allclose(model.set_params(device="auto").score_samples(texts), scores, rtol=5e-2)
"""


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_what_a_gpu_has_trained_a_cpu_can_read(precision, tmp_path):
    on_gpu = small(device="cuda", precision=precision).fit(TEXTS)
    assert on_gpu.score(TEXTS) > small(max_steps=1, device="cpu").fit(TEXTS).score(TEXTS) + 1
    path = tmp_path / "model.joblib"
    joblib.dump((on_gpu, UNSEEN[:1], on_gpu.score_samples(UNSEEN[:1])), path)
    no_gpu = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", LOADS_WITHOUT_A_GPU, str(path)]
    subprocess.run(command, check=True, env=no_gpu)


@pytest.mark.cuda
def test_a_gpu_trains_and_writes_as_a_cpu_does_in_float32():
    trained = {
        device: small(device=device, precision="float32", max_steps=4).fit(TEXTS)
        for device in ("cuda", "cpu")
    }
    for name, array in trained["cpu"].weights_.items():
        np.testing.assert_allclose(trained["cuda"].weights_[name], array, rtol=1e-3, atol=1e-4)
    model = trained["cuda"]
    options = {"n_bytes": 40, "n_samples": 3, "random_state": 0}
    texts = [model.set_params(device=device).generate("I", **options) for device in ("cuda", "cpu")]
    assert texts[0] == texts[1]


@pytest.mark.cuda
def test_a_run_on_a_gpu_is_resumed(tmp_path):
    options = {"device": "cuda", "checkpoint_every": 3, "checkpoint_dir": tmp_path, "max_steps": 6}
    whole = small(**options).fit(TEXTS)
    (tmp_path / "step-000000000006.safetensors").unlink()
    resumed = small(**options, resume=True).fit(TEXTS)
    for name, array in whole.weights_.items():
        np.testing.assert_allclose(resumed.weights_[name], array, rtol=1e-2, atol=1e-3)
