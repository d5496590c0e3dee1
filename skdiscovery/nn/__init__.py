"""The byte language model as a torch module: tensors in, tensors out."""

from skdiscovery.nn.cells import LSTMLayer, MLSTMLayer, State
from skdiscovery.nn.model import Architecture, ByteLanguageModel

__all__ = ["Architecture", "ByteLanguageModel", "LSTMLayer", "MLSTMLayer", "State"]
