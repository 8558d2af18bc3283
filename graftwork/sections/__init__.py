"""Sections of a recipe, as pydantic models: what may be said, and what can't be meant."""
