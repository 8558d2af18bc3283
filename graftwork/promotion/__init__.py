"""Whether a model may serve, and the record of those that did."""
