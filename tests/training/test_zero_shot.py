"""A head that is made of texts: what it tells before it learns, what stages make of it, and what is refused."""

import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import RECIPE, facts, resolve_run, train_until, train_with_stops, write_image_project, write_pair

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.errors import CheckpointError, RecipeError
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import evaluate
from graftwork.models.export import export_onnx
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import WEIGHTS
from graftwork.models.serving.inference import infer
from graftwork.models.serving.model import load
from graftwork.models.serving.text import TextEncoder
from graftwork.models.tower_files import find_tower_problems
from graftwork.models.towers import TextTower
from graftwork.recipe import load_recipe
from graftwork.registry.contenders import candidate
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL
from graftwork.training.engine import encoder_of, load_model
from graftwork.training.plan import ResolvedRun, model_facts, plan_run
from graftwork.workspace import Workspace

PROMPTS = ("head.prompts=['a long {}', 'the new {}']", "head.names={'no': dark film, 'yes': bright plot}")
TEXTS = ("a long dark film", "a long bright plot", "the new dark film", "the new bright plot")
ONE_STAGE = "stages=[{name: head, train: head, epochs: 2, learning_rate: 1e-3}]"


@pytest.fixture(params=["clip", "siglip"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Pictures of stripes, and a checkpoint of two towers."""
    write_pair(tmp_path / "checkpoint", request.param)
    write_image_project(tmp_path, tmp_path / "checkpoint")
    return tmp_path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(Settings(home=tmp_path / "home"))


def untrained(run: ResolvedRun, workspace: Workspace) -> Classifier:
    """The model that its first stage begins with."""
    return load_model(run.plan, open_checkpoint(workspace.store, run.lock), workspace.store, [])


def some_pictures(project: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((project / "pictures").rglob("*.png"))[::40]]


def test_it_tells_what_transformers_own_model_tells(project: Path, workspace: Workspace) -> None:
    """Its logits for each picture and one prompt a class: scale, bias, padding and all."""
    import transformers

    run = resolve_run(project, workspace, "head.prompts=a long {}", PROMPTS[1])
    model, encoder = untrained(run, workspace), encoder_of(run.plan, project / "checkpoint")
    pictures = some_pictures(project)
    found = infer(model, model.forward, encoder, encoder.encode(pictures))
    theirs = transformers.AutoModel.from_pretrained(project / "checkpoint").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(project / "checkpoint")
    texts = tokenizer(list(TEXTS[:2]), return_tensors="pt", padding="max_length", max_length=16)
    if theirs.config.model_type == "siglip":
        del texts["attention_mask"]  # as its own processor gives none
    scans = [np.asarray(Image.open(BytesIO(each)).convert("RGB")) for each in pictures]
    pixels = torch.from_numpy(np.stack(scans)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels, **texts).logits_per_image
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-3


def test_padding_is_that_of_the_tokenizer(tmp_path: Path) -> None:
    """Whatever config.json says of it, or does not: of SigLIP 2 it says nothing, and transformers fills in SigLIP's."""
    import transformers

    write_pair(tmp_path, "siglip")
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["pad_token_id"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    tower = TextTower(tmp_path)
    encoder = TextEncoder(tmp_path, tower.most_tokens)
    found = infer(tower.texts, tower.texts.features, encoder, encoder.encode(TEXTS))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(list(TEXTS), padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    assert (ids[:, -1] == 0).all()
    with torch.inference_mode():
        states = transformers.AutoModel.from_pretrained(tmp_path).eval().get_text_features(input_ids=ids)
    torch.testing.assert_close(found, getattr(states, "pooler_output", states), rtol=1e-5, atol=1e-6)


def test_of_several_prompts_the_mean_is_taken(project: Path, workspace: Workspace) -> None:
    """Of their states as directions, as the model's authors do."""
    import transformers

    run = resolve_run(project, workspace, *PROMPTS)
    head = untrained(run, workspace).head[-1]
    theirs = transformers.AutoModel.from_pretrained(project / "checkpoint").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(project / "checkpoint")
    ids = tokenizer(list(TEXTS), padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = theirs.get_text_features(input_ids=ids)
        states = torch.nn.functional.normalize(getattr(states, "pooler_output", states), dim=1)
    means = torch.nn.functional.normalize(
        torch.stack([(states[0] + states[2]) / 2, (states[1] + states[3]) / 2]), dim=1
    )
    torch.testing.assert_close(head.weight.detach(), means, rtol=1e-5, atol=1e-6)


def test_training_begins_there_and_is_resumed_exactly(project: Path, workspace: Workspace, tmp_path: Path) -> None:
    """A single stage of the head, then one of all; the parameters are those that were planned."""
    broken = Workspace.open(Settings(home=tmp_path / "broken"))
    stages = f"{ONE_STAGE.removesuffix(']')}, {{name: full, train: all, epochs: 1, learning_rate: 1e-4}}]"
    run = resolve_run(project, workspace, *PROMPTS, stages)
    model = untrained(run, workspace)
    assert run.plan.stages[0].trainable == sum(p.numel() for p in model.head.parameters())
    bundle = train_until(run, workspace)
    after = load_file(workspace.store.root / bundle.stages[0].key / WEIGHTS)
    before = model.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name].cpu())}
    assert moved == {"head.1.weight", "head.1.scale"}
    assert torch.nn.functional.cosine_similarity(after["head.1.weight"], before["head.1.weight"].cpu()).min() > 0.9
    again = resolve_run(project, broken, *PROMPTS, stages)
    assert facts(train_with_stops(again, broken, 7)) == facts(bundle)


def test_it_is_served_and_exported_and_stands_beside_what_it_was(project: Path, workspace: Workspace) -> None:
    """The graph normalises, too; the untrained model is a baseline, to the digit."""
    run = resolve_run(project, workspace, *PROMPTS, ONE_STAGE)
    bundle = train_until(run, workspace)
    folder = workspace.store.root / bundle.key / MODEL
    served = load(folder, "cpu")
    pictures = some_pictures(project)
    assert export_onnx(served, pictures, project / "model.onnx") < 1e-5
    assert served.probabilities(pictures).sum(1) == pytest.approx(1)
    plan = run.plan
    encoder = FrozenEncoder(
        run.lock.key, plan.pooling, plan.max_tokens, plan.precision, pixels=plan.pixels, prompts=plan.prompts
    )
    names = run.evaluation.baselines
    assert names == ("majority", "frozen-head", "zero-shot")
    told = evaluate(
        workspace.store, candidate(workspace, bundle), {}, run.manifest, encoder=encoder, baselines=names, samples=50
    )
    model = untrained(run, workspace)
    kept = encoder.tell(workspace.store, pictures, lambda done, total: None)
    rows = encoder_of(plan, project / "checkpoint")
    expected = infer(model, model.forward, rows, rows.encode(pictures)).softmax(1)
    np.testing.assert_allclose(kept, expected, atol=1e-6)
    assert told.baselines["zero-shot"]["log_loss"].value != told.metrics["log_loss"].value


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("head.prompts=a picture",), r"expected a text with \{\} where the class goes"),
        (("head.prompts=a {}", "head.layers=[8]"), "no hidden layers"),
        (("head.names={'no': film}",), "there are none"),
        (("head.prompts=a {}", "head.names={'maybe': film}"), "no class is called 'maybe'"),
        (("head.prompts=a {}", "stages=[{name: head, train: head, solver: lbfgs}]"), "lbfgs of head is for a head of"),
        (("head.prompts=a {}", "stages.0.head_start=fresh"), "head_start is for a head of layers"),
        (("evaluation.baselines=[zero-shot]",), "zero-shot is the head that head.prompts makes"),
    ],
)
def test_what_does_not_go_with_prompts_is_refused(overrides: tuple[str, ...], told: str, tmp_path: Path) -> None:
    """When the recipe is read."""
    write_image_project(tmp_path, tmp_path)
    with pytest.raises(RecipeError, match=told):
        load_recipe(tmp_path / "recipe.yaml", overrides)


