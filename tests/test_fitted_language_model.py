import copy
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, softmax

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.nn import Architecture
from skdiscovery.nn.weights import weight_shapes
from skdiscovery.pretrained import write_model

TEXTS = ["What a lovely film!", "What a dull film.", "I loved it.", "Dull, dull, dull."] * 10
UNSEEN = ["A lovely, lovely film.", "", "It was dull", "é <br /> x"]


def trained(cell, n_layers, max_epochs):
    model = ByteMLSTMLanguageModel(
        16,
        embedding_size=8,
        n_layers=n_layers,
        cell=cell,
        batch_size=8,
        seq_length=24,
        max_epochs=max_epochs,
        learning_rate=0.03,
        device="cpu",
        random_state=0,
    )
    return model.fit(TEXTS)


@pytest.fixture(scope="module")
def lm():
    """One layer of mLSTM; not to be changed."""
    return trained("mlstm", 1, max_epochs=8)


@pytest.fixture(scope="module", params=[("mlstm", 1), ("mlstm", 2), ("lstm", 2)], ids=str)
def any_lm(request):
    """A fitted model of each kind; not to be changed."""
    return trained(*request.param, max_epochs=2)


# Reading


def test_likelihood_is_that_of_a_plain_loop(any_lm, numpy_model):
    documents, expected = any_lm.preprocess(UNSEEN), []
    for document in documents:
        _, _, logits = numpy_model(any_lm.weights_).read(document[:-1])
        expected.append(log_softmax(logits, axis=1)[range(len(logits)), list(document[1:])].sum())

    actual = any_lm.score_samples(UNSEEN)

    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    n_predicted = sum(len(document) - 1 for document in documents)
    assert any_lm.score(UNSEEN) == pytest.approx(sum(expected) / n_predicted / math.log(2))
    assert any_lm.score(UNSEEN) == pytest.approx(
        actual.sum() / n_predicted / math.log(2), rel=1e-12
    )


@pytest.mark.parametrize("state", ["hidden", "cell"])
def test_activations_are_those_of_a_plain_loop(any_lm, numpy_model, state):
    n_layers = any_lm.n_layers
    for layer in range(-n_layers, n_layers):
        traces = any_lm.activations(UNSEEN, state=state, layer=layer)
        some = any_lm.activations(iter(UNSEEN), state=state, layer=layer, neurons=[5, 0, 5])
        for document, trace, part in zip(any_lm.preprocess(UNSEEN), traces, some, strict=True):
            hidden, cell, _ = numpy_model(any_lm.weights_).read(document)
            expected = (hidden if state == "hidden" else cell)[layer]
            assert trace.dtype == part.dtype == np.float32
            assert trace.shape == (len(document), 16)
            np.testing.assert_allclose(trace, expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(part, trace[:, [5, 0, 5]])


def toy(path, n_layers):
    """Return a model whose weights are a sine, as published with its values for these texts."""
    k = {"embedding": 0, "head.weight": 6, "head.bias": 7}
    for layer in range(n_layers):
        for first, name in enumerate(("wx", "wh", "bias", "wmx", "wmh"), 1):
            k[f"layers.{layer}.{name}"] = first + 10 * layer
    weights = {
        name: (0.5 * np.sin(0.7 * np.arange(math.prod(shape)) + k[name])).reshape(shape)
        for name, shape in weight_shapes(Architecture(4, 3, n_layers)).items()
    }
    config = {"hidden_size": 4, "embedding_size": 3, "n_layers": n_layers, "cell": "mlstm"}
    config |= {"preprocessor": "review", "n_steps": 0, "n_bytes_seen": 0}
    write_model(path, weights, config)
    return ByteMLSTMLanguageModel.from_pretrained(path, device="cpu")


@pytest.mark.parametrize(
    ("n_layers", "nats", "cell", "hidden"),
    [
        (
            1,
            5.69090876,
            [-0.37429519, -0.13830014, 0.23334929, 0.32918005],
            [-0.22723986, -0.05543223, 0.11154165, 0.14345181],
        ),
        (
            2,
            5.6719895,
            [0.25920777, -0.0651011, -0.27919361, -0.54559885],
            [0.10746335, -0.03878132, -0.15721996, -0.31840988],
        ),
    ],
)
def test_a_toy_model_gives_sentiment_discoverys_values(tmp_path, n_layers, nats, cell, hidden):
    model = toy(tmp_path / "toy", n_layers)
    texts = ["Great movie!"]
    assert -model.score(texts) * math.log(2) == pytest.approx(nats, rel=1e-6)
    np.testing.assert_allclose(model.activations(texts)[0][-1], cell, atol=1e-6)
    np.testing.assert_allclose(model.activations(texts, state="hidden")[0][-1], hidden, atol=1e-6)


def test_precision_changes_little(lm):
    for precision, tolerance in [("float64", 1e-5), ("bfloat16", 0.02)]:
        other = copy.deepcopy(lm).set_params(precision=precision)
        assert other.score(TEXTS) == pytest.approx(lm.score(TEXTS), rel=tolerance)


def test_no_document_gives_no_result(lm):
    assert lm.score_samples([]).shape == (0,)
    assert lm.activations([]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neurons": [16]}, "Neuron 16 is out of range: .* 0 to 15"),
        ({"neurons": [-1]}, "Neuron -1 is out of range"),
        ({"neurons": [0.5]}, "whole numbers"),
        ({"layer": 1}, "Layer 1 is out of range"),
        ({"layer": -2}, "Layer -2 is out of range"),
        ({"state": "gate"}, "'gate': expected 'cell' or 'hidden'"),
    ],
)
def test_a_neuron_layer_or_state_that_is_not_there_is_refused(lm, arguments, message):
    with pytest.raises(ValueError, match=message):
        lm.activations(UNSEEN, **arguments)


