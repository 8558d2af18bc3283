"""What is learnt of a row: one of several classes, any number of them, or a number."""
