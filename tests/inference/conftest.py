"""A small model, and documents for it."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import folded_weights, model_from_weights


@pytest.fixture(scope="package", params=["mlstm", "lstm"])
def weights(request):
    architecture = Architecture(6, 4, 2, request.param)
    model = ByteLanguageModel(architecture).initialise(torch.Generator().manual_seed(0))
    weights = folded_weights(model)
    weights["head.weight"] *= 8  # opinions about what comes next
    return weights


@pytest.fixture(scope="package")
def model(weights):
    """The model in float64, of two layers and six neurons."""
    cell = "mlstm" if "layers.0.wmh" in weights else "lstm"
    return model_from_weights(weights, Architecture(6, 4, 2, cell)).double()


@pytest.fixture(scope="package")
def float32_model(model):
    return deepcopy(model).float()


@pytest.fixture(scope="package")
def reference(weights, numpy_model):
    return numpy_model(weights)


@pytest.fixture(scope="session")
def make_documents():
    """Random bytes of given lengths."""

    def make(lengths, seed=0):
        rng = np.random.default_rng(seed)
        return [rng.bytes(length) for length in lengths]

    return make
