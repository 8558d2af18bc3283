"""Plans, stages and the one training loop, in a process of its own."""
