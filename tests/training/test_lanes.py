import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skdiscovery import TextCorpus
from skdiscovery.training import Lanes, stream
from skdiscovery.training import lanes as lanes_module
from skdiscovery.training.lanes import NOT_A_TARGET

PERSIST_STATES = ["document", "shard", "always"]
SEED = (3, 1)


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
    assume(sum(lengths) >= max(batch_size, seq_length))
    corpus = corpus_of_distinct_bytes(lengths)
    return Lanes(corpus, batch_size, seq_length, draw(st.sampled_from(PERSIST_STATES)))


small_shards = pytest.mark.parametrize("shard_bytes", [25, 10**6])
few_at_once = pytest.mark.parametrize("bytes_read_at_once", [1, 20, 10**6])


@pytest.fixture(autouse=True)
def sizes(request, monkeypatch):
    """Cut small corpora into several shards, and epochs into several reads, where asked to."""
    if "shard_bytes" in request.fixturenames:
        monkeypatch.setattr(stream, "SHARD_BYTES", request.getfixturevalue("shard_bytes"))
    if "bytes_read_at_once" in request.fixturenames:
        size = request.getfixturevalue("bytes_read_at_once")
        monkeypatch.setattr(lanes_module, "BYTES_READ_AT_ONCE", size)


@small_shards
@few_at_once
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(lanes=lanes_over_distinct_bytes())
def test_each_byte_is_a_target_exactly_once_an_epoch(lanes, shard_bytes, bytes_read_at_once):
    batches = list(lanes.epoch(SEED))
    inputs, targets = in_lanes(batches, "inputs"), in_lanes(batches, "targets")

    is_target = targets != NOT_A_TARGET
    stream = targets[is_target]
    assert sorted(stream) == list(range(lanes.corpus.n_bytes))
    assert [batch.n_bytes for batch in batches] == [
        int((batch.targets != NOT_A_TARGET).sum()) for batch in batches
    ]
    # A target is the byte after its input, and the lanes follow each other in a circle.
    np.testing.assert_array_equal(inputs[is_target], np.roll(stream, 1))
    is_short = ~is_target[:, -1]
    if is_short.any():  # such a lane reads one byte more than it needs, the next of the circle
        np.testing.assert_array_equal(inputs[is_short, -1], targets[is_short, -2])


@small_shards
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(lanes=lanes_over_distinct_bytes())
def test_documents_are_whole_and_those_of_a_shard_stay_together(lanes, shard_bytes):
    batches = list(lanes.epoch(SEED))
    targets = in_lanes(batches, "targets")
    rest = bytes(targets[targets != NOT_A_TARGET].tolist())

    documents = {document[0]: document for document in lanes.corpus if document}
    order = []
    while rest:
        order.append(rest[0])
        assert rest.startswith(documents[rest[0]])
        rest = rest[len(documents[rest[0]]) :]
    # A shard ends with the first document that ends beyond a multiple of its size.
    shard_of, n_bytes = {}, 0
    for start, document in documents.items():
        shard_of[start] = (n_bytes - 1) // shard_bytes if n_bytes else -1
        n_bytes += len(document)
    shards = [max(shard_of[start], 0) for start in order]
    assert len([k for k, (a, b) in enumerate(pairwise(shards)) if a != b]) == len(set(shards)) - 1


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(lanes_over_distinct_bytes(), st.integers(1, 40))
def test_batches_are_of_nearly_equal_length(lanes, seq_length):
    seq_length = min(seq_length, lanes.n_bytes)
    lanes = Lanes(lanes.corpus, lanes.batch_size, seq_length, "shard")
    batches = list(lanes.epoch(SEED))
    lengths = [len(batch.inputs) for batch in batches]

    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) == lanes.seq_length <= seq_length
    assert len(batches) == lanes.n_batches
    assert sum(batch.n_bytes for batch in batches) == lanes.n_bytes == lanes.corpus.n_bytes
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape == batch.keep.shape
        assert batch.inputs.shape[1] == lanes.batch_size
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64


@small_shards
@few_at_once
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(lanes=lanes_over_distinct_bytes())
def test_the_state_is_reset_where_persist_state_says(lanes, shard_bytes, bytes_read_at_once):
    batches = list(lanes.epoch(SEED))
    inputs, targets, keep = (in_lanes(batches, name) for name in ("inputs", "targets", "keep"))

    expected = np.ones(keep.shape)
    starts = [document[0] for document in lanes.corpus if document]
    if lanes.persist_state != "always":
        expected[:, 0] = 0
    if lanes.persist_state == "document":
        expected[np.isin(inputs, starts)] = 0
    if lanes.persist_state == "shard":
        shard_ends = np.searchsorted(
            lanes.corpus.offsets, np.arange(shard_bytes, lanes.n_bytes, shard_bytes)
        )
        edges = {0, *lanes.corpus.offsets[shard_ends].tolist()}
        # The documents of a shard are shuffled: its first is the one after another shard's.
        stream = targets[targets != NOT_A_TARGET].tolist()
        shard_of = np.searchsorted(sorted(edges), stream, side="right").tolist()
        firsts = [
            byte
            for byte, shard, before in zip(
                stream, shard_of, [shard_of[-1], *shard_of], strict=False
            )
            if shard != before
        ] or stream[:1]
        expected[np.isin(inputs, [*firsts, stream[0]])] = 0
    np.testing.assert_array_equal(keep, expected)