# Writing


def test_texts_begin_with_the_prompt_and_are_as_many_as_asked_for(lm):
    texts = lm.generate("What a", n_bytes=30, n_samples=3, random_state=0)
    assert len(texts) == len(set(texts)) == 3
    assert all(text.startswith("What a") for text in texts)


def test_a_seed_fixes_the_text(lm):
    texts = [lm.generate("What", n_samples=2, random_state=seed) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_at_temperature_zero_the_likeliest_byte_is_written(lm, numpy_model):
    greedy = lm.generate("What", n_bytes=20, temperature=0, random_state=0)
    assert greedy == lm.generate("What", n_bytes=20, temperature=0, random_state=1)
    assert greedy == lm.generate("What", n_bytes=20, top_k=1, random_state=2)
    written = b"\n What"
    for _ in range(20):
        _, _, logits = numpy_model(lm.weights_).read(written)
        written += bytes([logits[-1].argmax()])
    assert greedy == [written.decode("utf-8", "replace").removeprefix("\n ")]


@pytest.mark.parametrize("temperature", [1e-3, 1e-39, 1e-300])
def test_a_tiny_temperature_is_close_to_zero(lm, temperature):
    cold = lm.generate("What", n_bytes=10, temperature=temperature, random_state=0)
    assert cold == lm.generate("What", n_bytes=10, temperature=0)


def test_bytes_are_drawn_with_the_probabilities_of_the_model(lm, numpy_model):
    n_samples = 4000
    texts = lm.generate("What a", n_bytes=1, n_samples=n_samples, temperature=0.7, random_state=0)
    _, _, logits = numpy_model(lm.weights_).read(b"\n What a")
    probabilities = softmax(logits[-1] / 0.7)
    likeliest = np.argsort(probabilities[:128])[-3:]
    for byte in likeliest:
        p = probabilities[byte]
        share = np.mean([text.endswith(chr(byte)) for text in texts])
        assert share == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n_samples))


def test_top_k_draws_among_the_likeliest(lm, numpy_model):
    texts = lm.generate("What a", n_bytes=1, n_samples=300, temperature=5, top_k=2, random_state=0)
    _, _, logits = numpy_model(lm.weights_).read(b"\n What a")
    assert {ord(text[-1]) for text in texts} == set(np.argsort(logits[-1])[-2:])


@pytest.mark.parametrize("preprocessor", ["review", "openai", "nvidia", None, str.encode])
@pytest.mark.parametrize("prompt", ["This movie is", ""])
def test_no_byte_more_gives_the_prompt(lm, preprocessor, prompt):
    model = copy.copy(lm).set_params(preprocessor=preprocessor)
    assert model.generate(prompt, n_bytes=0, n_samples=2) == [prompt] * 2


@pytest.mark.parametrize("state", ["hidden", "cell"])
def test_a_neuron_that_is_held_changes_the_text(any_lm, state):
    arguments = {"n_bytes": 40, "n_samples": 2, "random_state": 0, "overwrite_state": state}
    free = any_lm.generate("What", **arguments)
    held = any_lm.generate("What", overwrite={3: 30.0, 5: -30.0}, **arguments)
    assert held != free
    assert any_lm.generate("What", overwrite={}, **arguments) == free


@pytest.mark.parametrize("state", ["hidden", "cell"])
def test_a_held_neuron_acts_as_in_a_plain_loop(lm, numpy_model, state):
    hidden, cell, _ = numpy_model(lm.weights_).read(b"\n What")
    h, value = hidden[0, -1].copy(), 9.0
    output_gate = h[3] / np.tanh(cell[0, -1, 3])
    h[3] = value if state == "hidden" else output_gate * np.tanh(value)
    logits = lm.weights_["head.weight"] @ h + lm.weights_["head.bias"]

    (text,) = lm.generate(
        "What", n_bytes=1, temperature=0, overwrite={3: value}, overwrite_state=state
    )

    assert text == (b"What" + bytes([logits.argmax()])).decode("utf-8", "replace")


