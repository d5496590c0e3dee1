"""Pictures of what a language model's neurons do."""

from .heatmap import plot_heatmap
from .heatmap_display import HeatmapDisplay

__all__ = ["HeatmapDisplay", "plot_heatmap"]
