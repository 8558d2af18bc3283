"""Plans: what is trained is named, counted and keyed before anything is spent."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import resolve_run, write_family_project, write_project

from graftwork.errors import RecipeError, TrainingError
from graftwork.fingerprint import digest
from graftwork.models.catalog import FAMILIES, DepthGroup
from graftwork.training.plan import ADDED, ADDED_TO_STAGES, ResolvedRun, _check_length, longest_input, open_run
from graftwork.training.stages import Averaging, trained_groups
from graftwork.workspace import Workspace

GROUPS = tuple(
    DepthGroup(name, depth, 10, (name,))
    for depth, name in enumerate(["embeddings", "block.0", "block.1", "block.2", "head"])
)


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (["head"], ["head"]),
        (["top:2", "head"], ["block.1", "block.2", "head"]),
        (["all"], ["embeddings", "block.0", "block.1", "block.2", "head"]),
        (["embeddings", "block.1"], ["embeddings", "block.1"]),
        (["top:3"], ["block.0", "block.1", "block.2"]),
    ],
)
def test_the_grammar_of_train(train: list[str], expected: list[str]) -> None:
    """What each form names, shallowest first."""
    assert [group.name for group in trained_groups(train, GROUPS, "here")] == expected


@pytest.mark.parametrize("entry", ["top:4", "top:0", "top:x", "blok.1", "tail"])
def test_what_names_nothing_is_refused_with_what_there_is(entry: str) -> None:
    """The message lists the depth groups."""
    with pytest.raises(RecipeError, match=r"here: .*names nothing to train .*block\.2"):
        trained_groups([entry], GROUPS, "here")


def lora(**changes: str) -> str:
    """The second stage as one of adapters."""
    section = ", ".join(f"{key}: {value}" for key, value in changes.items())
    return f"stages.1={{name: lora, train: [head, lora], epochs: 1, learning_rate: 0.1, lora: {{{section}}}}}"


def test_adapters_are_a_depth_group_with_the_rate_of_their_stage(resolve: Callable[..., ResolvedRun]) -> None:
    """Counted by hand: rank x (32 + 32) for each of two layers, in each of the two upper blocks."""
    stage = resolve(lora(rank="2", targets="[query, value]", blocks="'top:2'")).plan.stages[1]
    assert stage.rates == {"lora": 0.1, "head": 0.1}
    assert stage.trainable == 2 * (32 + 32) * 2 * 2 + 66
    assert stage.adapters is not None and stage.adapters.alpha == 4
    assert stage.adapters.layers[0] == "body.encoder.layer.1.attention.self.query"
    magnitudes = resolve(lora(rank="2", targets="[query, value]", blocks="'top:2'", dora="true")).plan.stages[1]
    assert magnitudes.trainable == stage.trainable + 32 * 2 * 2
    assert magnitudes.key != stage.key


@pytest.mark.parametrize(("blocks", "cut"), [("all", 0), ("'top:1'", 2), ("[block.1]", 1), ("[block.0, 'top:1']", 0)])
def test_what_lies_below_the_lowest_adapter_is_computed_once(
    resolve: Callable[..., ResolvedRun], blocks: str, cut: int
) -> None:
    """As it is below the lowest trained block."""
    assert resolve(lora(blocks=blocks)).plan.stages[1].cut == cut


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"targets": "[query, quary]"}, r"lora\.targets: 'quary' names no linear layer .*attention\.self\.query"),
        (
            {"targets": "LayerNorm"},
            r"lora\.targets: 'LayerNorm' names no linear layer .known are attention, all-linear, ",
        ),
        (
            {"blocks": "'top:4'"},
            r"lora\.blocks: 'top:4' names nothing to train .known are all, top:1 … top:3, block\.0",
        ),
        ({"blocks": "head"}, r"lora\.blocks: 'head' names nothing to train"),
        ({"rank": "33"}, r"lora\.rank: the narrowest of the layers has rank 32"),
    ],
)
def test_adapters_that_can_t_be_are_refused_with_what_there_is(
    resolve: Callable[..., ResolvedRun], section: dict[str, str], message: str
) -> None:
    """Before anything is trained."""
    with pytest.raises(RecipeError, match=rf"stages\.1\.{message}"):
        resolve(lora(**section))


def test_rates_fall_with_the_distance_from_the_head(resolve: Callable[..., ResolvedRun]) -> None:
    """Rate x decay for each block above, and the head's own multiple: a table made by hand."""
    run = resolve(
        "stages.1={name: top, train: all, epochs: 1, learning_rate: 0.1, layer_decay: 0.5, head_multiplier: 10}"
    )
    expected = {"embeddings": 0.0125, "block.0": 0.025, "block.1": 0.05, "block.2": 0.1, "head": 1.0}
    assert run.plan.stages[1].rates == pytest.approx(expected)
    assert run.plan.stages[1].trainable == run.plan.parameters


