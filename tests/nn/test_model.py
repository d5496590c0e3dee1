import numpy as np
import pytest
import torch
from torch import nn

from skdiscovery import ops
from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import model_from_weights

TOY = Architecture(hidden_size=4, embedding_size=3)


def fill(k, *shape):
    return 0.5 * np.sin(0.7 * np.arange(np.prod(shape)) + k).reshape(shape)


def toy_model(n_layers=1):
    """A model whose weights anyone can write down, as computed by NVIDIA's code."""
    weights = {"embedding": fill(0, 256, 3), "head.weight": fill(6, 256, 4)}
    weights["head.bias"] = fill(7, 256)
    for k in range(n_layers):
        start = 10 * k
        weights |= {
            f"layers.{k}.wx": fill(start + 1, 16, 4 if k else 3),
            f"layers.{k}.wh": fill(start + 2, 16, 4),
            f"layers.{k}.bias": fill(start + 3, 16),
            f"layers.{k}.wmx": fill(start + 4, 4, 4 if k else 3),
            f"layers.{k}.wmh": fill(start + 5, 4, 4),
        }
    return model_from_weights(weights, Architecture(4, 3, n_layers))


def toy_model_with_weight_norm():
    """Another one, in OpenAI's parameterisation: matrices (in, out), a length per column."""
    model = ByteLanguageModel(TOY).double().initialise(torch.Generator()).normalise_weights()
    (layer,) = model.layers
    shapes = {"wx": (3, 16), "wh": (4, 16), "wmx": (3, 4), "wmh": (4, 4)}
    directions = {"wx": 1, "wh": 2, "wmx": 4, "wmh": 5}
    lengths = {"wx": 8, "wh": 9, "wmx": 10, "wmh": 11}
    for name, (n_inputs, n_outputs) in shapes.items():
        matrix = getattr(layer.parametrizations, name)
        assign(matrix.original0, 1 + fill(lengths[name], n_outputs)[:, None])
        assign(matrix.original1, fill(directions[name], n_inputs, n_outputs).T)
    assign(layer.bias, fill(3, 16))
    assign(model.embedding, fill(0, 256, 3))
    assign(model.head.weight, fill(6, 4, 256).T)
    assign(model.head.bias, fill(7, 256))
    return model


def assign(parameter, values):
    assert parameter.shape == values.shape
    parameter.data = torch.from_numpy(values.copy())


@torch.no_grad()
def read(model, text, states=None, keep=None):
    """Return the mean loss, the logits after the last input, and the states after it.

    All bytes are targets but the first; the last is no input.
    """
    symbols = torch.tensor(list(text))[:, None]
    states = states or model.zero_state(1, torch.float64)
    top, states = model(symbols[:-1], states, keep)
    logits = model.logits(top)[:, 0]
    return nn.functional.cross_entropy(logits, symbols[1:, 0]).item(), logits[-1], states


@torch.no_grad()
def read_all(model, text):
    """Return the logits after the last byte, and the states of the last layer."""
    top, states = model(torch.tensor(list(text))[:, None], model.zero_state(1, torch.float64))
    h, c = states[-1]
    return model.logits(top)[-1, 0], h[0], c[0]


def assert_close(got, expected, tolerance=1e-7):
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


GREAT = b"\n Great movie! "
OK = b"\n ok "
AWFUL = b"\n awful, just awful. "


def test_golden_one_layer():
    model = toy_model()
    loss, _, ((_, c),) = read(model, GREAT)
    assert_close(loss, 5.69090876)
    assert_close(c[0], [-0.12615185, -0.2955392, 0.17477643, 0.52678795])
    logits, h, c = read_all(model, GREAT)
    assert_close(h, [-0.22723986, -0.05543223, 0.11154165, 0.14345181])
    assert_close(c, [-0.37429519, -0.13830014, 0.23334929, 0.32918005])
    assert_close(logits[:5], [0.46870752, 0.31927761, 0.61649843, -0.02217932, -0.02998124])
    assert logits.argmax() == 2


