"""The steps of a flow as Prefect tasks: retries, timeouts, names, progress and artifacts. No logic of their own."""