def test_prompts_are_for_pictures(tmp_path: Path) -> None:
    """Texts are told by other means."""
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(checkpoint=tmp_path))
    with pytest.raises(RecipeError, match="not text-classification"):
        load_recipe(tmp_path / "recipe.yaml", ["head.prompts=a {}"])


def test_a_checkpoint_without_a_whole_tower_of_texts_is_refused(
    tmp_path: Path, workspace: Workspace, make_checkpoint: Callable[..., Path]
) -> None:
    """None at all, or one whose texts nobody can read."""
    write_image_project(tmp_path, make_checkpoint("vit"))
    with pytest.raises(CheckpointError, match="no tower that reads texts"):
        resolve_run(tmp_path, workspace, *PROMPTS)
    write_pair(tmp_path / "pair", "clip")
    (tmp_path / "pair/tokenizer.json").unlink()
    write_image_project(tmp_path / "second", tmp_path / "pair")
    with pytest.raises(CheckpointError, match="there is no vocabulary"):
        resolve_run(tmp_path / "second", workspace, *PROMPTS)


@pytest.mark.parametrize(
    ("kind", "changed", "told"),
    [
        ("clip", {"text_projection.weight": (12, 32)}, "pictures have 24 numbers there, texts 12"),
        ("siglip", {"text_model.head.weight": (12, 32)}, "pictures have 32 numbers there, texts 12"),
        ("clip", {"text_projection.weight": None}, "tensor text_projection.weight is missing"),
        ("clip", {"logit_scale": (2,)}, r"logit_scale is of shape \(2,\), expected one number"),
        ("siglip", {"logit_bias": (0,)}, r"logit_bias is of shape \(0,\)"),
        ("clip", {"logit_scale": None}, "it has no logit_scale"),
    ],
)
def test_towers_that_do_not_meet_are_refused(
    kind: str, changed: dict[str, tuple[int, ...] | None], told: str, tmp_path: Path
) -> None:
    """By their tensors' shapes, before anything is computed."""
    write_pair(tmp_path, kind)
    held = load_file(tmp_path / WEIGHTS)
    for name, shape in changed.items():
        del held[name]
        held |= {} if shape is None else {name: torch.ones(shape)}
    save_file(held, tmp_path / WEIGHTS)
    assert re.search(told, "\n".join(map(str, find_tower_problems(tmp_path, "checkpoint"))))


