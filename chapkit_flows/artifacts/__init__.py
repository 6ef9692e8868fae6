"""Bytes: a content-addressed store, folders and values in it, and the manifests beside them."""
