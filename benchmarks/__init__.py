"""What it costs and what it gives, beside its peers in the same run."""
