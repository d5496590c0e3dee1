"""Pictures of what a language model's neurons do, and of how it learned."""

from skdiscovery.plotting.extremes import extreme_texts
from skdiscovery.plotting.heatmap import plot_heatmap
from skdiscovery.plotting.heatmap_display import HeatmapDisplay
from skdiscovery.plotting.learning_curve import LearningCurveDisplay
from skdiscovery.plotting.neuron_browser import neuron_browser_html
from skdiscovery.plotting.neuron_histogram import NeuronHistogramDisplay
from skdiscovery.plotting.neuron_weights import NeuronWeightsDisplay

__all__ = [
    "HeatmapDisplay",
    "LearningCurveDisplay",
    "NeuronHistogramDisplay",
    "NeuronWeightsDisplay",
    "extreme_texts",
    "neuron_browser_html",
    "plot_heatmap",
]
