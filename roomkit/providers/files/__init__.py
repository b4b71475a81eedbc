"""Media in plain files beside the rooms."""

from roomkit.providers.files.blobs import FileBlobStore

__all__ = ["FileBlobStore"]
