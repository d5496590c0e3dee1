import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.inference.sampling import _draw, sample

PROMPT = b"\n Once"
HELD = {4: 3.0, 1: -2.5}


def trace(model, prompts, *, dtype=torch.float64, seed=0, **changes):
    options = {"n_bytes": 3, "n_samples": 1, "temperature": 0.0, "top_k": None, "overwrite": {}}
    options |= {"overwrite_state": "hidden", "layer": 1, "traced": [], "end": None} | changes
    options["traced"] = np.array(options["traced"], dtype=np.int64)
    return sample(model, prompts, dtype, generator=torch.Generator().manual_seed(seed), **options)


def write(model, prompt=PROMPT, **options):
    return [written.text_bytes for written in trace(model, [prompt], **options)]


def logits_after(reference, prompt, held=(), held_state="hidden", layer=1):
    """Return the logits after a prompt, the neurons held on its last byte, and the states."""
    states = reference.zero_state()
    for byte in prompt[:-1]:
        _, states = reference.step(byte, states)
    return reference.step(prompt[-1], states, held, held_state, layer)


def greedy(reference, prompt, n_bytes, held=(), held_state="hidden", layer=1):
    logits, states = logits_after(reference, prompt, held, held_state, layer)
    written = [logits.argmax()]
    while len(written) < n_bytes:
        logits, states = reference.step(written[-1], states, held, held_state, layer)
        written.append(logits.argmax())
    return prompt + bytes(map(int, written))


def replayed(reference, text, n_read, held, held_state, layer, neurons):
    """Return hidden and cell state of neurons after each byte, held from byte ``n_read`` on."""
    states, rows = reference.zero_state(), []
    for position, byte in enumerate(text):
        held_now = held if position >= n_read - 1 else ()
        _, states = reference.step(byte, states, held_now, held_state, layer)
        rows.append([values[neurons] for values in states[layer]])
    return np.array(rows).reshape(len(text), 2, len(neurons)).transpose(1, 0, 2)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 1}])
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(prompt=st.binary(min_size=1, max_size=8))
def test_the_likeliest_byte_after_the_other(model, reference, options, prompt):
    assert write(model, prompt, n_bytes=6, **options) == [greedy(reference, prompt, 6)]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("state", ["hidden", "cell"])
@pytest.mark.parametrize("prompt", [PROMPT, b"\n"])
def test_held_neurons_are_felt_from_the_first_byte_on(model, reference, prompt, state, layer):
    expected = greedy(reference, prompt, 3, HELD, state, layer)
    free = greedy(reference, prompt, 3)
    assert expected[len(prompt)] != free[len(prompt)]
    held = {"overwrite": HELD, "overwrite_state": state, "layer": layer}
    assert write(model, prompt, **held) == [expected]
    assert write(model, prompt, n_samples=3, **held) == [expected] * 3
    assert write(model, prompt) == [free]


@pytest.mark.parametrize("state", ["hidden", "cell"])
def test_bytes_are_drawn_as_the_model_says(model, reference, state):
    n_samples = 20_000
    options = {"n_bytes": 1, "n_samples": n_samples, "temperature": 2.0}
    texts = write(model, overwrite=HELD, overwrite_state=state, **options)
    counts = np.bincount([text[-1] for text in texts], minlength=256)
    logits, _ = logits_after(reference, PROMPT, HELD, state)
    expected = np.exp(logits / 2)
    expected /= expected.sum()
    # Five standard deviations for each byte.
    deviation = np.sqrt(n_samples * expected * (1 - expected))
    assert (np.abs(counts - n_samples * expected) <= 5 * deviation + 1).all()


def test_top_k_draws_among_the_likeliest_only(model, reference):
    texts = write(model, n_bytes=1, n_samples=500, temperature=5.0, top_k=4)
    logits, _ = logits_after(reference, PROMPT)
    assert {text[-1] for text in texts} == set(logits.argsort()[-4:].tolist())


def test_low_temperatures_approach_the_likeliest(model):
    assert write(model, n_bytes=5, temperature=1e-6) == write(model, n_bytes=5)


@pytest.mark.parametrize("temperature", [1e-45, 1e-300, 5e-324])
def test_no_temperature_is_too_low(model, temperature):
    assert write(model, n_bytes=5, temperature=temperature) == write(model, n_bytes=5)


def test_a_seed_decides_the_text(model):
    options = {"n_bytes": 20, "n_samples": 3, "temperature": 3.0}
    assert write(model, seed=1, **options) == write(model, seed=1, **options)
    assert write(model, seed=1, **options) != write(model, seed=2, **options)
    assert len(set(write(model, seed=1, **options))) == 3


def test_no_bytes_asked_none_written(model):
    assert write(model, n_bytes=0, n_samples=2) == [PROMPT, PROMPT]


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(prompts=st.lists(st.binary(min_size=1, max_size=8), max_size=4))
def test_every_prompt_goes_on_as_it_would_alone(model, prompts):
    written = [write(model, prompt)[0] for prompt in prompts]
    twice = [text for text in written for _ in range(2)]
    assert [text for text, *_ in trace(model, prompts, n_samples=2)] == twice


