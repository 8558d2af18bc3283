"""Scenarios of docs/scenarios.md, measured on real reviews beside what one would do without them."""
