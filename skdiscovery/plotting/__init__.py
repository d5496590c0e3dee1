"""Pictures of what a language model's neurons do."""

from skdiscovery.plotting.heatmap import plot_heatmap
from skdiscovery.plotting.heatmap_display import HeatmapDisplay

__all__ = ["HeatmapDisplay", "plot_heatmap"]
