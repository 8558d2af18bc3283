"""What Graftwork is measured by, each figure beside its peer's: `python -m benchmarks`. README.md says how."""
