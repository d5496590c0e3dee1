import pytest
import torch

from skdiscovery import ops
from skdiscovery.nn import LSTMLayer, MLSTMLayer

every_layer = pytest.mark.parametrize("kind", [MLSTMLayer, LSTMLayer])


def make_layer(kind, input_size=3, hidden_size=4, seed=0):
    layer = kind(input_size, hidden_size)
    layer.initialise(torch.Generator().manual_seed(seed))
    return layer.double()


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make_state(n_sequences=2, hidden_size=4):
    return normal(n_sequences, hidden_size, seed=2), normal(n_sequences, hidden_size, seed=3)


def assert_close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def torch_order(blocks):
    """Put gates in the order i, f, o, u into torch's, which is i, f, g (our u), o."""
    i, f, o, u = blocks.chunk(4)
    return torch.cat([i, f, u, o])


def test_lstm_is_torchs():
    layer = make_layer(LSTMLayer)
    layer.recurrent_bias.data = normal(16, seed=4)
    expected = torch.nn.LSTM(3, 4).double()
    names = {"weight_ih_l0": "wx", "weight_hh_l0": "wh", "bias_ih_l0": "bias"}
    names["bias_hh_l0"] = "recurrent_bias"
    expected.load_state_dict({t: torch_order(getattr(layer, n)) for t, n in names.items()})
    inputs, (h0, c0) = normal(5, 2, 3), make_state()

    h, c = layer(inputs, None, (h0, c0))
    expected_h, (_, last_c) = expected(inputs, (h0[None], c0[None]))
    assert_close(h, expected_h)
    assert_close(c[-1], last_c[0])


def test_mlstm_projects_its_input_as_written():
    layer = make_layer(MLSTMLayer)
    layer.bias.data = normal(16, seed=4)
    inputs, state = normal(5, 2, 3), make_state()
    x = torch.einsum("tbe,ge->tbg", inputs, layer.wx) + layer.bias
    mx = torch.einsum("tbe,he->tbh", inputs, layer.wmx)
    expected = ops.mlstm(x, mx, None, layer.wh, layer.wmh, *state)
    assert_close(layer.forward_with_gates(inputs, None, state), expected)
    assert_close(layer(inputs, None, state), expected[:2])


@every_layer
def test_symbols_stand_for_rows_of_a_table(kind):
    layer, table, state = make_layer(kind), normal(6, 3), make_state()
    symbols = torch.tensor([[0, 5], [3, 3], [1, 0]])
    keep = torch.tensor([[1, 1], [0, 1], [1, 0]], dtype=torch.float64)
    assert_close(layer(table, symbols, state, keep), layer(table[symbols], None, state, keep))


@every_layer
def test_packed_is_each_sequence_alone(kind):
    layer, (h0, c0), inputs = make_layer(kind), make_state(), normal(4, 2, 3)
    rows = torch.cat([inputs[0], inputs[1], inputs[2, :1], inputs[3, :1]])
    packed = layer.forward_packed(rows, None, [2, 2, 1, 1], (h0, c0))
    long = layer(inputs[:, :1], None, (h0[:1], c0[:1]))
    short = layer(inputs[:2, 1:], None, (h0[1:], c0[1:]))
    for state in (0, 1):
        assert_close(packed[state][[0, 2, 4, 5]], long[state][:, 0])
        assert_close(packed[state][[1, 3]], short[state][:, 0])


@every_layer
def test_recurrent_products_take_the_dtype_of_the_hidden_state(kind):
    layer, table = make_layer(kind).float(), normal(6, 3).float()
    symbols = torch.tensor([[0, 5], [3, 3]])
    state = (torch.zeros(2, 4, dtype=torch.bfloat16), torch.zeros(2, 4))
    h, c, gates = layer.forward_with_gates(table, symbols, state)
    assert (h.dtype, c.dtype, gates.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    (h.float().sum() + c.sum()).backward()
    for parameter in layer.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@every_layer
def test_starts_with_orthogonal_recurrence_and_open_forget_gates(kind):
    layer = make_layer(kind, 9, 5)
    blocks = [*layer.wh.split(5), *([layer.wmh] if kind is MLSTMLayer else [])]
    for block in blocks:
        torch.testing.assert_close(block @ block.T, torch.eye(5).double(), rtol=0, atol=1e-6)
    assert layer.gate_bias().tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10
    for name in set(layer.matrices) & {"wx", "wmx"}:
        assert 0 < getattr(layer, name).abs().max() <= 1 / 3


@every_layer
def test_a_generator_decides_the_parameters(kind):
    def values(seed):
        return torch.nn.utils.parameters_to_vector(make_layer(kind, seed=seed).parameters())

    torch.rand(1)  # the global generator has no say
    assert torch.equal(values(7), values(7))
    assert not torch.equal(values(7), values(8))


@every_layer
def test_weight_norm_keeps_the_matrices_and_frees_the_length_of_each_row(kind):
    layer = make_layer(kind)
    before = {name: getattr(layer, name).detach().clone() for name in layer.matrices}
    layer.normalise_weights()
    names = {name.split(".")[1] for name, _ in layer.named_parameters() if "." in name}
    assert names == set(layer.matrices)
    for name in layer.matrices:
        assert_close(getattr(layer, name), before[name])
        lengths = getattr(layer.parametrizations, name).original0
        assert_close(lengths, before[name].norm(dim=1, keepdim=True))
        lengths.data[0] *= 2
        assert_close(getattr(layer, name)[0], 2 * before[name][0])
        assert_close(getattr(layer, name)[1:], before[name][1:])


@every_layer
def test_input_matrices_are_drawn_evenly_about_zero_up_to_their_bound(kind):
    layer = make_layer(kind, 100, 60)
    for name in set(layer.matrices) & {"wx", "wmx"}:
        matrix = getattr(layer, name)
        found = [matrix.min().item(), matrix.mean().item(), matrix.max().item()]
        assert found == pytest.approx([-0.1, 0, 0.1], abs=0.005)


@every_layer
def test_int8_products_read_the_rounded_matrices(kind):
    layer, inputs = make_layer(kind, hidden_size=32).float(), normal(6, 3).float()
    state = tuple(x.float() for x in make_state(hidden_size=32))
    args = (inputs, None, [2, 2, 1, 1], state)
    full = layer.forward_packed(*args)
    layer.round_to_int8()
    with torch.no_grad():
        layer.wh.zero_()
    rounded = layer.forward_packed(*args)
    for a, b in zip(full, rounded, strict=True):
        assert not torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=0, atol=0.05)


@every_layer
def test_its_backend_is_asked_for_each_run(kind, monkeypatch):
    asked = []
    for name in ("mlstm", "mlstm_packed", "mlstm_packed_int8"):
        monkeypatch.setattr(ops, name, lambda *_, backend=None: asked.append(backend) or [None] * 3)
    layer, inputs, state = make_layer(kind).float(), normal(2, 2, 3).float(), make_state()
    layer.backend = "torch"
    layer.forward_with_gates(inputs, None, state)
    layer.forward_packed(inputs[0], None, [2], state)
    layer.round_to_int8()
    layer.forward_packed(inputs[0], None, [2], state)
    assert asked == ["torch"] * 3