@pytest.mark.parametrize(
    ("option", "fact"),
    [
        ("augment={word_dropout: 0.1}", {"augment": {"word_dropout": 0.1}, "cut": 0}),
        ("accumulate=4", {"accumulate": 4}),
        ("average={ema: 0.99}", {"average": Averaging(0.99, 0.0)}),
        ("average={ema: 0.99, after: 0.5}", {"average": Averaging(0.99, 0.5)}),
        ("l2_sp=0.01", {"l2_sp": 0.01}),
        ("schedule=one-cycle", {"schedule": "one-cycle"}),
    ],
)
def test_an_option_of_a_stage_is_a_fact_of_it(
    resolve: Callable[..., ResolvedRun], option: str, fact: dict[str, object]
) -> None:
    """It is in the record and in the key, and changes nothing else."""
    plain, changed = resolve().plan.stages[1], resolve(f"stages.1.{option}").plan.stages[1]
    assert changed == replace(plain, key=changed.key, kept_bytes=changed.kept_bytes, **fact)
    assert changed.key != plain.key


def test_what_is_too_large_is_computed_in_each_epoch(
    resolve: Callable[..., ResolvedRun], workspace: Workspace, tmp_path: Path
) -> None:
    """Activations of every token may be, where a head's one vector a row is not; its key changes, as its bits do."""
    known = resolve().plan
    rows, width = known.rows["train"] + known.rows["validation"], 32
    assert [stage.kept_bytes for stage in known.stages] == [rows * width * 4, rows * width * 4 * known.max_tokens]
    settings = workspace.settings.model_copy(update={"cache_bytes": known.stages[1].kept_bytes - 1})
    found = resolve_run(tmp_path, replace(workspace, settings=settings)).plan
    assert [(stage.cut, stage.is_pooled) for stage in found.stages] == [(3, True), (0, False)]
    assert [stage.kept_bytes for stage in found.stages] == [stage.kept_bytes for stage in known.stages]
    assert found.stages[0].key == known.stages[0].key
    assert found.stages[1].key != known.stages[1].key


def test_what_pooling_learns_is_counted(resolve: Callable[..., ResolvedRun]) -> None:
    """One number for each of the 32 of a token's state, in the head's group."""
    plain, attention = resolve().plan, resolve("input.pooling=attention").plan
    assert attention.groups[-1].parameters == plain.groups[-1].parameters + 32
    assert attention.stages[0].trainable == plain.stages[0].trainable + 32


def test_a_changed_stage_changes_its_key_and_all_later_ones(resolve: Callable[..., ResolvedRun]) -> None:
    """And no earlier one, so that what was trained before it is found again."""
    before, after = resolve().plan, resolve("stages.1.epochs=3").plan
    assert before.stages[0].key == after.stages[0].key
    assert before.stages[1].key != after.stages[1].key
    assert before.bundle_key != after.bundle_key
    seeded = resolve("train.seed=9").plan
    assert seeded.stages[0].key != before.stages[0].key


def test_a_policy_or_a_schedule_changes_no_stage(resolve: Callable[..., ResolvedRun]) -> None:
    """Retrain, resources and evaluation are not what the weights depend on."""
    before, after = resolve(), resolve("retrain.min_rows=7", "evaluation.bootstrap=500")
    assert before.plan == after.plan


