"""How good a model is on rows that no model was trained on."""
