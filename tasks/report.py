"""The report as a task."""

from prefect import task


@task
def publish_report(*args):
    return None
