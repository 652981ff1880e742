"""Catalog of pretrained weights, download, cache, integrity, and maps between parameter names."""
