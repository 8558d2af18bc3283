"""Architectures, the classifier built on them, and the code that serves it."""
