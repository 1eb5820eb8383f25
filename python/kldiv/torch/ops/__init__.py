"""Operators registered with `torch.library`, one file each."""
