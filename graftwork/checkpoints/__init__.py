"""Pretrained checkpoints: named, pinned, checked, and kept in the store."""
