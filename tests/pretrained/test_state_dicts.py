import math
import os
import re

import numpy as np
import pytest
import torch
from torch import nn

from skdiscovery.nn import Architecture
from skdiscovery.nn.weights import model_from_weights
from skdiscovery.pretrained.state_dicts import import_state_dict

TEXT = b"\n Great movie! "


def save(state, path):
    torch.save(state, path)
    return path


def make(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) / 2 for name, shape in shapes.items()}


def later_state(hidden=5, embedding=3, n_symbols=256, cell="mlstm", n_layers=1):
    """A state dict in the names of apex's RNN, flat."""
    shapes = {"encoder.weight": (n_symbols, embedding)}
    for k in range(n_layers):
        layer, n_inputs = f"rnn.rnns.{k}", hidden if k else embedding
        shapes |= {f"{layer}.w_ih": (4 * hidden, n_inputs), f"{layer}.w_hh": (4 * hidden, hidden)}
        shapes |= {f"{layer}.b_ih": (4 * hidden,), f"{layer}.b_hh": (4 * hidden,)}
        if cell == "mlstm":
            shapes |= {f"{layer}.w_mih": (hidden, n_inputs), f"{layer}.w_mhh": (hidden, hidden)}
    return make(shapes | {"decoder.weight": (n_symbols, hidden), "decoder.bias": (n_symbols,)})


def nested(state):
    """The same, in the dictionaries that sentiment-discovery saves."""
    parts = {"encoder": {}, "rnn": {}, "decoder": {}}
    for name, tensor in state.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    return {
        "encoder": {"encoder": parts["encoder"], "rnn": parts["rnn"]},
        "decoder": parts["decoder"],
    }


def normed(state, *suffixes):
    """Replace matrices by their rows' directions, of any length, and lengths."""
    state = dict(state)
    for name in [name for name in state if name.endswith(suffixes)]:
        matrix = state.pop(name)
        state[f"{name}_g"] = matrix.norm(dim=1, keepdim=True)
        state[f"{name}_v"] = matrix * torch.arange(1, len(matrix) + 1)[:, None]
    return state


@torch.no_grad()
def read(imported):
    """Return the cells of the last layer after each byte, and the mean loss."""
    model = model_from_weights(imported.weights, Architecture.from_config(imported.config)).double()
    symbols = torch.tensor(list(TEXT))[:, None]
    states, cells, losses = model.zero_state(1, torch.float64), [], []
    for symbol, target in zip(symbols, [*symbols[1:, 0], None], strict=True):
        top, states = model(symbol[None], states)
        cells.append(states[-1][1][0].numpy())
        if target is not None:
            losses.append(nn.functional.cross_entropy(model.logits(top)[0, 0], target).item())
    return np.array(cells), math.fsum(losses) / len(losses)


@torch.no_grad()
def read_with_torch(step, embedding, head_weight, head_bias, hidden_size):
    """Do as :func:`read` with a step of torch's own LSTM: (x, (h, c)) -> (h, c)."""
    h = c = torch.zeros(1, hidden_size)
    cells, losses = [], []
    for byte, target in zip(TEXT, [*TEXT[1:], None], strict=True):
        h, c = step(embedding[byte][None], (h, c))
        cells.append(c[0].numpy())
        if target is not None:
            logits = (h @ head_weight.T + head_bias)[0]
            losses.append(nn.functional.cross_entropy(logits, torch.tensor(target)).item())
    return np.array(cells), math.fsum(losses) / len(losses)


