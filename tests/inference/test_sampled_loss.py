import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.inference import encoding, ragged, sampled_loss
from skdiscovery.inference.sampled_loss import SampledLoss

SETTINGS = settings(max_examples=20, deadline=None, derandomize=True, database=None)


def read(model, documents, batch_bytes=10**6, max_state_bytes=2**24):
    """Read the documents for their features, and return the loss that was sampled meanwhile."""
    loss = SampledLoss(sum(map(len, documents)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "read", partial(ragged.read, max_state_bytes=max_state_bytes))
        encoding.features(
            model,
            documents,
            torch.float64,
            poolings=["last"],
            neurons=np.arange(6),
            batch_bytes=batch_bytes,
            loss=loss,
        )
    return loss


@SETTINGS
@given(
    lengths=st.lists(st.integers(0, 30), max_size=8).filter(lambda some: max(some, default=0) > 1),
    batch_bytes=st.sampled_from([1, 40, 10**6]),
    max_state_bytes=st.sampled_from([1, 500, 2**24]),
)
def test_of_little_text_every_prediction_counts(
    model, make_documents, lengths, batch_bytes, max_state_bytes
):
    documents = make_documents(lengths)
    loss = read(model, documents, batch_bytes, max_state_bytes)
    assert loss.n_predicted == sum(max(0, length - 1) for length in lengths)
    nats = encoding.nats_per_byte(model, documents, torch.float64)
    assert loss.bits_per_byte() * math.log(2) == pytest.approx(nats)


@pytest.mark.parametrize("max_state_bytes", [1, 700, 2**24])
def test_of_much_text_predictions_at_equal_distances_count(
    model, reference, make_documents, monkeypatch, max_state_bytes
):
    monkeypatch.setattr(sampled_loss, "N_SAMPLED", 20)
    documents = make_documents([50, 49, 20, 7, 3, 1])  # 130 bytes: every 7th
    loss = read(model, documents, max_state_bytes=max_state_bytes)
    logits = [reference.read(document)[2] for document in documents]
    places = [(d, t) for t in range(50) for d in range(6) if t < len(documents[d])][::7]
    nats = [
        np.log(np.exp(logits[d][t]).sum()) - logits[d][t, documents[d][t + 1]]
        for d, t in places
        if t + 1 < len(documents[d])
    ]
    assert loss.n_predicted == len(nats) < len(places)
    assert loss.bits_per_byte() == pytest.approx(np.mean(nats) / math.log(2))


def test_documents_of_one_byte_have_nothing_to_predict(model, make_documents):
    assert read(model, make_documents([1, 1, 0])).n_predicted == 0
