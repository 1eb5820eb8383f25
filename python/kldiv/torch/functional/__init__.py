"""Losses on tensors, one file a family."""