def assert_reads_as(imported, expected):
    cells, loss = read(imported)
    np.testing.assert_allclose(cells, expected[0], atol=1e-6)
    assert loss == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize(
    ("n_layers", "cells", "loss"),
    [
        (1, [-0.37429519, -0.13830014, 0.23334929, 0.32918005], 5.69090876),
        (2, [0.25920777, -0.0651011, -0.27919361, -0.54559885], 5.6719895),
    ],
)
def test_v0_gives_the_values_of_its_own_code(tmp_path, toy_state_dict, n_layers, cells, loss):
    imported = import_state_dict(save(toy_state_dict(n_layers), tmp_path / "e0.pt"))
    actual_cells, actual_loss = read(imported)
    np.testing.assert_allclose(actual_cells[-1], cells, atol=2e-7)
    assert actual_loss == pytest.approx(loss, abs=2e-7)
    assert imported.system == "sentiment-discovery v0"
    assert imported.config == {
        "hidden_size": 4, "embedding_size": 3, "n_layers": n_layers, "cell": "mlstm",
        "preprocessor": "nvidia", "n_steps": 0, "n_bytes_seen": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "suffixes",
    [("wx.weight", "wh.weight", "wmx.weight", "wmh.weight"), ("x.weight", "h2o.weight")],
    ids=["layers", "some and the head"],
)
def test_weight_norm_is_folded_in(tmp_path, toy_state_dict, assert_same_weights, suffixes):
    state = toy_state_dict(2)
    folded = import_state_dict(save(state, tmp_path / "folded.pt"))
    state = normed(state, *suffixes)
    assert any(name.endswith("_g") for name in state)
    assert_same_weights(
        import_state_dict(save(state, tmp_path / "normed.pt")).weights, folded.weights, rtol=1e-6
    )


def test_an_lstm_of_v0_is_torchs_lstm_cell(tmp_path):
    torch.manual_seed(0)
    cell, embedding, head = nn.LSTMCell(3, 5), nn.Embedding(256, 3), nn.Linear(5, 256)
    state = {f"rnn.layers.0.{name}": tensor for name, tensor in cell.state_dict().items()}
    state |= {"embedder.weight": embedding.weight, "rnn.h2o.weight": head.weight}
    state["rnn.h2o.bias"] = head.bias

    imported = import_state_dict(save(state, tmp_path / "model.pt"))

    assert imported.config["cell"] == "lstm"
    expected = read_with_torch(cell, embedding.weight, head.weight, head.bias, 5)
    assert_reads_as(imported, expected)


def later_step(state):
    """Return the step of apex's RNN, as torch computes it."""
    w_ih, w_hh, b_ih, b_hh = (state[f"rnn.rnns.0.{n}"] for n in ("w_ih", "w_hh", "b_ih", "b_hh"))

    def step(x, states):
        h, c = states
        if "rnn.rnns.0.w_mih" in state:
            h = (x @ state["rnn.rnns.0.w_mih"].T) * (h @ state["rnn.rnns.0.w_mhh"].T)
        return torch.lstm_cell(x, (h, c), w_ih, w_hh, b_ih, b_hh)

    return step


@pytest.mark.parametrize("form", [nested, dict], ids=["nested", "flat"])
@pytest.mark.parametrize("cell", ["mlstm", "lstm"])
def test_later_versions_have_torchs_gates_and_two_biases(tmp_path, cell, form):
    state = later_state(cell=cell)
    imported = import_state_dict(save(form(state), tmp_path / "lang_model.pt"))
    assert imported.system == "sentiment-discovery v0.2 or later"
    assert (imported.config["cell"], imported.config["preprocessor"]) == (cell, "nvidia")
    head = state["decoder.weight"], state["decoder.bias"]
    assert_reads_as(imported, read_with_torch(later_step(state), state["encoder.weight"], *head, 5))


def test_weight_norm_of_later_versions_is_folded_in(tmp_path, assert_same_weights):
    folded = import_state_dict(save(nested(later_state()), tmp_path / "folded.pt"))
    state = nested(normed(later_state(), ".w_ih", ".w_hh", ".w_mih", ".w_mhh"))
    imported = import_state_dict(save(state, tmp_path / "normed.pt"))
    assert_same_weights(imported.weights, folded.weights, rtol=1e-6)