@pytest.mark.parametrize(
    "arguments",
    [
        {"overwrite": {16: 1.0}},
        {"overwrite": {-1: 1.0}},
        {"overwrite": {"a": 1.0}},
        {"overwrite_state": "gate"},
        {"n_bytes": -1},
        {"n_samples": 0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_k": 257},
        {"prompt": None},
        {"prompt": ["good", None]},
        {"overwrite": {3: math.nan}},
        {"overwrite": {3: -math.inf}},
        {"overwrite": {3: 1e31}},
        {"overwrite": {3: 1e300}},
        {"overwrite": {3: None}},
        {"overwrite": {3: "much"}},
        {"overwrite": {3: [1.0]}},
        {"overwrite": [3, 1.0]},
        {"layer": 1},
        {"layer": 0.5},
        {"stop_at_end": "yes"},
        {"trace_neurons": 3.5},
        {"trace_neurons": [16]},
    ],
    ids=str,
)
def test_a_bad_request_for_text_is_refused(lm, arguments):
    message = r"out of range|whole numbers|must be|finite numbers|is missing"
    with pytest.raises(ValueError, match=message), warnings.catch_warnings(action="error"):
        lm.generate(**arguments)


def test_a_range_that_is_missed_is_named(lm):
    with pytest.raises(ValueError, match="the model has neurons 0 to 15"):
        lm.generate(overwrite={16: 1.0})
    with pytest.raises(ValueError, match=r"Layer -2 .* the model has 1 layer\(s\), 0 to 0"):
        lm.generate(layer=-2)


@pytest.mark.parametrize("prompt", ["Très", "Très".encode()])
def test_a_prompt_alone_or_in_a_list(lm, prompt):
    options = {"n_bytes": 10, "random_state": 0}
    assert lm.generate(prompt, **options) == lm.generate([prompt], **options)


def test_several_prompts(lm):
    prompts = ["What a", "", "The plot, the plot, the plot"]
    texts = lm.generate(prompts, n_bytes=10, n_samples=2, random_state=0)
    assert len(texts) == 6
    assert all(text.startswith(prompts[i // 2]) for i, text in enumerate(texts))
    assert lm.generate([]) == []
    greedy = {"n_bytes": 10, "temperature": 0}
    assert lm.generate(pd.Series(prompts), **greedy) == [
        lm.generate(prompt, **greedy)[0] for prompt in prompts
    ]


def test_what_is_written_can_be_traced(any_lm):
    options = {"n_bytes": 12, "n_samples": 2, "random_state": 0, "trace_neurons": [4, 2]}
    texts, traces = any_lm.generate("What", **options)
    for text, (text_bytes, hidden, cell) in zip(texts, traces, strict=True):
        assert text_bytes.decode("utf-8", "replace") == "\n " + text
        model = copy.copy(any_lm).set_params(preprocessor=None)
        for values, state in ((hidden, "hidden"), (cell, "cell")):
            expected = model.activations([text_bytes], neurons=[4, 2], state=state)[0]
            np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_text_ends_where_the_document_does(lm):
    options = {"n_bytes": 150, "n_samples": 20, "random_state": 0}
    whole, cut = (lm.generate("What", stop_at_end=end, **options) for end in (False, True))
    ends = [text.partition("\n") for text in whole]
    assert cut == [text.removesuffix(" ") if end else text for text, end, _ in ends]
    assert any(map(str.__ne__, whole, cut))


def test_a_text_that_has_not_ended_keeps_its_last_blank(lm):
    options = {"n_bytes": 9, "n_samples": 50, "random_state": 0}
    whole, cut = (lm.generate("What", stop_at_end=end, **options) for end in (False, True))
    going_on = [k for k, text in enumerate(whole) if text.endswith(" ") and "\n" not in text]
    assert going_on
    assert [cut[k] for k in going_on] == [whole[k] for k in going_on]


def test_a_document_that_ends_at_once_is_an_empty_text(lm):
    options = {"n_bytes": 1, "n_samples": 2000, "temperature": 3.0, "random_state": 0}
    whole, cut = (lm.generate(stop_at_end=end, **options) for end in (False, True))
    assert "\n" in whole
    assert cut == [text.removesuffix("\n") for text in whole]


def test_without_a_preprocessor_no_frame_is_taken_off(lm):
    assert copy.copy(lm).set_params(preprocessor=None).generate("\n x", n_bytes=0) == ["\n x"]


@pytest.mark.parametrize("preprocessor", [None, str.encode])
def test_documents_without_a_frame_have_no_end(lm, preprocessor):
    model = copy.copy(lm).set_params(preprocessor=preprocessor)
    with pytest.raises(ValueError, match=r"stop_at_end needs .* Got preprocessor="):
        model.generate(stop_at_end=True)


def test_a_prompt_of_100_kb(lm):
    (text,) = lm.generate("good " * 20_000, n_bytes=3, random_state=0)
    assert text.startswith("good good")
    assert len(text.encode()) >= 100_000


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_not_utf8_never_fail(lm, seed):
    model = copy.copy(lm).set_params(preprocessor=None)
    options = {"n_bytes": 80, "temperature": 1e6, "random_state": seed}
    texts = model.generate([b"\xff\xfe", "\u00e9\x00", "\u05d0\u0301\u65e5"], **options)
    assert any("\ufffd" in text for text in texts)
    assert texts[1].startswith("\u00e9\x00")
