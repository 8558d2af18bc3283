"""Takes the pictures in docs/pictures/ again: the demo's run on servers, in Chromium. From the repository's root:

    PYTHONPATH=tests/support .venv/bin/python docs/take_pictures.py

What `make demo` has trained before is reused. Needs Debian's `chromium` (or its path in CHROMIUM).
"""

import json
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from browser import picture
from projects import RECIPE, ROOT
from servers import call, commands, environment_for, free_port, serving

PICTURES = ROOT / "docs/pictures"
COLOURS = 128  # of a picture's palette: a quarter of the size, and nobody sees it


def main() -> None:
    """Run the recipe on a Prefect server and an MLflow server, and take a picture of each page and of the report."""
    document = commands(ROOT / "docs/server.md")
    prefect, mlflow = free_port(), free_port()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as servers:
        folder = Path(temporary)
        for heading, port, said in (("The Prefect server", prefect, "4200"), ("The MLflow server", mlflow, "5000")):
            script = document[heading].replace(said, str(port))
            health = f"http://localhost:{port}/{'api/' if port == prefect else ''}health"
            place = folder / heading
            servers.enter_context(serving(script, place, environment_for(PREFECT_HOME=str(place)), health))
        settings = {
            "PREFECT_API_URL": f"http://localhost:{prefect}/api",
            "MLFLOW_TRACKING_URI": f"http://localhost:{mlflow}",
            "GRAFTWORK_HOME": str(folder / "home"),
            "GRAFTWORK_STORE": str(ROOT / ".graftwork/store"),
            "PREFECT_HOME": str(folder / "user"),
        }
        done = call(f"graftwork run {RECIPE} --json", ROOT, environment_for(**settings))
        summary = json.loads(done.stdout)
        run = f"http://localhost:{prefect}/runs/flow-run/{_newest_run(settings['PREFECT_API_URL'])}"
        version = f"http://localhost:{mlflow}/#/models/{summary['model']}/versions/{summary['version']}"
        take("prefect", run, (1400, 1000))
        take("mlflow", version, (1800, 1000), crop=(0, 0, 1338, 1000))
        take("report", Path(summary["report"]).as_uri(), (1000, 1400))


def take(name: str, url: str, size: tuple[int, int], crop: tuple[int, int, int, int] | None = None) -> None:
    """A picture of the page in a window of that size, cut out and with few colours."""
    PICTURES.mkdir(exist_ok=True)
    image = picture(url, size).crop(crop or (0, 0, *size))
    image.quantize(COLOURS).save(PICTURES / f"{name}.png", optimize=True)


def _newest_run(api: str) -> str:
    body = json.dumps({"sort": "START_TIME_DESC", "limit": 1}).encode()
    request = urllib.request.Request(f"{api}/flow_runs/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)[0]["id"]


if __name__ == "__main__":
    main()
