"""Pictures and their captions: what a batch costs, which layers learn, what is left, and what is never learnt from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import facts, resolve_run, train_until, train_with_stops, write_image_project, write_pair, write_stripes

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.data.acceptance import WITHHELD
from graftwork.data.manifest import load_auxiliary, load_learnt, load_rows
from graftwork.errors import CheckpointError, RecipeError, TrainingError
from graftwork.models.pairs import PairCriterion, PairModel
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import WEIGHTS, PixelConfig, ServingConfig
from graftwork.models.text import load_pretrained
from graftwork.models.towers import TextTower
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.training.bundle import OBJECTIVE
from graftwork.training.engine import attach, check_processes, encoder_of, load_model
from graftwork.training.optimizer import set_modes
from graftwork.training.pairs import join_units, label_pairs, pair_data
from graftwork.training.plan import ResolvedRun
from graftwork.training.rows import open_rows
from graftwork.workspace import Workspace

CONFIG = ServingConfig(("no", "yes"), ("file",), "body", 4, pixels=PixelConfig(32, None, (0.5,) * 3, (0.5,) * 3))
PROMPTS = ("head.prompts=a {}", "head.names={'no': dark film, 'yes': bright plot}")
AUXILIARY = "auxiliary=[{name: told, sources: [{name: captions, path: more}], caption: caption}]"
PAIRS = "{name: pairs, objective: contrastive-image-text, train: all, epochs: 2, learning_rate: 1e-3, auxiliary: told}"
STAGE = f"stages=[{PAIRS}]"
HEAD = "{name: head, train: head, epochs: 1, learning_rate: 1e-3}"


@pytest.fixture(params=["clip", "siglip"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write_captions(folder: Path, first: int = 500, count: int = 40) -> None:
    """Pictures of stripes, numbered from `first`, with a caption each, and a second one for some."""
    write_stripes(folder, count, first)
    lines = []
    for number in range(first, first + count):
        for label, words in (("no", "dark film"), ("yes", "bright plot")):
            lines.append(f"{label}/{number:03}.png,the {('long', 'short', 'new')[number % 3]} {words}")
            lines += [f"{label}/{number:03}.png,an old {words}"] if number % 5 == 0 else []
    (folder / "captions.csv").write_text("file,caption\n" + "\n".join(lines) + "\n")


def write_project(folder: Path, kind: str) -> None:
    write_pair(folder / "checkpoint", kind)
    write_image_project(folder, folder / "checkpoint")
    write_captions(folder / "more")


@pytest.fixture
def project(kind: str, tmp_path: Path) -> Path:
    """Pictures of stripes, others with captions, and a checkpoint of two towers."""
    write_project(tmp_path, kind)
    return tmp_path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_project(tmp_path, "clip")
    return tmp_path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(Settings(home=tmp_path / "home"))


def towers(folder: Path) -> Classifier:
    """A classifier that is to learn from captions."""
    model = load_pretrained(folder, CONFIG, seed=0)
    model.add_module("objective", TextTower(folder))
    return model.eval()


def batch(labels: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels, captions that end as they should, and labels."""
    chance = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 30, (len(labels), 16), generator=chance)
    ids[:, 0], ids[:, -1] = 2, 3
    return (
        torch.randn(len(labels), 3, 32, 32, generator=chance),
        torch.stack([ids, torch.ones_like(ids)], dim=-1),
        torch.tensor(labels),
    )


def test_the_loss_is_that_of_transformers_own_model(project: Path) -> None:
    """Of a batch in which all captions and pictures differ, in value and in gradient; and so is that of validation."""
    import transformers

    model = towers(project / "checkpoint")
    pixels, captions, labels = batch([[place, place] for place in range(5)])
    criterion = PairCriterion(model.get_submodule("objective"))
    outputs = PairModel(model).forward(pixels, captions)
    loss = criterion(outputs, labels)
    theirs = transformers.AutoModel.from_pretrained(project / "checkpoint").eval()
    expected = theirs(input_ids=captions[..., 0], pixel_values=pixels, return_loss=True)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=1e-6)
    validated, right = criterion.measure(outputs.detach().double(), labels)
    assert validated == pytest.approx(loss.item(), rel=1e-5)
    diagonal = torch.arange(5)
    told = [near.argmax(1) == diagonal for near in (expected.logits_per_image, expected.logits_per_text)]
    assert right == pytest.approx(torch.stack(told).double().mean().item())
    loss.backward()
    expected.loss.backward()
    tower = model.get_submodule("objective")
    torch.testing.assert_close(tower.scale.grad, theirs.logit_scale.grad.reshape(()), rtol=1e-4, atol=1e-6)
    ours, other = (each.get_parameter(name) for each, name in _projections(model, theirs))
    torch.testing.assert_close(ours.grad, other.grad, rtol=1e-3, atol=1e-5)


