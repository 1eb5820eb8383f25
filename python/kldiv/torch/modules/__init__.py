"""Losses as modules, one file each."""
