"""Text to bytes: preprocessing, checked documents, and byte corpora."""

from skdiscovery.text.corpus import TextCorpus
from skdiscovery.text.documents import encode_documents
from skdiscovery.text.preprocessing import get_preprocessor

__all__ = ["TextCorpus", "encode_documents", "get_preprocessor"]