def _projections(model: Classifier, theirs: Any) -> list[tuple[torch.nn.Module, str]]:
    """The weight that ends the tower of texts, in both."""
    is_clip = theirs.config.model_type == "clip"
    ours = "objective.texts.body.text_projection.weight" if is_clip else "objective.texts.body.head.weight"
    return [(model, ours), (theirs, "text_projection.weight" if is_clip else "text_model.head.weight")]


def test_what_is_told_twice_is_no_negative(kind: str, tmp_path: Path) -> None:
    """By hand: rows of one caption, or of one picture, are positives of each other."""
    write_pair(tmp_path, kind)
    tower = TextTower(tmp_path)
    outputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(5))
    labels = torch.from_numpy(label_pairs(["a film", "A  film", "b", "c"], ["p", "q", "r", "r"]))
    seen, read = (torch.nn.functional.normalize(part, dim=1) for part in outputs.chunk(2, 1))
    near = seen @ read.T * tower.scale.exp()
    fits = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    if tower.bias is None:
        ways = [-(each.log_softmax(1) * fits).sum(1) / 2 for each in (near, near.T)]
        expected = torch.cat(ways).mean()
    else:
        expected = -torch.nn.functional.logsigmoid((2 * fits - 1) * (near + tower.bias)).sum() / 4
    torch.testing.assert_close(PairCriterion(tower)(outputs, labels), expected)


def test_what_is_told_rightly_is_first_in_a_sorted_list(tmp_path: Path) -> None:
    """Of many random pairs, of which some belong together; what is as near and wrong comes first, as in a collapse."""
    write_pair(tmp_path, "clip")
    criterion, chance = PairCriterion(TextTower(tmp_path)), torch.Generator().manual_seed(7)
    outputs = torch.randn(60, 6, generator=chance, dtype=torch.float64)
    labels = torch.stack([torch.randint(0, 6, (60,), generator=chance), torch.arange(60)], dim=1)
    seen, read = (torch.nn.functional.normalize(part, dim=1) for part in outputs.chunk(2, 1))
    first = [near.argmax(1) for near in (seen @ read.T, read @ seen.T)]
    right = [(labels[place] == labels[row]).any() for places in first for row, place in enumerate(places)]
    assert 0 < criterion.measure(outputs, labels)[1] == pytest.approx(torch.stack(right).double().mean().item())
    for alike in (torch.ones(4, 6), torch.full((4, 6), torch.nan)):
        assert criterion.measure(alike, torch.arange(8).reshape(4, 2))[1] == 0


def test_a_stage_learns_so_and_leaves_a_head_and_is_resumed_exactly(
    project: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """The head of prompts is that of the towers as they are then; the classifier may end there."""
    stages = f"stages=[{PAIRS}, {PAIRS.replace('name: pairs', 'name: more').replace('epochs: 2', 'epochs: 1')}]"
    run = resolve_run(project, workspace, *PROMPTS, AUXILIARY, stages)
    first, second = run.plan.stages
    checkpoint = open_checkpoint(workspace.store, run.lock)
    model = load_model(run.plan, checkpoint, workspace.store, [])
    attach(run, 0, model, workspace.store)
    lasting = [p for name, p in model.named_parameters() if not name.startswith("head.")]
    assert first.trainable == sum(p.numel() for p in lasting)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bundle = train_until(run, workspace)
    started, *_, ended = bundle.stages[0].epochs
    assert ended.train_loss < started.train_loss
    left = [load_file(workspace.store.root / stage.key / OBJECTIVE) for stage in (first, second)]
    after = [load_file(workspace.store.root / stage.key / WEIGHTS) for stage in (first, second)]
    assert not torch.equal(after[0]["head.1.weight"], before["head.1.weight"].cpu())
    assert not torch.equal(after[0]["head.1.weight"], after[1]["head.1.weight"])
    assert torch.equal(after[1]["head.1.scale"], left[1]["scale"])
    resolved = load_model(run.plan, checkpoint, workspace.store, [bundle.stages[0]])
    attach(run, 1, resolved, workspace.store)
    found = resolved.get_submodule("objective").state_dict()
    assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in left[0].items())
    broken = Workspace.open(Settings(home=tmp_path / "broken"))
    again = resolve_run(project, broken, *PROMPTS, AUXILIARY, stages)
    assert facts(train_with_stops(again, broken, 5, 9)) == facts(bundle)


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ("train: 'top:1'", {"block.2", "neck", "texts.block.2", "texts.neck", "objective"}),
        ("train: 'top:1', locked: true", {"block.2", "neck", "objective"}),
        ("train: texts", {"texts.embeddings", *(f"texts.block.{n}" for n in range(3)), "texts.neck", "objective"}),
        ("train: [block.1, texts.block.0]", {"block.1", "texts.block.0", "objective"}),
    ],
)
def test_what_is_frozen_stays_in_both_towers(changes: str, trained: set[str], clip: Path, workspace: Workspace) -> None:
    """To the bit, and what is trained moves; from the stage's rates alone."""
    stage = PAIRS.replace("train: all", changes).replace("epochs: 2", "epochs: 1")
    run = resolve_run(clip, workspace, *PROMPTS, AUXILIARY, f"stages=[{stage}]")
    planned = run.plan.stages[0]
    assert planned.rates.keys() == trained
    model = load_model(run.plan, open_checkpoint(workspace.store, run.lock), workspace.store, [])
    attach(run, 0, model, workspace.store)
    before = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    train_until(run, workspace)
    after = load_file(workspace.store.root / planned.key / WEIGHTS)
    left = load_file(workspace.store.root / planned.key / OBJECTIVE)
    after |= {f"objective.{name}": tensor for name, tensor in left.items()}
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    groups = {group.name: group.prefixes for group in planned.groups_of(run.plan.groups)}
    for name, prefixes in groups.items():
        if name != "head":
            assert any(tensor.startswith(prefixes) for tensor in moved) == (name in trained), name


