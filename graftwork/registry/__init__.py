"""MLflow: where runs are logged, models registered, and aliases kept. The only place that imports it."""
