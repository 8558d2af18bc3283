"""What a stage learnt that tells what comes next, as something to listen to."""

from pathlib import Path

from graftwork.errors import Problem, RecipeError, TrainingError
from graftwork.export import check_new
from graftwork.recipe import Recipe
from graftwork.workspace import Workspace


def generate_sound(
    workspace: Workspace,
    recipe: Recipe,
    stage: str,
    output: Path,
    *,
    seconds: float = 1.0,
    seed: int = 0,
    temperature: float = 1.0,
) -> int:
    """Write a new WAV file of what an autoregressive stage of the recipe's run says; the number of samples.

    stage: its name. temperature: 0 takes the likeliest sample always, 1 draws each as often as it is expected. The same
    seed writes the same file. Raises RecipeError for another stage, or a file that is there, TrainingError if it has
    not been trained.
    """
    import torch
    from safetensors.torch import load_file

    from graftwork.checkpoints.retrieve import open_checkpoint, retrieve_checkpoint
    from graftwork.data.manifest import validate_data
    from graftwork.models.autoregressive import make_sample_head
    from graftwork.models.catalog import families_for
    from graftwork.models.generation import generate, write_wav
    from graftwork.models.serving.config import WEIGHTS
    from graftwork.models.text import load_pretrained
    from graftwork.training.bundle import OBJECTIVE
    from graftwork.training.engine import serving_config
    from graftwork.training.plan import plan_training

    check_new(output)
    if recipe.input.modality != "audio":
        raise RecipeError(
            Problem("what it learnt from is not sounds", str(recipe.path), "only these can be listened to")
        )
    manifest = validate_data(recipe, workspace)
    lock = retrieve_checkpoint(recipe, workspace, families_for(recipe.input.modality))
    checkpoint = open_checkpoint(workspace.store, lock)
    plan = plan_training(recipe, manifest, lock, checkpoint, cache_bytes=workspace.settings.cache_bytes)
    wanted = next((each for each in plan.stages if each.name == stage), None)
    if wanted is None or wanted.autoregression is None:
        found = f"no stage {stage!r}" if wanted is None else f"stage {stage!r} did not learn what comes next"
        names = ", ".join(each.name for each in plan.stages if each.autoregression is not None)
        raise RecipeError(Problem(found, str(recipe.path), f"those that did: {names or 'none'}"))
    folder = workspace.store.open(wanted.key)
    if folder is None or plan.sound is None:
        raise TrainingError(Problem(f"stage {stage!r} is not trained yet", str(recipe.path), "`graftwork run` does it"))
    model = load_pretrained(checkpoint, serving_config(plan), seed=plan.seed)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    head = make_sample_head(model)
    head.load_state_dict(load_file(folder / OBJECTIVE), strict=True)
    with torch.inference_mode():
        samples = generate(model.body.eval(), head.eval(), seconds, plan.sound.rate, seed, temperature)
    write_wav(output, samples, plan.sound.rate)
    return len(samples)