def test_without_dropout_neither_tower_has_it(tmp_path: Path) -> None:
    """Both were pretrained; and parts that are frozen have none anyway."""
    write_pair(tmp_path, "clip")
    model = towers(tmp_path)
    set_modes(model)
    assert model.get_submodule("objective.texts.body").training
    set_modes(model, has_body_dropout=False)
    assert not [name for name, module in model.named_modules() if module.training and name.startswith(("body", "obj"))]


def test_a_picture_that_two_sets_have_is_on_one_side(clip: Path, workspace: Workspace) -> None:
    """Whatever else of their sets is nearly it, or of its group."""
    assert join_units("abcd", "ppqr") == ["a", "a", "c", "d"]
    assert join_units("cbba", "ppqq") == ["a"] * 4
    write_captions(clip / "also", 520)
    table = clip / "also/captions.csv"
    table.write_text(table.read_text().replace(",the ", ",a ").replace(",an ", ",the "))
    second = ", {name: also, sources: [{name: second, path: also}], caption: caption}]"
    run = resolve_run(clip, workspace, *PROMPTS, AUXILIARY[:-1] + second, STAGE.replace("told}", "[told, also]}"))
    checkpoint = open_checkpoint(workspace.store, run.lock)
    model = load_model(run.plan, checkpoint, workspace.store, [])
    attach(run, 0, model, workspace.store)
    rows = open_rows(run, workspace.store, encoder_of(run.plan, checkpoint))
    sets = [(each.examples, each.captions) for each in rows.auxiliary.values() if each.captions is not None]
    pairs = run.plan.stages[0].pairs
    assert pairs is not None
    data = pair_data(model, rows.encoder, checkpoint, sets, pairs, "")
    learnt, held = ({*side.labels[:, 1].tolist()} for side in (data.train, data.validation))
    assert learnt
    assert held
    assert not learnt & held


def test_captions_of_what_is_judged_are_not_learnt_from(clip: Path, workspace: Workspace) -> None:
    """Under whatever name the picture comes; and what was learnt from once is known by the picture alone."""
    for picture in sorted((clip / "pictures").rglob("*.png")):
        (clip / "more" / picture.parent.name / f"copy-{picture.name}").write_bytes(picture.read_bytes())
    copies = [f"{path.parent.name}/{path.name},the long film" for path in sorted((clip / "more").rglob("copy-*"))]
    table = clip / "more/captions.csv"
    table.write_text(table.read_text() + "\n".join(copies) + "\n")
    for by in ("[group, near_duplicate]", "[group]"):
        manifest = resolve_run(clip, workspace, f"name=by-{len(by)}", AUXILIARY, f"data.split.by={by}").manifest
        rows = load_rows(workspace.store, manifest)
        told = load_auxiliary(workspace.store, manifest, "told")
        judged = set(rows.loc[rows["side"] != "train", "text"])
        learnt = set(rows.loc[rows["side"] == "train", "text"])
        assert not judged & set(told["text"])
        assert learnt <= set(told["text"])
        assert manifest.auxiliary[0].withheld >= len(judged) > 0
        twice = told[told["text"].duplicated(keep=False)]
        assert len(twice) > 0
        assert (twice.groupby("text")["unit"].nunique() == 1).all()
        assert load_learnt(workspace.store, manifest)["text_b"].isna().all()
    assert WITHHELD in (workspace.store.root / manifest.key / "quarantine.csv").read_text()


