import pytest
import torch

from skdiscovery import ops

N_STEPS, N_SEQUENCES, HIDDEN, N_SYMBOLS = 5, 3, 4, 7


@pytest.fixture
def given():
    return {
        "x": torch.zeros(N_SYMBOLS, 4 * HIDDEN),
        "mx": torch.zeros(N_SYMBOLS, HIDDEN),
        "symbols": torch.zeros(N_STEPS, N_SEQUENCES, dtype=torch.int64),
        "wh": torch.zeros(4 * HIDDEN, HIDDEN),
        "wmh": torch.zeros(HIDDEN, HIDDEN),
        "h0": torch.zeros(N_SEQUENCES, HIDDEN),
        "c0": torch.zeros(N_SEQUENCES, HIDDEN),
        "keep": torch.ones(N_STEPS, N_SEQUENCES),
    }


NAMES = ["x", "mx", "symbols", "wh", "wmh", "h0", "c0", "keep"]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_shape_is_named(given, name):
    given[name] = given[name][..., :-1]
    with pytest.raises(ValueError, match=r"Expected \w+ of shape \(.*\), got \(.*\)\.") as raised:
        ops.mlstm(**given)
    if name != "wh":  # whose width says how many units there are
        assert f"Expected {name} of shape" in str(raised.value)
        assert f"got {tuple(given[name].shape)}" in str(raised.value)


@pytest.mark.parametrize("name", NAMES[1:-1])
def test_a_wrong_dtype_is_named(given, name):
    given[name] = given[name].to(torch.float16)
    with pytest.raises(ValueError, match=rf"Expected {name} of dtype .*, got torch.float16\."):
        ops.mlstm(**given)


@pytest.mark.parametrize("name", NAMES[1:])
def test_another_device_is_named(given, name):
    given[name] = given[name].to("meta")
    with pytest.raises(ValueError, match=rf"Expected {name} on device cpu, got meta\."):
        ops.mlstm(**given)


def test_mx_goes_with_wmh(given):
    given["wmh"] = None
    with pytest.raises(ValueError, match="Expected both mx and wmh or neither, got mx without"):
        ops.mlstm(**given)
    given |= {"mx": None, "wmh": torch.zeros(HIDDEN, HIDDEN)}
    with pytest.raises(ValueError, match="Expected both mx and wmh or neither, got wmh without"):
        ops.mlstm(**given)


def test_no_steps_are_refused(given):
    given["symbols"] = given["symbols"][:0]
    with pytest.raises(ValueError, match="Expected one step or more, got none"):
        ops.mlstm(**given)


def test_no_units_are_refused():
    with pytest.raises(ValueError, match=r"Expected one unit or more, got none in wh of shape"):
        ops.mlstm(torch.zeros(5, 3, 0), None, None, torch.zeros(0, 0), None, *torch.zeros(2, 3, 0))


@pytest.mark.parametrize("batch_sizes", [[], [1, 2], [2, 1, 0], [-1]])
def test_batch_sizes_fall(given, batch_sizes):
    del given["keep"]
    given["symbols"] = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="Expected batch_sizes to be positive and falling, got "):
        ops.mlstm_packed(**given, batch_sizes=batch_sizes)


def test_batch_sizes_sum_to_the_rows(given):
    del given["keep"]
    given["symbols"] = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"Expected symbols of shape \(5,\), got \(6,\)\."):
        ops.mlstm_packed(**given, batch_sizes=[3, 2])
