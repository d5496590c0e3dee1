import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skdiscovery import TextCorpus
from skdiscovery.training import Lanes

PERSIST_STATES = ["document", "shard", "always"]


def corpus_of_distinct_bytes(lengths):
    """Return a corpus in which a byte tells its document and its place in it."""
    edges = np.cumsum([0, *lengths])
    data = bytes(range(edges[-1]))
    return TextCorpus.from_documents([data[a:b] for a, b in pairwise(edges)], preprocessor=None)


def in_lanes(batches, field):
    """Return what the batches of an epoch say of each lane, of shape (n_lanes, n_bytes)."""
    return torch.cat([getattr(batch, field) for batch in batches]).T.numpy()


@st.composite
def lanes_over_distinct_bytes(draw):
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    batch_size, seq_length = draw(st.integers(1, 7)), draw(st.integers(1, 40))
    assume(sum(lengths) > max(batch_size, seq_length))
    corpus = corpus_of_distinct_bytes(lengths)
    return Lanes(corpus, batch_size, seq_length, draw(st.sampled_from(PERSIST_STATES)))


def random_state():
    return np.random.RandomState(3)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(lanes_over_distinct_bytes())
def test_an_epoch_predicts_each_byte_of_the_stream_once(lanes):
    batches = list(lanes.epoch(random_state()))
    inputs, targets = in_lanes(batches, "inputs"), in_lanes(batches, "targets")

    # The lanes follow each other without a gap, and a target is the byte after its input.
    stream = [*inputs.ravel(), targets[-1, -1]]
    np.testing.assert_array_equal(targets.ravel(), stream[1:])
    # The stream is documents end to end, each of them whole but for what is left out at the end.
    documents = {document[0]: document for document in lanes.corpus if document}
    rebuilt = b""
    while len(rebuilt) < len(stream):
        rebuilt += documents.pop(stream[len(rebuilt)])
    assert rebuilt[: len(stream)] == bytes(stream)
    assert 0 <= lanes.corpus.n_bytes - len(stream) < lanes.batch_size


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(lanes_over_distinct_bytes(), st.integers(1, 40))
def test_batches_are_of_nearly_equal_length(lanes, seq_length):
    lanes = Lanes(lanes.corpus, lanes.batch_size, min(seq_length, lanes.lane_length), "shard")
    batches = list(lanes.epoch(random_state()))
    lengths = [len(batch.inputs) for batch in batches]

    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= min(seq_length, lanes.lane_length)
    assert len(batches) == lanes.n_batches
    assert lanes.n_bytes == sum(batch.n_bytes for batch in batches)
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape == batch.keep.shape
        assert batch.inputs.shape[1] == lanes.batch_size
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(lanes_over_distinct_bytes())
def test_the_state_is_reset_where_persist_state_says(lanes):
    batches = list(lanes.epoch(random_state()))
    inputs, keep = in_lanes(batches, "inputs"), in_lanes(batches, "keep")

    expected = np.ones(keep.shape)
    if lanes.persist_state != "always":
        expected[:, 0] = 0
    if lanes.persist_state == "document":
        starts = [document[0] for document in lanes.corpus if document]
        expected[np.isin(inputs, starts)] = 0
    np.testing.assert_array_equal(keep, expected)


def epoch_bytes(lanes, random_state):
    return in_lanes(list(lanes.epoch(random_state)), "inputs").tolist()


def test_a_seed_fixes_the_order_which_changes_from_epoch_to_epoch():
    lanes = Lanes(corpus_of_distinct_bytes([10] * 12), 3, 8, "shard")
    first, again = random_state(), random_state()

    epochs = [epoch_bytes(lanes, first) for _ in range(3)]

    assert epochs == [epoch_bytes(lanes, again) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != epoch_bytes(lanes, np.random.RandomState(4))


def test_an_epoch_leaves_global_generators_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    epoch_bytes(Lanes(corpus_of_distinct_bytes([20, 20]), 2, 8, "shard"), random_state())
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("n_bytes", "batch_size", "seq_length", "needed"),
    [(0, 1, 1, 2), (1, 1, 1, 2), (10, 10, 4, 11), (10, 2, 10, 11)],
)
def test_a_corpus_that_is_too_short_is_refused_with_its_numbers(
    n_bytes, batch_size, seq_length, needed
):
    corpus = TextCorpus.from_documents([b"x" * n_bytes], preprocessor=None)
    message = (
        f"{n_bytes} bytes in 1 documents, but batch_size={batch_size} and "
        f"seq_length={seq_length} need at least {needed}"
    )
    with pytest.raises(ValueError, match=message):
        Lanes(corpus, batch_size, seq_length, "shard")


def test_a_corpus_just_long_enough_is_one_batch():
    corpus = TextCorpus.from_documents([bytes(range(11))], preprocessor=None)
    (batch,) = Lanes(corpus, 2, 10, "always").epoch(random_state())
    assert batch.inputs.T.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert batch.targets.T.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


def test_one_lane_is_read_without_a_warning():
    corpus = corpus_of_distinct_bytes([10])
    warned = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch says a thing once in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            list(Lanes(corpus, 1, 5, "shard").epoch(random_state()))
    finally:
        torch.set_warn_always(warned)


def test_a_batch_moves_with_its_mask_in_another_dtype():
    lanes = Lanes(corpus_of_distinct_bytes([5, 6]), 2, 3, "document")
    batch = next(lanes.epoch(random_state()))
    moved = batch.to(torch.device("cpu"), torch.bfloat16)
    assert moved.keep.dtype == torch.bfloat16
    assert torch.equal(moved.keep.float(), batch.keep)
    assert torch.equal(moved.inputs, batch.inputs)
