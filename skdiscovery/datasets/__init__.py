"""Labelled reviews: a small set that ships, SST-2 and IMDB."""

from skdiscovery.datasets._imdb import fetch_imdb
from skdiscovery.datasets._reviews import load_reviews
from skdiscovery.datasets._sst2 import fetch_sst2

__all__ = ["fetch_imdb", "fetch_sst2", "load_reviews"]
