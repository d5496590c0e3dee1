import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.inference import encoding, ragged
from skdiscovery.inference.pooling import POOLINGS

SETTINGS = settings(max_examples=20, deadline=None, derandomize=True, database=None)
STATES = ("hidden", "cell")
ALL = np.arange(6)

any_lengths = st.lists(st.integers(0, 30), max_size=8)
batches = st.sampled_from([1, 40, 10**6])
some_neurons = st.lists(st.integers(0, 5), min_size=1, max_size=7).map(np.array)


def pooled(trace):
    if not len(trace):
        return np.zeros(3 * trace.shape[1])
    return np.concatenate([trace[-1], trace.mean(axis=0), trace.max(axis=0)])


@SETTINGS
@given(
    lengths=any_lengths,
    batch_bytes=batches,
    neurons=some_neurons | st.just(ALL),
    state=st.sampled_from(STATES),
    layer=st.sampled_from([0, 1, -1, -2]),
)
def test_features_are_pooled_traces(
    model, reference, make_documents, lengths, batch_bytes, neurons, state, layer
):
    documents = make_documents(lengths)
    vectors = encoding.features(
        model,
        documents,
        torch.float64,
        poolings=POOLINGS,
        neurons=neurons,
        state=state,
        layer=layer,
        batch_bytes=batch_bytes,
    )
    assert vectors.dtype == np.float64
    assert vectors.shape == (len(documents), 3 * len(neurons))
    for vector, document in zip(vectors, documents, strict=True):
        trace = reference.read(document)[STATES.index(state)][layer][:, neurons]
        np.testing.assert_allclose(vector, pooled(trace), atol=1e-12)


@SETTINGS
@given(
    lengths=any_lengths,
    batch_bytes=batches,
    neurons=some_neurons,
    state=st.sampled_from(STATES),
    layer=st.sampled_from([0, 1, -1, -2]),
)
def test_activations_are_traces_by_byte(
    model, reference, make_documents, lengths, batch_bytes, neurons, state, layer
):
    documents = make_documents(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ragged.BATCH_BYTES, "cpu", batch_bytes)
        traces = encoding.activations(
            model, documents, torch.float64, neurons=neurons, state=state, layer=layer
        )
    for trace, document in zip(traces, documents, strict=True):
        assert trace.dtype == np.float32
        expected = reference.read(document)[STATES.index(state)][layer][:, neurons]
        np.testing.assert_allclose(trace, expected, atol=1e-6)


@SETTINGS
@given(lengths=any_lengths, batch_bytes=batches)
def test_log_likelihoods_are_sums_over_bytes_after_the_first(
    model, reference, make_documents, lengths, batch_bytes
):
    documents = make_documents(lengths)
    expected = []
    for document in documents:
        logits = reference.read(document)[2]
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected.append(sum(log_probabilities[t, byte] for t, byte in enumerate(document[1:])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ragged.BATCH_BYTES, "cpu", batch_bytes)
        result = encoding.log_likelihoods(model, documents, torch.float64)
    assert result.shape == (len(documents),)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_the_logits_of_few_bytes_are_there_at_once(model, make_documents, monkeypatch):
    sizes = []
    head = model.head.forward
    monkeypatch.setattr(model.head, "forward", lambda rows: sizes.append(len(rows)) or head(rows))
    encoding.log_likelihoods(model, make_documents([20_000, 20_000]), torch.float64)
    assert sum(sizes) == 39_998
    assert max(sizes) <= 2**14


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_bfloat16_states_become_float32_features(
    model, float32_model, make_documents, pooling, state
):
    documents = make_documents([9, 0, 30])
    options = {"poolings": [pooling], "neurons": ALL, "state": state}
    exact = encoding.features(model, documents, torch.float64, **options)
    narrow = encoding.features(float32_model, documents, torch.bfloat16, **options)
    assert narrow.dtype == np.float32
    assert np.linalg.norm(narrow - exact) <= 2e-2 * np.linalg.norm(exact)


@pytest.mark.parametrize("state", STATES)
def test_bfloat16_traces_become_float32(model, float32_model, make_documents, state):
    documents = make_documents([9, 0, 30])
    exact = encoding.activations(model, documents, torch.float64, neurons=ALL, state=state)
    narrow = encoding.activations(
        float32_model, documents, torch.bfloat16, neurons=ALL, state=state
    )
    for trace, expected in zip(narrow, exact, strict=True):
        assert trace.dtype == np.float32
        np.testing.assert_allclose(trace, expected, atol=2e-2)


def test_progress_counts_bytes(model, make_documents, capsys):
    for verbose in (0, 1):
        encoding.features(
            model,
            make_documents([9, 0, 30]),
            torch.float64,
            poolings=["last"],
            neurons=ALL,
            verbose=verbose,
        )
        assert ("39.0/39.0" in capsys.readouterr().err) == bool(verbose)


@pytest.mark.parametrize(
    ("neurons", "expected"),
    [(None, [0, 1, 2]), (2, [2]), ([2, 0, 2], [2, 0, 2]), (np.array([1], dtype=np.uint8), [1])],
)
def test_neurons(neurons, expected):
    checked = encoding.check_neurons(neurons, 3)
    assert checked.dtype == np.int64
    assert checked.tolist() == expected


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ([0, 3], r"Neuron 3 is out of range: the model has neurons 0 to 2\."),
        (-1, r"Neuron -1 is out of range"),
        ([0.0], r"list of whole numbers, one at least, got \[0\.0\]"),
        (["0"], "list of whole numbers"),
        ([True], "list of whole numbers"),
        ([[0]], "list of whole numbers"),
        ([], "list of whole numbers"),
        (np.array([], dtype=int), "list of whole numbers, one at least"),
    ],
)
def test_neurons_that_are_not_there(neurons, message):
    with pytest.raises(ValueError, match=message):
        encoding.check_neurons(neurons, 3)


def test_layers():
    assert [encoding.check_layer(k, 3) for k in range(-3, 3)] == [0, 1, 2, 0, 1, 2]
    for layer in (3, -4):
        with pytest.raises(ValueError, match=rf"Layer {layer} is out of range: .* 3 layer\(s\)"):
            encoding.check_layer(layer, 3)
    for layer in (None, "last", 1.0):
        with pytest.raises(ValueError, match=f"Expected layer as a whole number, got {layer!r}"):
            encoding.check_layer(layer, 3)


def test_empty_documents_have_no_part_in_the_loss(model):
    loss = encoding.nats_per_byte(model, [b"abc"], torch.float64)
    assert encoding.nats_per_byte(model, [b"", b"abc", b""], torch.float64) == pytest.approx(loss)
