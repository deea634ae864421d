"""Keeps blobs, seeds them, writes them back."""