def test_what_a_run_is_asked_to_measure_is_part_of_it(
    resolve: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """A changed `evaluation:` is another run on the same weights; who reads the record finds what was asked."""
    before, after = resolve("evaluation.slices=[mood]"), resolve("evaluation.slices=[source]")
    assert before.run_id != after.run_id
    assert open_run(workspace.store, after.run_id).evaluation.slices == ("source",)


def test_the_name_of_a_stage_decides_nothing(resolve: Callable[..., ResolvedRun]) -> None:
    """Neither what is trained nor whose recipe it is; otherwise a retraining would be judged as a new recipe."""
    before, after = resolve().plan, resolve("stages.0.name=first").plan
    assert [stage.key for stage in before.stages] == [stage.key for stage in after.stages]
    assert before.recipe_digest == after.recipe_digest


def test_the_same_again_is_the_same_run(resolve: Callable[..., ResolvedRun], workspace: Workspace) -> None:
    """The id follows from what was resolved, and leads to all of it."""
    run = resolve()
    assert resolve() == run == open_run(workspace.store, run.run_id)
    with pytest.raises(TrainingError, match="no run"):
        open_run(workspace.store, "../../etc")


def test_more_tokens_than_the_checkpoint_reads_are_refused(resolve: Callable[..., ResolvedRun]) -> None:
    """Before anything is trained."""
    with pytest.raises(RecipeError, match=r"max_tokens is 9999: .*at most 512"):
        resolve("input.max_tokens=9999")


@pytest.mark.parametrize(("family", "limit"), [("bert", 514), ("roberta", 512)])
def test_the_positions_that_a_family_leaves_out_are_no_tokens(family: str, limit: int) -> None:
    """RoBERTa counts positions from the padding token's id on: two of its 514 are never a token's."""
    config = {"max_position_embeddings": 514, "pad_token_id": 1}
    _check_length(limit, FAMILIES[family], config)
    with pytest.raises(RecipeError, match=f"at most {limit}"):
        _check_length(limit + 1, FAMILIES[family], config)


def test_a_key_is_made_of_what_it_was_always_made_of(resolve: Callable[..., ResolvedRun]) -> None:
    """So that a later version finds what this one trained: a further fact may count only where it is used."""
    plan = resolve().plan
    shared = ("checkpoint", "classes", "columns", "pooling", "hidden_layers", "manifest", "max_tokens", "dropout")
    shared += ("seed", "batch_tokens", "precision")
    before = digest({"version": 3} | {name: getattr(plan, name) for name in shared})
    facts = ("rates", "epochs", "schedule", "warmup", "weight_decay", "label_smoothing", "clip_norm", "patience")
    facts += ("class_weights", "cut")
    for index, stage in enumerate(plan.stages):
        used = {"is_pooled": True} if stage.is_pooled else {}
        before = digest({"before": before, "index": index} | {name: getattr(stage, name) for name in facts} | used)
        assert stage.key == f"stage/{before}"
    assert plan.bundle_key == f"bundle/{digest({'version': 3, 'last': plan.stages[-1].key})}"


def test_a_plan_is_made_without_torch() -> None:
    """Whoever asks what will run does not wait for what runs it."""
    code = (
        "import sys, graftwork.training.plan; print(*({'torch', 'transformers', 'peft', 'pandas'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.split() == []


def test_pairs_need_a_token_between_them(
    tmp_path: Path, workspace: Workspace, make_checkpoint: Callable[..., Path]
) -> None:
    """A decoder's tokenizer would run one text into the other."""
    write_project(tmp_path, make_checkpoint("gpt2"))
    with pytest.raises(RecipeError, match=r"GPT-2.*no token between the texts of a pair"):
        resolve_run(tmp_path, workspace, "input.text=[text, label]")


@pytest.mark.parametrize(
    ("architecture", "config", "limit"),
    [
        ("bert", {"max_position_embeddings": 512}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("gpt2", {"n_positions": 1024}, 1024),
        ("t5", {"n_positions": 512}, None),
    ],
)
def test_how_many_tokens_can_be_read(architecture: str, config: dict[str, int], limit: int | None) -> None:
    """By what each architecture calls it; T5 knows positions by their distance, and its n_positions is of no use."""
    assert longest_input(FAMILIES[architecture], config) == limit


def test_a_run_of_texts_is_named_by_what_it_always_was(resolve: Callable[..., ResolvedRun]) -> None:
    """What only plans of pictures, numbers and several labels say is no part of it: an upgrade finds the run again."""
    run = resolve()
    plan = {name: value for name, value in vars(run.plan).items() if name not in ADDED}
    plan["stages"] = [{n: v for n, v in vars(stage).items() if n not in ADDED_TO_STAGES} for stage in plan["stages"]]
    plan["start"] = {"warm": None, "reason": ""}
    facts = {"plan": plan, "manifest": run.manifest.digest, "lock": run.lock, "policy": run.policy.digest}
    assert run.run_id == digest(facts | {"evaluation": run.evaluation.model_dump(mode="json")})[:16]


@pytest.mark.parametrize("architecture", ["vit", "resnet", "convnext", "efficientnet"])
def test_a_side_without_positions_is_refused(tmp_path: Path, workspace: Workspace, architecture: str) -> None:
    """With what it must be, before anything is loaded; where places need no positions any side is planned."""
    write_family_project(tmp_path, architecture)
    if architecture == "vit":
        with pytest.raises(RecipeError, match=r"input\.side: .*squares of 32 pixels alone, not of 64 \(set it to 32\)"):
            resolve_run(tmp_path, workspace, "input.side=64")
    else:
        pixels = resolve_run(tmp_path, workspace, "input.side=64").plan.pixels
        assert pixels is not None and pixels.side == 64


@pytest.mark.parametrize(
    ("architecture", "changes", "is_refused"),
    [
        ("resnet", (), True),
        ("efficientnet", (), True),
        ("resnet", ("stages.1.body_dropout=false",), False),
        ("resnet", ("stages.1.train=head",), False),
        ("resnet", ("train.batch_tokens=8",), False),
        ("convnext", (), False),
        ("vit", (), False),
    ],
)
def test_batches_of_one_picture_are_refused_where_they_are_normalised(
    tmp_path: Path, workspace: Workspace, architecture: str, changes: tuple[str, ...], is_refused: bool
) -> None:
    """A picture counts four here. What is frozen keeps its statistics, and takes what comes."""
    write_family_project(tmp_path, architecture)
    if is_refused:
        with pytest.raises(RecipeError, match=r"train\.batch_tokens: stage 'top': .*room for one \(at least 8; or"):
            resolve_run(tmp_path, workspace, "train.batch_tokens=7", *changes)
    else:
        resolve_run(tmp_path, workspace, "train.batch_tokens=7", *changes)