def test_the_padding_symbol_of_the_last_versions_is_dropped(tmp_path):
    state = later_state(n_symbols=257)
    imported = import_state_dict(save(nested(state), tmp_path / "model.pt"))
    assert imported.weights["embedding"].shape == (256, 3)
    expected = read_with_torch(
        later_step(state),
        state["encoder.weight"][1:],
        state["decoder.weight"][1:],
        state["decoder.bias"][1:],
        5,
    )
    assert_reads_as(imported, expected)


def test_v0_never_pads(tmp_path, toy_state_dict):
    state = toy_state_dict()
    for name in ("embedder.weight", "rnn.h2o.weight", "rnn.h2o.bias"):
        state[name] = torch.cat([state[name], state[name][:1]])
    assert_refused(
        save(state, tmp_path / "m.pt"), r"embedder\.weight: expected \(256, 3\), got \(257"
    )


def test_an_mlstm_of_v02_has_the_gates_of_v0(tmp_path, toy_state_dict, assert_same_weights):
    v0 = toy_state_dict()
    names = {"w_ih": "wx.weight", "w_hh": "wh.weight", "w_mih": "wmx.weight"}
    names |= {"w_mhh": "wmh.weight", "b_ih": "wh.bias"}
    state = {f"rnn.rnns.0.{new}": v0[f"rnn.layers.0.{old}"] for new, old in names.items()}
    state |= {"rnn.rnns.0.b_hh": torch.zeros(16), "encoder.weight": v0["embedder.weight"]}
    state |= {f"decoder.{part}": v0[f"rnn.h2o.{part}"] for part in ("weight", "bias")}
    path = save(nested(state), tmp_path / "v02.pt")

    as_v0 = import_state_dict(path, gates="ifou").weights

    expected = import_state_dict(save(v0, tmp_path / "v0.pt")).weights
    assert_same_weights(as_v0, expected)
    as_later = import_state_dict(path).weights
    for name in ("wx", "wh", "bias"):
        i, f, o, u = np.split(expected[f"layers.0.{name}"], 4)
        np.testing.assert_array_equal(as_later[f"layers.0.{name}"], np.concatenate([i, f, u, o]))


def test_the_port_is_v0_under_other_names(tmp_path, toy_state_dict, assert_same_weights):
    v0 = toy_state_dict(2)
    rnn = {
        name.removeprefix("rnn.").replace("layers.", "layer_"): tensor
        for name, tensor in v0.items()
        if name.startswith("rnn.")
    }
    state = {"embed": {"weight": v0["embedder.weight"]}, "rnn": rnn}
    imported = import_state_dict(save(state, tmp_path / "mlstm_ns.pt"))
    assert (imported.system, imported.config["preprocessor"]) == (
        "pytorch-sentiment-neuron", "openai"
    )  # fmt: skip
    expected = import_state_dict(save(v0, tmp_path / "v0.pt")).weights
    assert_same_weights(imported.weights, expected)


@pytest.mark.parametrize(("hidden", "embedding"), [(1, 1), (3, 7), (128, 64)])
@pytest.mark.parametrize("cell", ["mlstm", "lstm"])
def test_a_model_of_any_size_is_read(tmp_path, hidden, embedding, cell):
    state = later_state(hidden, embedding, cell=cell)
    config = import_state_dict(save(state, tmp_path / "model.pt")).config
    assert Architecture.from_config(config) == Architecture(hidden, embedding, 1, cell)


# What is refused


def assert_refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        import_state_dict(path)
    assert os.fspath(path) in str(caught.value)


def test_later_versions_of_several_layers_are_refused(tmp_path):
    path = save(nested(later_state(n_layers=2)), tmp_path / "model.pt")
    assert_refused(path, "has 2 layers of sentiment-discovery v0.2 or later.*models of one layer")