def test_a_tower_that_makes_the_same_of_all_prompts_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    """As CLIP's does where the tokenizer ends no text as config.json says: transformers then takes the first token."""
    write_pair(tmp_path / "checkpoint", "clip")
    write_image_project(tmp_path, tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint/config.json").read_text())
    config["text_config"]["eos_token_id"] = 30
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="makes the same of all prompts, such as 'a long dark film'"):
        untrained(resolve_run(tmp_path, workspace, *PROMPTS), workspace)
    config["text_config"] = None
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(config))
    assert "text_config is None, expected an object" in str([*find_tower_problems(tmp_path / "checkpoint", "")])


def test_a_policy_may_ask_for_it_of_recipes_that_have_it(project: Path, workspace: Workspace) -> None:
    """Of others it is refused before anything is spent."""
    run = resolve_run(project, workspace)
    policy = run.policy.model_copy(update={"baselines": ("zero-shot",)})
    recipe = load_recipe(project / "recipe.yaml")
    with pytest.raises(RecipeError, match="zero-shot is the head that"):
        plan_run(recipe, run.manifest, run.lock, policy, workspace.store)
    plan_run(load_recipe(project / "recipe.yaml", PROMPTS), run.manifest, run.lock, policy, workspace.store)


def test_a_head_goes_over_to_no_other_tower_and_no_other_kind(project: Path, workspace: Workspace) -> None:
    """Though checkpoint, classes, column and pooling are the same, who goes on from a champion tells them apart."""
    texts = ("problem_type=text-classification", "input={text: file}")
    run = resolve_run(project, workspace)
    seen, read, told = (
        model_facts(load_recipe(project / "recipe.yaml", overrides), run.manifest, run.lock)
        for overrides in ((), texts, PROMPTS)
    )
    assert {name for name in seen if seen[name] != read[name]} == {"modality"}
    assert {name for name in seen if seen[name] != told[name]} == {"head"}


def test_what_is_said_otherwise_is_another_run(project: Path, workspace: Workspace) -> None:
    """And a recipe without prompts keeps its key whatever the checkpoint has beside."""
    keys = {
        resolve_run(project, workspace, *overrides).plan.stages[0].key
        for overrides in ((), PROMPTS, (PROMPTS[0],), ("head.prompts=a {}",))
    }
    assert len(keys) == 4
