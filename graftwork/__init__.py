"""Graftwork: fine-tuning pipelines that a team can leave alone."""