def test_samples_of_a_prompt_differ_and_prompts_keep_their_order(model):
    prompts = [b"a longer prompt", b"\n", b"short"]
    traces = trace(model, prompts, n_bytes=20, n_samples=3, temperature=3.0)
    assert [text[:-20] for text, *_ in traces] == [p for p in prompts for _ in range(3)]
    assert len({text[-20:] for text, *_ in traces}) == 9


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("state", ["hidden", "cell"])
@pytest.mark.parametrize("n_bytes", [0, 4])
def test_traces_are_the_states_after_each_byte(model, reference, state, layer, n_bytes):
    held = {"overwrite": HELD, "overwrite_state": state, "layer": layer}
    options = {"n_bytes": n_bytes, "n_samples": 2, "temperature": 2.0, "traced": [1, 5]}
    prompts = [PROMPT, b"\n", b"another one"]
    traces = trace(model, prompts, **held, **options)
    for i, (text, hidden, cell) in enumerate(traces):
        prompt = prompts[i // 2]
        assert text.startswith(prompt)
        assert len(text) == len(prompt) + n_bytes
        expected = replayed(reference, text, len(prompt), HELD, state, layer, [1, 5])
        np.testing.assert_allclose([hidden, cell], expected, atol=1e-6)
        assert hidden.dtype == cell.dtype == np.float32
        of_held_state = hidden if state == "hidden" else cell
        np.testing.assert_array_equal(of_held_state[len(prompt) - 1 :, 0], np.float32(HELD[1]))


def test_without_neurons_to_trace_there_are_no_values(model):
    (found,) = trace(model, [PROMPT])
    assert found.hidden.shape == found.cell.shape == (len(found.text_bytes), 0)


def test_a_text_ends_before_the_byte_that_ends_it(model):
    options = {"n_bytes": 60, "n_samples": 40, "temperature": 4.0, "traced": [0]}
    prompts = [b"a \n in a prompt ends nothing", b"\n"]
    whole = trace(model, prompts, **options)
    cut = trace(model, prompts, end=ord("\n"), **options)
    for i, (long, short) in enumerate(zip(whole, cut, strict=True)):
        n = len(prompts[i // 40])
        assert short.text_bytes == long.text_bytes[:n] + long.text_bytes[n:].partition(b"\n")[0]
        assert len(short.hidden) == len(short.cell) == len(short.text_bytes)
        np.testing.assert_array_equal(short.cell, long.cell[: len(short.cell)])
    assert len({len(short.text_bytes) for short in cut}) > 2


def test_writing_stops_soon_after_all_texts_have_ended(model, reference, monkeypatch):
    end = greedy(reference, PROMPT, 3)[-1]
    steps = []
    head = model.head.forward
    monkeypatch.setattr(model.head, "forward", lambda rows: steps.append(1) or head(rows))
    text = write(model, n_bytes=1000, end=end)[0]
    assert len(text) - len(PROMPT) + 1 <= 3
    assert len(steps) <= 16


def test_a_prompt_longer_than_a_chunk(model, reference, monkeypatch):
    monkeypatch.setattr("skdiscovery.inference.ragged.read.__kwdefaults__", {"max_state_bytes": 99})
    prompts = [np.random.default_rng(n).bytes(n) for n in (50, 300, 1)]
    for prompt, found in zip(prompts, trace(model, prompts, traced=[3]), strict=True):
        assert found.text_bytes == greedy(reference, prompt, 3)
        expected = replayed(reference, found.text_bytes, len(prompt), (), "hidden", 1, [3])
        np.testing.assert_allclose([found.hidden, found.cell], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", ["hidden", "cell"])
@pytest.mark.parametrize("layer", [0, 1])
def test_no_value_is_too_large_to_go_on(float32_model, dtype, state, layer):
    options = {"overwrite": {3: 1e30, 4: -1e30}, "overwrite_state": state, "layer": layer}
    (found,) = trace(
        float32_model, [PROMPT], n_bytes=9, temperature=1.0, traced=range(6), dtype=dtype, **options
    )
    assert np.isfinite(found.hidden).all()
    assert np.isfinite(found.cell).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", ["hidden", "cell"])
def test_narrow_precisions_write_too(float32_model, dtype, state):
    held = {"overwrite": {np.int64(4): 1, 1: math.pi}, "overwrite_state": state}
    (text,) = write(float32_model, n_bytes=4, dtype=dtype, temperature=1.0, **held)
    assert len(text) == len(PROMPT) + 4


def test_the_last_of_all_draws_is_a_byte():
    logits = torch.randn(50, 256, generator=torch.Generator().manual_seed(0))
    uniforms = torch.full((50,), 1 - 2.0**-53, dtype=torch.float64)
    assert _draw(logits, 1.0, None, uniforms).max() < 256


def test_bytes_less_likely_than_float32_can_tell_are_drawn():
    logits = torch.full((1, 256), -torch.inf)
    logits[0, :3] = torch.tensor([0.0, -20.0, -20.0])
    uniforms = torch.tensor([1 - 1e-9], dtype=torch.float64)
    assert _draw(logits, 1.0, None, uniforms).tolist() == [2]


def test_the_first_of_all_draws_is_a_byte_that_can_be():
    logits = torch.full((1, 256), -torch.inf)
    logits[0, 7:9] = 0
    assert _draw(logits, 1.0, None, torch.zeros(1, dtype=torch.float64)).tolist() == [7]