def test_golden_two_layers():
    model = toy_model(n_layers=2)
    assert_close(read(model, GREAT)[0], 5.6719895)
    logits, h, c = read_all(model, GREAT)
    assert_close(c, [0.25920777, -0.0651011, -0.27919361, -0.54559885])
    assert_close(h, [0.10746335, -0.03878132, -0.15721996, -0.31840988])
    assert_close(logits[:5], [0.22078507, 0.56565892, 0.40012892, 0.13917574, -0.11767642])


@pytest.mark.parametrize(
    ("text", "after_all", "before_last"),
    [
        (
            OK,
            [-0.48360138, -0.05591166, 0.25085931, 0.16240206],
            [-0.33680415, -0.16026622, 0.21516112, 0.28466111],
        ),
        (
            AWFUL,
            [-0.39570262, -0.08719686, 0.16055468, 0.41004364],
            [-0.1697964, -0.2087324, 0.01885846, 0.64350296],
        ),
    ],
)
def test_golden_cells_of_short_texts(text, after_all, before_last):
    model = toy_model()
    assert_close(read_all(model, text)[2], after_all)
    assert_close(read_all(model, text[:-1])[2], before_last)


def test_golden_of_states_reset_in_the_middle():
    keep = torch.tensor([0, 1, 1, 1, 1, 0], dtype=torch.float64)[:, None]
    start = [(torch.full((1, 4), 0.3).double(), torch.full((1, 4), 0.2).double())]
    loss, _, ((h, c),) = read(toy_model(), b"\n ab \n ", start, keep)
    assert_close(loss, 5.859225719436384)
    assert_close(h[0], [-0.07774537, -0.0447884, -0.01761848, 0.07414905])
    assert_close(c[0], [-0.14726611, -0.07980508, -0.03964793, 0.23000735])


@pytest.mark.parametrize(
    ("text", "cells", "loss"),
    [
        (GREAT, [-0.4532214, -0.14889218, 0.19397846, 0.49368783], 5.65170749),
        (OK, [-0.5157273, -0.17691979, 0.14974921, 0.48476315], 5.79952547),
        (AWFUL, [-0.49817864, -0.23987999, 0.06985862, 0.31326345], 5.55723425),
        (b"\n  ", [-0.54869779, -0.22422199, 0.0570618, 0.35020525], 6.04503747),
    ],
)
def test_golden_with_weight_norm(text, cells, loss):
    model = toy_model_with_weight_norm()
    assert_close(read_all(model, text)[2], cells)
    assert_close(read(model, text)[0], loss)


def test_golden_with_weight_norm_in_full():
    model = toy_model_with_weight_norm()
    logits, h, _ = read_all(model, GREAT)
    assert_close(h, [-0.30184243, -0.07645277, 0.06446053, 0.11899857])
    assert_close(logits[:3], [0.35779847, 0.43011457, 0.30014105])
    _, _, ((_, c),) = read(model, GREAT)
    assert_close(c[0], [-0.23713619, -0.0823945, 0.20736055, 0.38647557])


@pytest.mark.parametrize(
    ("architecture", "weight_norm", "expected"),
    [
        (Architecture(4096), False, 86_278_400),
        (Architecture(4096), True, 86_319_360),
        (Architecture(4096), "all", 86_319_360 + 256),
        (Architecture(4096, cell="lstm"), False, 69_255_424),
        (Architecture(8192), False, 340_312_320),
    ],
)
def test_number_of_parameters(architecture, weight_norm, expected):
    with torch.device("meta"):
        model = ByteLanguageModel(architecture)
        model.normalise_weights(weight_norm)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def make_model(cell="mlstm", n_layers=3, dropout=0.0):
    model = ByteLanguageModel(Architecture(6, 5, n_layers, cell), dropout)
    return model.initialise(torch.Generator().manual_seed(0)).double()


def draw_symbols(n_steps=7, n_sequences=4):
    return torch.randint(256, (n_steps, n_sequences), generator=torch.Generator().manual_seed(1))


class GivenDropout(nn.Module):
    """Multiplies by one given mask after another."""

    def __init__(self, masks):
        super().__init__()
        self.masks = list(masks)

    def forward(self, values):
        return values * self.masks.pop(0)


