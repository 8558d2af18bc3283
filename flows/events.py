"""Events that we tell the Prefect server."""

import uuid
from datetime import UTC, datetime

from prefect.client.orchestration import get_client

from graftwork.data.handover import HandedIn

LANDED = "graftwork.data.landed"


def tell_landed(handed_in: HandedIn) -> None:
    """That a file was handed in: an automation then looks at it at once."""
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": LANDED,
        "resource": {
            "prefect.resource.id": f"graftwork.recipe.{handed_in.model}",
            "prefect.resource.name": handed_in.model,
        },
        "payload": {"recipe": handed_in.recipe, "file": handed_in.path.name, "sha256": handed_in.sha256},
    }
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event])
