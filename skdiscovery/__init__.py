"""Unsupervised sentiment discovery with byte-level language models, for scikit-learn."""

from skdiscovery.classifier import SentimentNeuronClassifier
from skdiscovery.featurizer import MLSTMFeaturizer
from skdiscovery.inference.streaming import transform_to_npy
from skdiscovery.language_model import ByteMLSTMLanguageModel
from skdiscovery.plotting import (
    HeatmapDisplay,
    LearningCurveDisplay,
    NeuronHistogramDisplay,
    NeuronWeightsDisplay,
    plot_heatmap,
)
from skdiscovery.text import TextCorpus
from skdiscovery.versions import show_versions

__version__ = "0.1.0"

__all__ = [
    "ByteMLSTMLanguageModel",
    "HeatmapDisplay",
    "LearningCurveDisplay",
    "MLSTMFeaturizer",
    "NeuronHistogramDisplay",
    "NeuronWeightsDisplay",
    "SentimentNeuronClassifier",
    "TextCorpus",
    "__version__",
    "plot_heatmap",
    "show_versions",
    "transform_to_npy",
]