@pytest.mark.parametrize("cell", ["mlstm", "lstm"])
def test_each_layer_reads_the_dropped_sum_of_those_below(cell):
    model, symbols = make_model(cell), draw_symbols()
    masks = torch.randint(3, (3, 7, 4, 6), generator=torch.Generator().manual_seed(2))
    states = model.zero_state(4, torch.float64)

    def run(layer, inputs, state):
        x = inputs @ layer.wx.T + layer.gate_bias()
        if cell == "lstm":
            return ops.mlstm(x, None, None, layer.wh, None, *state)[:2]
        return ops.mlstm(x, inputs @ layer.wmx.T, None, layer.wh, layer.wmh, *state)[:2]

    h0, c0 = run(model.layers[0], model.embedding[symbols], states[0])
    x1 = masks[0] * h0
    h1, c1 = run(model.layers[1], x1, states[1])
    x2 = masks[1] * (x1 + h1)
    h2, c2 = run(model.layers[2], x2, states[2])
    expected = masks[2] * (x2 + h2)

    model.dropout = GivenDropout(masks)
    top, last = model(symbols, states)
    assert_close(top.detach(), expected.detach(), 1e-12)
    for (h, c), (hk, ck) in zip(last, [(h0, c0), (h1, c1), (h2, c2)], strict=True):
        assert_close(h.detach(), hk[-1].detach(), 1e-12)
        assert_close(c.detach(), ck[-1].detach(), 1e-12)


def test_dropout_zeroes_outputs_and_never_the_recurrence():
    model, symbols = make_model(n_layers=1, dropout=0.25), draw_symbols(50)
    states = model.zero_state(4, torch.float64)
    whole, last = model.eval()(symbols, states)
    torch.manual_seed(0)
    dropped, last_in_training = model.train()(symbols, states)
    kept = dropped != 0
    assert_close(dropped[kept].detach(), whole[kept].detach() / 0.75, 1e-12)
    assert 0.7 < kept.double().mean() < 0.8
    for state in (0, 1):
        assert torch.equal(last[0][state], last_in_training[0][state])


@pytest.mark.parametrize("cell", ["mlstm", "lstm"])
def test_packed_is_each_document_alone(cell):
    model = make_model(cell, n_layers=2).eval()
    documents = [b"the longest", b"shorter", b"shorte", b"x"]
    sizes = [sum(len(d) > t for d in documents) for t in range(len(documents[0]))]
    steps = [d[t] for t, n in enumerate(sizes) for d in documents[:n]]
    owner = np.array([rank for n in sizes for rank in range(n)])
    zero = model.zero_state(4, torch.float64)
    with torch.no_grad():
        top, traces = model.forward_packed(torch.tensor(steps), sizes, zero)
    for rank, document in enumerate(documents):
        logits, h, c = read_all(model, document)
        assert_close(model.logits(top[owner == rank])[-1].detach(), logits, 1e-12)
        assert_close(traces[-1][0][owner == rank][-1], h, 1e-12)
        assert_close(traces[-1][1][owner == rank][-1], c, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "cell_dtype"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_cell_states_are_never_narrower_than_float32(dtype, cell_dtype):
    states = make_model(n_layers=2).zero_state(3, dtype)
    assert len(states) == 2
    for h, c in states:
        assert (h.dtype, c.dtype) == (dtype, cell_dtype)
        assert h.shape == c.shape == (3, 6)
        assert not h.any()
        assert not c.any()


def test_a_generator_decides_the_parameters():
    def values(seed):
        model = ByteLanguageModel(Architecture(6, 5, 2))
        model.initialise(torch.Generator().manual_seed(seed))
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(values(3), values(3))
    assert not torch.equal(values(3), values(4))
    assert values(3).isfinite().all()


def test_the_head_begins_within_the_bound_of_its_inputs():
    model = ByteLanguageModel(Architecture(64, 4)).initialise(torch.Generator().manual_seed(0))
    assert 0.12 < model.head.weight.abs().max() <= 64**-0.5