@few_at_once
def test_an_epoch_can_be_begun_at_any_batch(bytes_read_at_once):
    lanes = Lanes(corpus_of_distinct_bytes([9, 30, 1, 25]), 3, 4, "document")
    batches = list(lanes.epoch(SEED))
    for first in range(len(batches) + 1):
        rest = list(lanes.epoch(SEED, first))
        assert len(rest) == len(batches) - first
        for batch, other in zip(rest, batches[first:], strict=True):
            assert torch.equal(batch.inputs, other.inputs)
            assert torch.equal(batch.targets, other.targets)
            assert torch.equal(batch.keep, other.keep)
            assert batch.n_bytes == other.n_bytes


def test_ranks_read_their_own_lanes_and_count_all_targets():
    lanes = Lanes(corpus_of_distinct_bytes([9, 30, 1, 25]), 4, 5, "document")
    everyone = list(lanes.epoch(SEED))
    for chosen in (slice(0, 1), slice(1, 4)):
        for batch, whole in zip(lanes.epoch(SEED, 0, chosen), everyone, strict=True):
            part = whole.of_lanes(chosen)
            assert torch.equal(batch.inputs, part.inputs)
            assert torch.equal(batch.targets, part.targets)
            assert torch.equal(batch.keep, part.keep)
            assert batch.n_bytes == whole.n_bytes


@pytest.mark.parametrize(("seq_length", "expected"), [(-1, 20), (-2, 10), (-3, 6)])
def test_a_negative_length_is_a_number_of_sequences(seq_length, expected):
    corpus = TextCorpus.from_documents(
        [b"\n ab ", b"\n cdef ", b"\n g ", b"\n hi "], preprocessor=None
    )
    assert corpus.n_bytes == 21
    lanes = Lanes(corpus, 1, seq_length, "shard")
    assert lanes.n_batches == Lanes(corpus, 1, expected, "shard").n_batches
    assert max(len(batch.inputs) for batch in lanes.epoch(SEED)) <= expected


def epoch_bytes(lanes, seed):
    return in_lanes(list(lanes.epoch(seed)), "inputs").tolist()


def test_a_seed_fixes_the_order_which_changes_from_epoch_to_epoch():
    lanes = Lanes(corpus_of_distinct_bytes([10] * 12), 3, 8, "shard")
    epochs = [epoch_bytes(lanes, (3, epoch)) for epoch in range(3)]

    assert epochs == [epoch_bytes(lanes, (3, epoch)) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != epoch_bytes(lanes, (4, 0))


def test_shards_are_shuffled_and_so_are_their_documents(monkeypatch):
    monkeypatch.setattr(stream, "SHARD_BYTES", 40)
    lanes = Lanes(corpus_of_distinct_bytes([10] * 12), 1, 120, "shard")
    shards, firsts = set(), set()
    for epoch in range(20):
        documents = np.array(epoch_bytes(lanes, (0, epoch)))[0, 1::10] // 10
        shards.add(tuple(documents[::4] // 4))
        firsts.add(tuple(documents[:4] % 4))
    assert len(shards) == 6
    assert len(firsts) > 10


def test_an_epoch_leaves_global_generators_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    epoch_bytes(Lanes(corpus_of_distinct_bytes([20, 20]), 2, 8, "shard"), SEED)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("n_bytes", "batch_size", "seq_length", "needed"),
    [(0, 1, 1, 1), (9, 10, 4, 10), (9, 2, 10, 10), (2, 3, -1, 3)],
)
def test_a_corpus_that_is_too_short_is_refused_with_its_numbers(
    n_bytes, batch_size, seq_length, needed
):
    corpus = TextCorpus.from_documents([b"x" * n_bytes], preprocessor=None)
    message = (
        f"{n_bytes} bytes in 1 documents, but batch_size={batch_size} and "
        f"seq_length={max(seq_length, 1)} need at least {needed}"
    )
    with pytest.raises(ValueError, match=message):
        Lanes(corpus, batch_size, seq_length, "shard")


def test_a_corpus_just_long_enough_is_one_batch():
    corpus = TextCorpus.from_documents([bytes(range(10))], preprocessor=None)
    (batch,) = Lanes(corpus, 2, 10, "always").epoch(SEED)
    assert batch.inputs.T.tolist() == [[9, 0, 1, 2, 3], [4, 5, 6, 7, 8]]
    assert batch.targets.T.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_one_lane_is_read_without_a_warning():
    corpus = corpus_of_distinct_bytes([10])
    warned = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch says a thing once in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            list(Lanes(corpus, 1, 5, "shard").epoch(SEED))
    finally:
        torch.set_warn_always(warned)


def test_a_batch_moves_with_its_mask_in_another_dtype():
    lanes = Lanes(corpus_of_distinct_bytes([5, 6]), 2, 3, "document")
    batch = next(lanes.epoch(SEED)).of_lanes(slice(1))  # which counts the targets of both
    moved = batch.to(torch.device("cpu"), torch.bfloat16)
    assert moved.keep.dtype == torch.bfloat16
    assert torch.equal(moved.keep.float(), batch.keep)
    assert torch.equal(moved.inputs, batch.inputs)
    assert moved.n_bytes == batch.n_bytes
