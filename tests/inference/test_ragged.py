import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.inference import ragged
from skdiscovery.inference.ragged import length_sorted_batches, read
from skdiscovery.nn import Architecture, ByteLanguageModel

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, database=None)
ROW_BYTES = 6 * 8  # a state of the model in float64

falling_lengths = st.lists(st.integers(0, 30), max_size=8).map(lambda x: sorted(x, reverse=True))


@SETTINGS
@given(lengths=falling_lengths, max_state_bytes=st.integers(0, 3000), seed=st.integers(0, 99))
def test_every_byte_is_read_once_from_the_state_that_belongs_to_it(
    model, reference, make_documents, lengths, max_state_bytes, seed
):
    documents = make_documents(lengths, seed)
    expected = [reference.read(document) for document in documents]
    seen = []
    for chunk in read(model, documents, torch.float64, max_state_bytes=max_state_bytes):
        ranks, steps = chunk.places()
        places = list(zip(ranks.tolist(), steps.tolist(), strict=True))
        seen += places
        assert chunk.symbols.tolist() == [documents[rank][step] for rank, step in places]
        for row, (rank, step) in enumerate(places):
            hidden, cell, logits = expected[rank]
            for k, (h, c) in enumerate(chunk.traces):
                np.testing.assert_allclose(h[row], hidden[k, step], atol=1e-12)
                np.testing.assert_allclose(c[row], cell[k, step], atol=1e-12)
            read_out = model.logits(chunk.top[row]).detach()
            np.testing.assert_allclose(read_out, logits[step], atol=1e-12)
    assert sorted(seen) == [(rank, step) for rank, n in enumerate(lengths) for step in range(n)]


@SETTINGS
@given(lengths=falling_lengths, max_state_bytes=st.integers(0, 3000))
def test_chunks_keep_to_their_memory_and_follow_each_other(
    model, make_documents, lengths, max_state_bytes
):
    next_step = 0
    documents = make_documents(lengths)
    for chunk in read(model, documents, torch.float64, max_state_bytes=max_state_bytes):
        assert chunk.first_step == next_step
        next_step += len(chunk.batch_sizes)
        one_step = len(documents) * ROW_BYTES
        assert len(chunk.symbols) * ROW_BYTES <= max(max_state_bytes, one_step)
    assert next_step == max(lengths, default=0)


@SETTINGS
@given(lengths=falling_lengths, max_state_bytes=st.integers(0, 3000))
def test_blocks_are_the_rows_by_step_and_document(model, make_documents, lengths, max_state_bytes):
    documents = make_documents(lengths)
    for chunk in read(model, documents, torch.float64, max_state_bytes=max_state_bytes):
        blocks = list(chunk.blocks(chunk.top))
        assert torch.equal(torch.cat([block.flatten(0, 1) for block in blocks]), chunk.top)
        sizes = [size for block in blocks for size in [block.shape[1]] * block.shape[0]]
        assert sizes == list(chunk.batch_sizes)


@SETTINGS
@given(lengths=st.lists(st.integers(0, 100), max_size=30), batch_bytes=st.integers(1, 300))
def test_batches_hold_every_document_once_longest_first(lengths, batch_bytes):
    batches = list(length_sorted_batches(lengths, torch.device("cpu"), batch_bytes))
    order = np.concatenate([[], *batches]).astype(int)
    assert sorted(order) == list(range(len(lengths)))
    in_order = [lengths[i] for i in order]
    assert in_order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) > 0
        assert sum(lengths[i] for i in batch) < batch_bytes + max(lengths) + 1


def test_batches_of_short_documents_are_of_so_many_at_most():
    batches = length_sorted_batches([3] * 1300, torch.device("cpu"))
    assert [len(batch) for batch in batches] == [512, 512, 276]


def test_a_gpu_takes_more_documents_and_more_text():
    gpu = torch.device("cuda")
    assert [len(batch) for batch in length_sorted_batches([3] * 9000, gpu)] == [8192, 808]
    assert [len(batch) for batch in length_sorted_batches([2**16] * 20, gpu)] == [16, 4]


def test_a_long_document_does_not_multiply_the_memory_of_its_neighbours(model, make_documents):
    documents = make_documents([200_000] + [10] * 200)
    tracemalloc.start()
    next(read(model, documents, torch.float64, max_state_bytes=100_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000  # a table of 200,000 steps by 201 documents takes ten times that


def test_a_model_in_training_is_read_without_dropout(make_documents):
    model = ByteLanguageModel(Architecture(6, 4, 2), dropout=0.9)
    model.initialise(torch.Generator().manual_seed(0)).train()
    documents = make_documents([5, 3])
    one, other = (next(read(model, documents, torch.float32)).top for _ in range(2))
    assert torch.equal(one, other)
    assert one.ne(0).all()


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot flush")
def test_states_too_small_for_normal_numbers_are_zero():
    model = ByteLanguageModel(Architecture(6, 4))
    for name, parameter in model.named_parameters():
        torch.nn.init.constant_(parameter, 1e-39 if name.endswith("bias") else 0)
    (chunk,) = read(model, [b"ab"], torch.float32)
    assert not chunk.traces[0][1].any()


def test_a_device_of_another_kind_has_the_limits_of_a_cpu():
    for device in ("mps", "cpu"):
        batches = length_sorted_batches([3] * 1300, torch.device(device))
        assert [len(batch) for batch in batches] == [512, 512, 276]


def test_batches_are_of_a_quarter_megabyte_unless_told():
    batches = length_sorted_batches([2**14] * 40, torch.device("cpu"))
    assert [len(batch) for batch in batches] == [16, 16, 8]


def test_chunks_have_so_many_steps_at_least(make_documents, monkeypatch, model):
    monkeypatch.setitem(ragged.MAX_STATE_BYTES, "cpu", 1)
    chunks = list(read(model, make_documents([40, 40]), torch.float64))
    assert [len(chunk.batch_sizes) for chunk in chunks] == [16, 16, 8]


def test_chunks_grow_as_documents_end(model, make_documents):
    documents = make_documents([40] + [2] * 3)
    chunks = read(model, documents, torch.float64, max_state_bytes=8 * ROW_BYTES)
    assert [len(chunk.batch_sizes) for chunk in chunks] == [2, 2, 8, 8, 8, 8, 4]


def test_memory_is_that_of_the_wider_of_two_states(float32_model, make_documents):
    documents = make_documents([8] * 4)
    chunks = read(float32_model, documents, torch.bfloat16, max_state_bytes=6 * 4 * 4 * 2)
    assert [len(chunk.batch_sizes) for chunk in chunks] == [2, 2, 2, 2]
