"""All stages of a run, each taken from the store where it is there already; at the end, the serving bundle."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.data.batches import copies_of, sample_sets
from graftwork.errors import Problem, TrainingError
from graftwork.faults import fault
from graftwork.fingerprint import file_digest, folder_digest, from_json, seed_of, to_json
from graftwork.models.adapters import AttachedAdapters
from graftwork.models.autoregressive import AutoregressiveModel, attach_sample_head
from graftwork.models.catalog import family_of
from graftwork.models.contrastive import contrastive_loss, measure_nearness
from graftwork.models.masked import (
    MaskedLanguageModel,
    MaskedRows,
    attach_language_head,
    detach_objective,
    mean_loss,
    measure_hidden,
    token_table,
)
from graftwork.models.multi_task import MultiTaskModel, attach_task_heads
from graftwork.models.prefix import HeadAlone, cut_at
from graftwork.models.prefix_cache import ActivationRows, PrefixCache, VectorRows, arithmetic_of
from graftwork.models.replaced import ReplacedTokenModel, attach_replacer
from graftwork.models.sentences import NextSentenceModel, attach_pair_head
from graftwork.models.serving.classifier import Classifier, hidden_size
from graftwork.models.serving.config import COSINE, WEIGHTS, ServingConfig
from graftwork.models.serving.inference import pick_device
from graftwork.models.serving.model import Encoder, load, make_encoder
from graftwork.models.serving.text import TextEncoder
from graftwork.models.spans import SpanModel, attach_decoder
from graftwork.models.text import attention_of, blank_token, load_pretrained, word_numbers
from graftwork.models.towers import fill_head, start_from_prompts
from graftwork.storage import Store
from graftwork.training.augmentation import Augmentation, HiddenWords, WordDropout, WordEdits, changed_once
from graftwork.training.bundle import (
    ADAPTER,
    ADAPTERS,
    BUNDLE_RECORD,
    MODEL,
    OBJECTIVE,
    STAGE_RECORD,
    ServingBundle,
    StageResult,
    copy_serving_code,
    copy_tokenizer_and_config,
    find_model,
)
from graftwork.training.contract import contract_of
from graftwork.training.dropout import quicken_dropout
from graftwork.training.embedding import quicken_embeddings
from graftwork.training.head import rescale_head
from graftwork.training.lease import hold
from graftwork.training.loop import (
    Examples,
    Keeper,
    Padder,
    Report,
    StageContext,
    StageData,
    StageProgress,
    train_stage,
)
from graftwork.training.memory import reset_peak
from graftwork.training.mixing import Mixture
from graftwork.training.multi_task import Task, TaskCriterion
from graftwork.training.pairs import attach_tower, pair_data
from graftwork.training.plan import ResolvedRun, TrainingPlan
from graftwork.training.replicas import ALONE, Replicas
from graftwork.training.rows import RunRows, open_rows
from graftwork.training.sentences import sentence_data
from graftwork.training.solver import solve_stage
from graftwork.training.spans import span_data
from graftwork.training.stages import Distillation, Hiding, Stage
from graftwork.training.state import FollowingKeeper, StateKeeper
from graftwork.training.tagging import by_word
from graftwork.training.writing import writer_data
from graftwork.workspace import Workspace


@dataclass(frozen=True)
class ResumeWish:
    """What to do with the state that an earlier attempt left: by default go on, if nothing has changed.

    restart: begin the stage again. accept_drift: fields of the contract that may have changed.
    """

    restart: bool = False
    accept_drift: tuple[str, ...] = ()


def run_stages(
    run: ResolvedRun,
    workspace: Workspace,
    report: Report,
    should_stop: Callable[[], bool],
    wish: ResumeWish = ResumeWish(),
    replicas: Replicas = ALONE,
) -> ServingBundle:
    """Train the stages that are not in the store yet, the first of them from the step where it was left; then bundle.

    Raises Paused between steps once `should_stop` says so; TrainingError as `check_processes`; ResumeRefused if what
    was left can't be continued exactly; Replaced if another process has taken the run over.
    """
    store, settings = workspace.store, workspace.settings
    check_processes(run.plan, replicas.size)

    def tell_wait(owner: str) -> None:
        report({"event": "waiting", "owner": owner})

    with hold(workspace.database, run.run_id, settings.lease_seconds, tell_wait, should_stop) as lease:
        checkpoint = open_checkpoint(store, run.lock)
        results = finished_stages(run.plan, store, report)
        model = load_model(run.plan, checkpoint, store, results)
        contract = contract_of(run.plan, pick_device(), attention_of(model), replicas.size)
        keeper = StateKeeper(store, lease, contract, report, share=settings.save_share, accepted=wish.accept_drift)
        if wish.restart:
            keeper.forget()
        remaining = run.plan.stages[len(results) :]
        replicas.tell(str(len(results)))
        if remaining:
            cache = PrefixCache(store, settings.cache_bytes, arithmetic_of(model, run.plan.precision))
            rows = open_rows(run, store, encoder_of(run.plan, checkpoint))
            training = Training(run, rows, model, cache, replicas)
        for index, stage in enumerate(remaining, start=len(results)):
            score = run.plan.target.score if stage.reads_labels else "accuracy"
            place = {"index": index, "stages": len(run.plan.stages)}
            report({"event": "stage", "stage": stage.name, "score": score} | place)
            keeper.begin(index, stage.name)
            reset_peak(pick_device())
            adapters = attach(run, index, model, store)
            progress = training.run_stage(index, keeper, report, should_stop)
            if stage.pairs is not None and run.plan.prompts is not None:
                fill_head(model, model.get_submodule("objective"), checkpoint, run.plan.prompts)
            lease.advance(lease.state)  # or be told that the run is another process's
            results.append(_publish_stage(store, stage, model, adapters, progress, keeper.drift))
            fault("training.stage_switch")
        keeper.forget()  # before the bundle is there: after that, nobody would come this way again
        return _publish_bundle(run, store, checkpoint, model, tuple(results))


def follow_stages(run: ResolvedRun, store: Store, replicas: Replicas) -> None:
    """Train the stages that the leader trains, beside it, and leave the rest to it."""
    checkpoint = open_checkpoint(store, run.lock)
    model = load_model(run.plan, checkpoint, store, [])
    rows = open_rows(run, store, encoder_of(run.plan, checkpoint))
    everything = sys.maxsize  # to keep the cache small is left to the leader, too
    cache = PrefixCache(store, everything, arithmetic_of(model, run.plan.precision))
    training = Training(run, rows, model, cache, replicas)
    for index in range(int(replicas.tell()), len(run.plan.stages)):
        adapters = attach(run, index, model, store)
        training.run_stage(index, FollowingKeeper(), report=lambda _: None, should_stop=lambda: False)
        detach_objective(model)
        if adapters is not None:
            adapters.merge()


def serving_config(plan: TrainingPlan) -> ServingConfig:
    """The part of the plan that serving needs."""
    return ServingConfig(
        classes=plan.classes,
        columns=plan.columns,
        pooling=plan.pooling,
        max_tokens=plan.max_tokens,
        hidden_layers=plan.hidden_layers,
        dropout=plan.dropout,
        pixels=plan.pixels,
        sound=plan.sound,
        target=plan.target.name,
        scale=plan.scale,
        separator=plan.separator,
        writes=plan.writes,
        prompt=plan.prompt,
        head=None if plan.prompts is None else COSINE,
    )


def encoder_of(plan: TrainingPlan, checkpoint: Path) -> Encoder:
    """What makes the plan's rows what its checkpoint reads."""
    return make_encoder(checkpoint, serving_config(plan))