def test_missing_and_other_tensors_are_named(tmp_path, toy_state_dict):
    state = toy_state_dict(2)
    del state["rnn.layers.1.wmh.weight"], state["embedder.weight"]
    state["rnn.layers.0.extra"] = torch.zeros(3)
    assert_refused(
        save(state, tmp_path / "model.pt"),
        r"language model of sentiment-discovery v0: missing embedder\.weight, "
        r"rnn\.layers\.1\.wmh\.weight; unexpected rnn\.layers\.0\.extra\.",
    )


def test_a_classifier_made_from_a_model_is_refused(tmp_path):
    state = nested(later_state())
    del state["decoder"]
    state["classifier"] = {"weight": torch.zeros(1, 5), "bias": torch.zeros(1)}
    assert_refused(
        save(state, tmp_path / "classifier.pt"),
        r"not a whole language model.*missing decoder\.bias, decoder\.weight; unexpected class",
    )


@pytest.mark.parametrize("shape", [(16, 4), (15, 3), (3, 16), (48,), ()])
def test_a_tensor_of_another_shape_is_named(tmp_path, toy_state_dict, shape):
    state = toy_state_dict(2) | {"rnn.layers.0.wmx.weight": torch.zeros(shape)}
    assert_refused(
        save(state, tmp_path / "model.pt"),
        rf"rnn\.layers\.0\.wmx\.weight: expected \(4, 3\), got \({str(shape)[1:-1]}\)\.$",
    )


@pytest.mark.parametrize("name", ["rnn.layers.0.wh.bias", "rnn.layers.0.wx.weight"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 2)])
def test_what_tells_the_sizes_may_have_any_shape(tmp_path, toy_state_dict, name, shape):
    state = toy_state_dict() | {name: torch.zeros(shape)}
    assert_refused(save(state, tmp_path / "model.pt"), "do not fit each other")


def test_lengths_that_do_not_fit_their_directions_are_named(tmp_path, toy_state_dict):
    state = normed(toy_state_dict(), "wmh.weight")
    n_rows = len(state["rnn.layers.0.wmh.weight_v"])
    for shape in ((1, 4), (n_rows,), (n_rows, 2)):
        state["rnn.layers.0.wmh.weight_g"] = torch.ones(shape)
        assert_refused(
            save(state, tmp_path / "m.pt"),
            rf"wmh\.weight_g of shape \(n, 1\), got .*{re.escape(str(shape))}",
        )


def test_directions_without_lengths_are_named(tmp_path, toy_state_dict):
    state = normed(toy_state_dict(), "wmh.weight")
    del state["rnn.layers.0.wmh.weight_g"]
    assert_refused(
        save(state, tmp_path / "m.pt"), r"missing .*wmh\.weight; unexpected .*weight_v\."
    )


def test_a_vocabulary_of_words_is_refused(tmp_path):
    path = save(nested(later_state(n_symbols=300)), tmp_path / "model.pt")
    assert_refused(path, r"the 256 bytes.*encoder\.weight: expected \(256, 3\), got \(300, 3\)")


def test_a_gru_is_refused(tmp_path):
    state = later_state(cell="lstm")
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        state[f"rnn.rnns.0.{name}"] = state[f"rnn.rnns.0.{name}"][:15]
    assert_refused(save(nested(state), tmp_path / "model.pt"), r"w_hh: expected .*got \(15, 5\)")


def test_a_weight_that_is_no_finite_number_is_refused(tmp_path, toy_state_dict):
    state = toy_state_dict()
    state["rnn.h2o.bias"][3] = torch.nan
    assert_refused(save(state, tmp_path / "model.pt"), r"head\.bias.*training had diverged")


@pytest.mark.parametrize(
    "state", [{}, {"lm_head.weight": torch.zeros(3)}, [1, 2], {"state_dict": {}}]
)
def test_a_file_of_another_model_is_refused(tmp_path, state):
    assert_refused(
        save(state, tmp_path / "model.pt"), "not of a language model.*sentiment-discovery"
    )