def test_a_picture_that_was_learnt_from_is_never_judged_later(clip: Path, workspace: Workspace) -> None:
    """It lands among the recipe's own rows, and is trained on there."""
    before = load_auxiliary(workspace.store, resolve_run(clip, workspace, AUXILIARY).manifest, "told")
    for picture in sorted((clip / "more").rglob("5*.png")):
        (clip / "pictures" / picture.parent.name / picture.name).write_bytes(picture.read_bytes())
    manifest = resolve_run(clip, workspace, AUXILIARY).manifest
    rows = load_rows(workspace.store, manifest)
    late = rows[rows["file"].str.contains(r"/5\d\d\.png") & rows["text"].isin(before["text"])]
    assert len(late) > 30
    assert set(late["side"]) == {"train"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((f"stages=[{PAIRS.replace(', auxiliary: told', '')}, {HEAD}]",), "name them with `auxiliary`"),
        ((f"stages=[{PAIRS}]",), "makes one of head.prompts alone"),
        ((f"stages=[{PAIRS[:-1]}, adversary: {{}}}}, {HEAD}]",), "takes no adversary"),
        ((f"stages=[{PAIRS[:-1]}, l2_sp: 0.1}}, {HEAD}]",), "takes no l2_sp"),
        ((f"stages=[{PAIRS[:-1]}, temperature: 0.1}}, {HEAD}]",), "temperature is for objective: contrastive"),
        ((f"stages=[{HEAD[:-1]}, locked: true}}]",), "locked is for objective: contrastive-image-text"),
        ((f"stages=[{PAIRS.replace('train: all', 'train: texts, locked: true')}, {HEAD}]",), "and train names it"),
        ((f"stages=[{PAIRS}, {HEAD[:-1]}, auxiliary: told}}]",), "auxiliary rows teach the body"),
        ((f"stages=[{HEAD}]", "start.from=champion", f"start.stages=[{PAIRS}, {HEAD}]"), "a champion keeps nothing"),
        ((f"stages=[{PAIRS}]", *PROMPTS, "start.from=champion"), "a champion keeps nothing"),
        ((f"stages=[{PAIRS}, {HEAD}]", "auxiliary.0.caption=null"), "have no caption to learn from"),
        (("auxiliary.0.caption=file",), "column 'file' holds the pictures"),
        ((f"stages=[{HEAD}]", 'auxiliary.0.label={from: label, classes: ["a", "b"]}'), "name two sets"),
    ],
)
def test_what_does_not_go_with_captions_is_refused(overrides: tuple[str, ...], told: str, tmp_path: Path) -> None:
    """When the recipe is read."""
    write_image_project(tmp_path, tmp_path)
    with pytest.raises(RecipeError, match=told):
        load_recipe(tmp_path / "recipe.yaml", (AUXILIARY, *overrides))


def test_what_would_be_gone_or_is_not_there_is_refused(
    clip: Path, workspace: Workspace, make_checkpoint: Callable[..., Path]
) -> None:
    """A tower of texts that nothing is made of, groups that it has not, a checkpoint without it, several processes."""
    with pytest.raises(RecipeError, match="is gone when the stage is over"):
        resolve_run(clip, workspace, AUXILIARY, f"stages=[{PAIRS.replace('train: all', 'train: texts')}, {HEAD}]")
    with pytest.raises(RecipeError, match="names nothing to train"):
        stage = PAIRS.replace("train: all", "train: [block.0, texts.block.7]")
        resolve_run(clip, workspace, AUXILIARY, f"stages=[{stage}, {HEAD}]")
    run: ResolvedRun = resolve_run(clip, workspace, AUXILIARY, f"stages=[{PAIRS}, {HEAD}]")
    with pytest.raises(TrainingError, match="compares the rows of a batch"):
        check_processes(run.plan, 2)
    (clip / "recipe.lock.json").unlink()
    other = f"checkpoint.source=file://{make_checkpoint('vit')}"
    with pytest.raises(CheckpointError, match="no tower that reads texts"):
        resolve_run(clip, workspace, AUXILIARY, other, f"stages=[{PAIRS}, {HEAD}]")