@dataclass(frozen=True)
class Training:
    """What each process that trains a run has, whichever stage it trains."""

    run: ResolvedRun
    rows: RunRows
    model: Classifier
    cache: PrefixCache
    replicas: Replicas = ALONE

    def run_stage(self, index: int, keeper: Keeper, report: Report, should_stop: Callable[[], bool]) -> StageProgress:
        """Carry the stage out on the model that the leader has, from where its keeper says."""
        self.replicas.copy_leader(self.model.state_dict().values())
        plan, stage = self.run.plan, self.run.plan.stages[index]
        context = self.stage_context(index, keeper, report, should_stop)
        carry_out = solve_stage if stage.solver == "lbfgs" else train_stage
        return carry_out(self.model, stage, stage.groups_of(plan.groups), self.stage_data(context), context)

    def stage_context(
        self, index: int, keeper: Keeper, report: Report, should_stop: Callable[[], bool]
    ) -> StageContext:
        """What the stage of that place is given beside its data; its time begins."""
        plan = self.run.plan
        return StageContext(
            index=index,
            seed=plan.seed,
            batch_tokens=plan.batch_tokens,
            precision=plan.precision,
            device=pick_device(),
            report=report,
            should_stop=should_stop,
            keeper=keeper,
            replicas=self.replicas,
            pixels=plan.pixels,
        )

    def stage_data(self, context: StageContext) -> StageData:
        """What the stage of the context's place is trained on: the rows, or what its frozen part makes of them."""
        stage, rows = self.run.plan.stages[context.index], self.rows
        if stage.auxiliary is None:
            return self._data_of(stage, rows, context)
        if stage.pairs is not None:
            return self._pairs_of(stage, stage.auxiliary.names)
        sets, power = [rows.auxiliary[name] for name in stage.auxiliary.names], stage.auxiliary.sampling
        sizes = [len(rows.train.rows), *(len(each.inputs) for each in sets)]
        beside = [each.times(copies) for each, copies in zip(sets, copies_of(sizes, power)[1:], strict=True)]
        plan, tasks = self.run.plan, list[Task]()
        if stage.has_tasks:
            own = Task(plan.target, len(plan.classes), rows.train.labels)
            tasks = [own, *(each.task for each in beside if each.task is not None)]
        data = self._data_of(stage, rows.joined(beside, tasks), context)
        data = replace(data, draw=partial(sample_sets, sizes, power))
        return self._of_tasks(stage, tasks, data) if tasks else data

    def _pairs_of(self, stage: Stage, names: Sequence[str]) -> StageData:
        """Pictures and captions of these auxiliary sets."""
        assert stage.pairs is not None
        checkpoint = open_checkpoint(self.cache.store, self.run.lock)
        found = [self.rows.auxiliary[name] for name in names]
        sets = [(each.examples, each.captions) for each in found if each.captions is not None]
        return pair_data(self.model, self.rows.encoder, checkpoint, sets, stage.pairs, f"stage {stage.name!r}")

    def _of_tasks(self, stage: Stage, tasks: Sequence[Task], data: StageData) -> StageData:
        """The same data where each row is learnt by its own task, and the first is the one that is validated."""
        heads: Any = self.model.get_submodule("objective")
        own = tasks[0]

        def measure(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
            return own.target.learning.measure(outputs[:, : own.outputs], labels)

        return replace(data, criterion=TaskCriterion(tasks, heads, stage.label_smoothing), measure=measure)

    def _data_of(self, stage: Stage, rows: RunRows, context: StageContext) -> StageData:
        """What the stage is trained on, of these rows."""
        encoder = rows.encoder
        if stage.hiding is not None:
            if stage.sentences:
                return sentence_data(NextSentenceModel(self.model), rows, stage.hiding.share, stage.name, context)
            if stage.span:
                return span_data(SpanModel(self.model), rows, stage.hiding.share, stage.span, context)
            learner = ReplacedTokenModel(self.model) if stage.detects else MaskedLanguageModel(self.model)
            return _hidden_data(learner, rows, stage.hiding, context)
        if self.run.plan.target.is_text:
            sides, learning = (rows.train, rows.validation), self.run.plan.target.learning
            compute = partial(compute_once, stage=stage.name, context=context)
            return writer_data(self.model, stage, sides, learning, self.cache, compute)
        train = replace(rows.train, augmentations=_augmentations(stage, rows.train_inputs, encoder))
        train = replace(train, mixture=_mixture(stage, train.labels, len(self.run.plan.classes), encoder))
        if stage.autoregression is not None:
            forward = AutoregressiveModel(self.model).forward
            return StageData(train, rows.validation, forward, criterion=mean_loss, measure=measure_hidden)
        if stage.distil is not None:
            train = replace(train, taught=self._ask_teacher(stage.distil, stage.name, context))
        known = rows.known if stage.ewc else None
        learning = self.run.plan.target.learning
        data = StageData(
            train,
            rows.validation,
            _forward(self.model, stage),
            criterion=learning.criterion,
            measure=learning.measure,
            fit=learning.fit,
            known=known,
        )
        data = _cut_data(self.model, stage, data, self.cache, encoder, context) if stage.is_cut else data
        if self.run.plan.target.is_by_word:
            return by_word(data, self.run.plan.classes, stage.label_smoothing)
        return data if stage.temperature is None else _compared(data, stage.temperature)

    def _ask_teacher(self, distillation: Distillation, stage: str, context: StageContext) -> torch.Tensor:
        """The teacher's logits of each training row as it is, (rows, classes that it knows, in the student's order)."""
        teacher = next(each for each in self.run.plan.start.teachers if each.bundle == distillation.teacher)
        what = f"stage {stage!r} learns from, {teacher.name}/{teacher.version},"
        served = load(_open_model(self.cache.store, teacher.key, teacher.bundle, what))
        compute = partial(self.cache.logits, served.model, served.encoder)
        rows = compute_once(compute, served.encoder.encode(self.rows.train_inputs), stage, context)
        places = [teacher.classes.index(self.run.plan.classes[place]) for place in distillation.classes]
        return torch.cat(rows)[:, places]


def finished_stages(plan: TrainingPlan, store: Store, report: Report) -> list[StageResult]:
    """The results of the first stages, as far as they are in the store without a gap."""
    results: list[StageResult] = []
    for stage in plan.stages:
        folder = store.open(stage.key)
        if folder is None:
            break
        results.append(from_json(StageResult, (folder / STAGE_RECORD).read_text(encoding="utf-8")))
        report({"event": "reused", "stage": stage.name, "seconds": results[-1].seconds})
    return results


def load_model(plan: TrainingPlan, checkpoint: Path, store: Store, results: list[StageResult]) -> Classifier:
    """What the last finished stage left; before that, the model to go on from, or the checkpoint with a new head."""
    model = load_pretrained(checkpoint, serving_config(plan), seed=plan.seed)
    if results:
        model.load_state_dict(load_file(store.root / results[-1].key / WEIGHTS), strict=True)
    elif plan.start.warm is not None:
        warm = plan.start.warm
        folder = _open_model(store, warm.key, warm.bundle, f"this run starts from, version {warm.version},")
        model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
        rescale_head(model.head, ServingConfig.read(folder).scale, plan.scale)
    elif plan.prompts is not None:
        start_from_prompts(model, checkpoint, plan.prompts)
    quicken_dropout(model, pick_device())
    quicken_embeddings(model, pick_device())
    return model.to(pick_device())


def _open_model(store: Store, key: str, bundle: str, what: str) -> Path:
    """The folder of a model that another run made. what: it is to this one, for who must act if it is gone."""
    folder = find_model(store, key, bundle)
    if folder is None:
        problem = f"the model that {what} is not in the store"
        raise TrainingError(Problem(problem, key, "`graftwork run` fetches it from the registry"))
    return folder


def _augmentations(stage: Stage, texts: list[Any], encoder: Any) -> tuple[Augmentation, ...]:
    """What the stage does to its training rows."""
    if not stage.augment:
        return ()
    if isinstance(encoder, TextEncoder):
        words, asked = word_numbers(encoder, texts), stage.augment
        edits = WordEdits(words, asked.get("word_deletion", 0.0), asked.get("word_swap", 0.0))
        dropout = (WordDropout(asked["word_dropout"], words, blank_token(encoder)),) if "word_dropout" in asked else ()
        return (*dropout, edits) if edits.deletion or edits.swaps else dropout
    if hasattr(encoder, "pixels"):
        from graftwork.training.pictures import PictureChange  # here alone: it needs Pillow

        changes: dict[str, Any] = {name: each for name, each in stage.augment.items() if name not in stage.mixing}
        return (PictureChange(encoder.pixels.side, encoder.pixels.edge, **changes),)
    from graftwork.training.sounds import SoundChange  # here alone: it needs soundfile

    return (SoundChange(encoder.sound, **stage.augment),)


def _mixture(stage: Stage, labels: np.ndarray, outputs: int, encoder: Any) -> Mixture | None:
    """How the stage mixes its training rows, which are pictures then."""
    return Mixture(labels, outputs, encoder.pixels.side, **stage.mixing) if stage.mixing else None


def _compared(data: StageData, temperature: float) -> StageData:
    """The same data for bringing rows of a class together, whose pooled states stand in the place of logits."""
    near = {"temperature": temperature}
    return replace(data, criterion=partial(contrastive_loss, **near), measure=partial(measure_nearness, **near))


def check_processes(plan: TrainingPlan, processes: int) -> None:
    """Raises TrainingError for a stage that several processes can't share: one that compares the rows of a batch."""
    alone = [stage.name for stage in plan.stages if stage.temperature is not None or stage.pairs is not None]
    if alone and processes > 1:
        problem = f"stage {alone[0]!r} compares the rows of a batch, which {processes} processes would share"
        raise TrainingError(Problem(problem, "GRAFTWORK_PROCESSES", "set it to 1"))


def _forward(classifier: Classifier, stage: Stage) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What the stage computes of a batch: logits, those of further tasks, too, or the pooled states it compares."""
    if stage.has_tasks:
        return MultiTaskModel(classifier).forward
    return classifier.forward if stage.temperature is None else classifier.features


def _hidden_data(
    learner: MaskedLanguageModel | ReplacedTokenModel, rows: RunRows, hiding: Hiding, context: StageContext
) -> StageData:
    """The rows with hidden words: in training others in each epoch, in validation always the same."""
    encoder: Any = rows.encoder
    vocabulary = len(token_table(learner.model.body))

    def hide(texts: list[Any]) -> HiddenWords:
        return HiddenWords(hiding.share, word_numbers(encoder, texts), blank_token(encoder), vocabulary)

    validation = changed_once(hide(rows.validation_inputs), rows.validation.rows, context.epoch(0))
    padder = MaskedRows(encoder)
    return StageData(
        train=replace(rows.train, encoder=padder, augmentations=(hide(rows.train_inputs),)),
        validation=replace(rows.validation, rows=validation, encoder=padder),
        forward=learner.forward,
        criterion=mean_loss,
        measure=measure_hidden,
    )


def attach(run: ResolvedRun, index: int, model: Classifier, store: Store) -> AttachedAdapters | None:
    """What the stage trains beside the classifier: heads, or a tower, of its own, or the adapters that are returned.

    They stand beside the body that the last stage which trained any of it left. store: of the checkpoint, in which a
    head may lie that such a stage goes on with.
    """
    stage, seed = run.plan.stages[index], seed_of(run.plan.seed, index, "objective")
    if stage.hiding is not None:
        _attach_hidden(run, stage, model, seed, store)
    if stage.autoregression is not None and stage.own_parameters:
        attach_sample_head(model, seed)
    if stage.pairs is not None:
        before = (store.root / each.key / OBJECTIVE for each in run.plan.stages[:index] if each.pairs is not None)
        left = [path for path in before if path.is_file()]
        attach_tower(model, open_checkpoint(store, run.lock), left[-1] if left else None)
    if stage.auxiliary is not None and stage.has_tasks:
        sets = {each.name: each.classes for each in run.manifest.auxiliary}
        tasks = [sets[name] for name in stage.auxiliary.names]
        is_unsure = stage.auxiliary.weighting == "uncertainty"
        attach_task_heads(model, serving_config(run.plan), tasks, is_unsure, seed)
    attached = None if stage.adapters is None else _attach_adapters(run, index, model)
    quicken_dropout(model, pick_device())
    return attached


def _attach_hidden(run: ResolvedRun, stage: Stage, model: Classifier, seed: int, store: Store) -> None:
    """What tells hidden words, or what was made of them."""
    if stage.sentences:
        attach_pair_head(model, seed, open_checkpoint(store, run.lock))
    elif stage.span:
        attach_decoder(model, open_checkpoint(store, run.lock))
    elif stage.detects:
        attach_replacer(model, seed)
    else:
        attach_language_head(model, seed)


def _attach_adapters(run: ResolvedRun, index: int, model: Classifier) -> AttachedAdapters:
    adapters = run.plan.stages[index].adapters
    assert adapters is not None
    warm = run.plan.start.warm
    first = warm.key if warm else run.lock.key
    keys = [first, *(stage.key for stage in run.plan.stages[:index] if stage.rates.keys() != {"head"})]
    seed, family = seed_of(run.plan.seed, index, "adapters"), family_of(run.lock.architecture)
    return AttachedAdapters(model.body, adapters, seed, keys[-1], family.is_transposed)


def _cut_data(
    model: Classifier,
    stage: Stage,
    data: StageData,
    cache: PrefixCache,
    encoder: Encoder,
    context: StageContext,
) -> StageData:
    """The same rows as the frozen part gives them, from the cache, and the part above it."""
    known = data.known.rows if data.known is not None else []
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    padder: Padder
    if stage.is_pooled:
        forward, padder = HeadAlone(model.head).forward, VectorRows()
        compute = partial(cache.vectors, model, encoder)
    else:
        cut = cut_at(model, stage.cut)
        forward = _forward(cut.upper, stage)
        padder = ActivationRows(hidden_size(model.body), encoder.max_tokens, cache.arithmetic.dtype)
        compute = partial(cache.activations, cut.lower, encoder)
    rows = iter(compute_once(compute, [*data.train.rows, *data.validation.rows, *known], stage.name, context))

    def computed(examples: Examples) -> Examples:
        return replace(examples, rows=list(islice(rows, len(examples.rows))), encoder=padder)

    return replace(
        data,
        train=computed(data.train),
        validation=computed(data.validation),
        forward=forward,
        known=None if data.known is None else computed(data.known),
    )


def compute_once(
    compute: Callable[[Sequence[Any], Callable[[int, int], None]], list[torch.Tensor]],
    rows: Sequence[Any],
    stage: str,
    context: StageContext,
) -> list[torch.Tensor]:
    """What the prefix cache has of each row, or computes: each process a share, and finds the others' in the store.

    Raises Paused if asked to stop.
    """
    replicas = context.replicas

    def stop_if_asked() -> None:
        context.stop_if_asked(f"before stage {stage!r} began")

    def tell(done: int, total: int) -> None:
        context.report({"event": "prefix", "stage": stage, "rows": done, "of": total, "shares": replicas.size})
        stop_if_asked()

    if replicas.size > 1:
        compute(rows[replicas.rank :: replicas.size], tell)
        replicas.wait(stop_if_asked)
    return compute(rows, tell)


def _publish_stage(
    store: Store,
    stage: Stage,
    model: Classifier,
    adapters: AttachedAdapters | None,
    progress: StageProgress,
    drift: tuple[str, ...],
) -> StageResult:
    """The model as an ordinary one, and beside it the adapters that are now a part of it."""
    with store.writing(stage.key) as folder:
        if stage.pairs is not None or (stage.autoregression is not None and stage.own_parameters):
            _save_weights(model.get_submodule("objective"), folder / OBJECTIVE)
        detach_objective(model)
        if adapters is not None:
            adapters.keep(folder / ADAPTER)
            adapters.merge()
        _save_weights(model, folder / WEIGHTS)
        result = StageResult(
            stage=stage.name,
            key=stage.key,
            weights_digest=file_digest(folder / WEIGHTS),
            epochs=tuple(progress.epochs),
            steps=tuple(progress.steps),
            best_epoch=progress.best_epoch,
            seconds=progress.seconds,
            peak_bytes=progress.peak_bytes,
            drift=drift,
        )
        (folder / STAGE_RECORD).write_text(to_json(result), encoding="utf-8")
        fault("training.before_publish")
    return result


def _publish_bundle(
    run: ResolvedRun, store: Store, checkpoint: Path, model: Classifier, results: tuple[StageResult, ...]
) -> ServingBundle:
    with store.writing(run.plan.bundle_key) as folder:
        target = folder / MODEL
        target.mkdir()
        copy_tokenizer_and_config(checkpoint, target)
        copy_serving_code(target)
        serving_config(run.plan).write(target)
        _save_weights(model, target / WEIGHTS)
        for place, result in enumerate(results):
            if (store.root / result.key / ADAPTER).is_dir():
                shutil.copytree(store.root / result.key / ADAPTER, folder / ADAPTERS / f"{place}-{result.stage}")
        bundle = ServingBundle(
            digest=folder_digest(target),
            key=run.plan.bundle_key,
            name=run.plan.name,
            recipe_digest=run.plan.recipe_digest,
            manifest=run.plan.manifest,
            checkpoint=run.plan.checkpoint,
            classes=run.plan.classes,
            columns=run.plan.columns,
            stages=results,
            start=run.plan.start,
        )
        (folder / BUNDLE_RECORD).write_text(to_json(bundle), encoding="utf-8")
    return bundle


def _save_weights(model: torch.nn.Module, path: Path) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, path)
