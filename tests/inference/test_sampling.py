import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.inference.sampling import sample

PROMPT = b"\n Once"
HELD = {4: 3.0, 1: -2.5}


def write(model, prompt=PROMPT, *, dtype=torch.float64, seed=0, **changes):
    options = {"n_bytes": 3, "n_samples": 1, "temperature": 0.0, "top_k": None}
    options |= {"overwrite": {}, "overwrite_state": "hidden"} | changes
    return sample(model, prompt, dtype, generator=torch.Generator().manual_seed(seed), **options)


def logits_after(reference, prompt, held=(), held_state="hidden"):
    """Return the logits after a prompt, the neurons held on its last byte, and the states."""
    states = reference.zero_state()
    for byte in prompt[:-1]:
        _, states = reference.step(byte, states)
    return reference.step(prompt[-1], states, held, held_state)


def greedy(reference, prompt, n_bytes, held=(), held_state="hidden"):
    logits, states = logits_after(reference, prompt, held, held_state)
    written = [logits.argmax()]
    while len(written) < n_bytes:
        logits, states = reference.step(written[-1], states, held, held_state)
        written.append(logits.argmax())
    return prompt + bytes(map(int, written))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 1}])
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(prompt=st.binary(min_size=1, max_size=8))
def test_the_likeliest_byte_after_the_other(model, reference, options, prompt):
    assert write(model, prompt, n_bytes=6, **options) == [greedy(reference, prompt, 6)]


@pytest.mark.parametrize("state", ["hidden", "cell"])
@pytest.mark.parametrize("prompt", [PROMPT, b"\n"])
def test_held_neurons_are_felt_from_the_first_byte_on(model, reference, prompt, state):
    expected = greedy(reference, prompt, 3, HELD, state)
    free = greedy(reference, prompt, 3)
    assert expected[len(prompt)] != free[len(prompt)]
    held = {"overwrite": HELD, "overwrite_state": state}
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", ["hidden", "cell"])
def test_narrow_precisions_write_too(float32_model, dtype, state):
    held = {"overwrite": {np.int64(4): 1, 1: math.pi}, "overwrite_state": state}
    (text,) = write(float32_model, n_bytes=4, dtype=dtype, temperature=1.0, **held)
    assert len(text) == len(PROMPT) + 4
