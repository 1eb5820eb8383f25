"""What is printed, and what others printed, read back."""
