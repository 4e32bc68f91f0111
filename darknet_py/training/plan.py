"""Everything that is decided before the first iteration of a training, and how it is printed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import torch

from darknet_py.cfg.document import CfgEdit
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import atoi
from darknet_py.counted import counted
from darknet_py.data.loader import largest_size
from darknet_py.errors import TrainError
from darknet_py.graph.graph import Graph
from darknet_py.graph.set_num_classes import set_num_classes
from darknet_py.inference.fuse import AMP
from darknet_py.model.model_file import ModelFile, read_cfg
from darknet_py.training.checkpoint_dir import CheckpointDir
from darknet_py.training.checks import check_schedule, check_supported, ineffective_keys
from darknet_py.training.distributed import DistContext, LocalBatch, split_batch
from darknet_py.training.estimate import Speed
from darknet_py.training.initial_weights import InitialWeights, read_matching_weights, read_weights
from darknet_py.training.memory import MemoryEstimate, estimate_memory
from darknet_py.training.recipe import Length, Machine, Photos, Recipe
from darknet_py.training.schedule import next_evaluation
from darknet_py.training.state import TrainingState
from darknet_py.training.tasks.classification_task import ClassificationTask
from darknet_py.training.tasks.detection_task import DetectionTask
from darknet_py.training.tasks.task import Task
from darknet_py.training.tasks.text_task import TextTask
from darknet_py.training.train_options import DARKNET, FINETUNE, SCRATCH, NetValue, TrainOptions

_HELD_OUT = 0.1  # share of the images that a recipe validates on


@dataclass(frozen=True)
class TrainingPlan:
    """A training before it starts. Making a plan reads files and writes none, but for a built-in data set.

    Attributes:
        source: The cfg or checkpoint that was given.
        cfg: The cfg that the weights go with: `source`, or a file in the output folder where `classes` or a recipe
            changed it.
        graph: The network, with all changes to the cfg applied (`graph.document.edits` lists them).
        task: The kind of training and its data.
        options: Options of the run.
        context: This process among those that train together.
        device: Where it trains.
        local_batch: The part of each batch that this process trains on.
        files: The output folder.
        weights: Weights to start from.
        state: The state to resume from.
        resumes: Whether it continues an earlier training, by its state or its last weights.
        falls_back: Whether `state` is the one before the last, which is damaged.
        memory: Estimate of the memory it needs.
        recipe: The changes of the cfg.
        started: When the command began, by `time.monotonic`.
        pause: The iteration to stop at for now; None: max_batches.
        speed: What a mini-batch takes, where that was measured.
        notes: Lines to log at the start.
        warnings: Warnings to log at the start.
    """

    source: Path
    cfg: Path
    graph: Graph
    task: Task
    options: TrainOptions
    context: DistContext
    device: torch.device
    local_batch: LocalBatch
    files: CheckpointDir
    weights: InitialWeights | None
    state: TrainingState | None
    resumes: bool
    falls_back: bool
    memory: MemoryEstimate
    recipe: Recipe
    started: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    pause: int | None = None
    speed: Speed | None = None

    @classmethod
    def create(
        cls,
        cfg: str | Path,
        data: str | Path | None = None,
        weights: str | Path | None = None,
        options: TrainOptions | None = None,
        overrides: Mapping[str, NetValue] | None = None,
        context: DistContext | None = None,
    ) -> TrainingPlan:
        """Decides everything about a training.

        Args:
            cfg: A cfg, or a checkpoint, which holds its own cfg and weights.
            data: The data, as `train` takes it; None is the built-in data set.
            weights: A .weights file or checkpoint to start from.
            options: Options of the run.
            overrides: New values for keys of `[net]`.
            context: This process among others. Default: as `torchrun` started it.

        Returns:
            The plan.

        Raises:
            DarknetError: The training cannot start: CfgError, WeightsError, DataError or TrainError.
        """
        started = time.monotonic()
        cfg, options, overrides = Path(cfg), options or TrainOptions(), dict(overrides or {})
        context = context or DistContext.from_environment()
        model = read_cfg(cfg)
        stored, original = model if model.tensors else None, model.graph
        name = _recipe_name(original, options, weights is not None or stored is not None)
        length = _length(options, overrides, context)
        base = set_num_classes(original, options.classes) if options.classes else original
        if name == DARKNET and not (length.epochs or length.seconds):
            check_schedule(base, overrides)
        device = pick_device(options.device, context)
        task = open_task(base, data, options)
        files = CheckpointDir(Path(options.out or task.file.backup), cfg.stem, task.metric)
        rewritten = base is not original or name != DARKNET
        if rewritten and files.cfg.resolve() == cfg.resolve():
            changed = f"for {counted(options.classes, 'class')}" if options.classes else f"of the recipe {name}"
            raise TrainError(f"out: expected another folder than that of {cfg}, as the cfg {changed} goes there")

        unfinished = files.path("last.state").exists() or files.path("last.weights").exists()
        again = options.resume and name != DARKNET and unfinished and files.cfg.is_file()
        by_recipe = _HELD_OUT if name != DARKNET and task.splits else 0.0
        share = by_recipe if options.held_out is None else options.held_out
        if share:
            task = task.hold_out(share, files.data if options.resume else None)
        recipe = Recipe(
            name,
            read_cfg(files.cfg).graph if again else base,
            overrides,
            task.photos if name != DARKNET or length.epochs else Photos(task.train_size),
            Machine.find(device, context, options.amp in AMP),
            options,
            length,
            again,
        )
        graph = recipe.graph()
        options = recipe.run_options(graph.net, task.valid_size)
        task = task.with_graph(graph, options)
        check_schedule(graph, overrides)
        check_supported(graph, context)

        state, fallback = files.load_last(graph) if options.resume else (None, "")
        resumes = options.resume and (state is not None or files.path("last.weights").exists())
        initial: InitialWeights | None = None
        if resumes and state is None:
            initial = read_weights(files.path("last.weights"), graph)
        elif not resumes and (weights is not None or stored is not None):
            initial = _initial_weights(cfg, weights, stored, graph, original, options, name)
        if initial and not options.resume and initial.seen // graph.net.batch_images >= graph.net.max_batches:
            raise TrainError(
                f"{initial.path}: expected weights of less than "
                f"max_batches={counted(graph.net.max_batches, 'iteration')}, "
                f"got {initial.seen // graph.net.batch_images}; clear=True (--clear) counts from 0"
            )
        local_batch = split_batch(graph.net, context)
        started_anyway = weights is not None or stored is not None or options.clear
        return cls(
            source=cfg,
            cfg=files.cfg if rewritten else cfg,
            graph=graph,
            task=task,
            options=options,
            context=context,
            device=device,
            local_batch=local_batch,
            files=files,
            weights=initial,
            state=state,
            resumes=resumes,
            falls_back=bool(fallback),
            memory=_memory(graph, local_batch, options),
            recipe=recipe,
            started=started,
            notes=(
                *_recipe_notes(name, options, files, again),
                *_schedule_notes(graph.document.edits),
                *(
                    [f"cfg for {counted(options.classes, 'class')}: {files.cfg}"]
                    if rewritten and options.classes
                    else []
                ),
                *([str(initial)] if initial and not resumes else []),
                *task.notes(),
                *ineffective_keys(graph),
                *_resume_notes(files, graph.net, options, state, resumes, started_anyway),
            ),
            warnings=(*([fallback] if fallback else []), *_warnings(graph, overrides)),
        )

    def with_iterations(self, iterations: int) -> TrainingPlan:
        """The same plan with another number of iterations, to which the schedule is fitted."""
        graph = self.recipe.graph(iterations)
        options = self.recipe.run_options(graph.net, self.task.valid_size, self.speed)
        return replace(self, graph=graph, options=options, task=self.task.with_graph(graph, options))

    @property
    def seconds(self) -> float | None:
        """The time that the training has, where that decides the number of iterations; a resumed one keeps its own."""
        return None if self.recipe.done or self.resumes else self.recipe.length.seconds

    @property
    def deadline(self) -> float | None:
        """When the training has to be over, by `time.monotonic`; None without `time`."""
        seconds = self.recipe.length.seconds
        return None if seconds is None or self.recipe.done else self.started + seconds

    @property
    def evaluations(self) -> int:
        """How many evaluations are ahead."""
        if not self.task.evaluates:
            return 0
        last, count = self.first_iteration, 0
        while last < self.net.max_batches:
            last, count = self.next_evaluation(last), count + 1
        return count

    def next_evaluation(self, last: int) -> int:
        """The iteration of the evaluation that follows one at iteration `last`."""
        every = True if self.options.map is None else self.options.map
        return next_evaluation(self.net, last, self.task.train_size, every, self.options.map_epochs)

    @property
    def last_iteration(self) -> int:
        """The iteration after which `Trainer.run` returns."""
        return min(self.pause or self.net.max_batches, self.net.max_batches)

    def write(self) -> None:
        """Writes what goes beside the weights: the cfg as it is trained, and the lists of what was held out."""
        if self.cfg != self.source:
            self.files.save_cfg(self.graph)
        self.task.write_lists(self.files.data)

    @property
    def net(self) -> NetSpec:
        """The cfg's `[net]`, with all changes."""
        return self.graph.net

    @property
    def first_iteration(self) -> int:
        """Iterations that are done already."""
        if self.state:
            return self.state["learner"]["iteration"]
        return self.weights.seen // self.net.batch_images if self.weights else 0

    @property
    def continues(self) -> bool:
        """Whether it goes on with the training whose files are in the output folder: resumed, or from its weights."""
        initial = self.weights
        return self.resumes or (initial is not None and initial.seen > 0 and self.files.contains(initial.path))

    @property
    def seed(self) -> int:
        """Of everything random; a resumed training keeps its own."""
        return self.state["learner"]["seed"] if self.state else self.options.seed

    @property
    def shared_by_processes(self) -> dict[str, object]:
        """What all processes of one training must have in common."""
        return {
            "cfg": blake2b(self.graph.document.content, digest_size=8).hexdigest(),
            "seed": self.seed,
            "data": self.task.data_digest,
            "iteration": self.first_iteration,
            "precision": self.options.amp or "float32",
        }

    def to_json(self) -> dict[str, object]:
        """The plan as plain values."""
        net, memory, initial = self.net, self.memory, self.weights
        return {
            "cfg": str(self.cfg),
            "source": str(self.source),
            "changes": [
                {
                    "section": _section_name(self.graph, edit),
                    "key": edit.key,
                    "value": edit.value,
                    "reason": edit.reason,
                }
                for edit in self.graph.document.edits
            ],
            "task": self.task.kind,
            "data": {
                "file": str(self.task.file.path),
                "builtin": self.task.builtin,
                "train": self.task.train_size,
                "valid": self.task.valid_size,
                "unit": self.task.item,
                "classes": list(self.task.names),
                "metric": self.task.metric,
            },
            "device": str(self.device),
            "processes": self.context.size,
            "precision": self.options.amp or "float32",
            "input": list(self.graph.input),
            "batch": net.mini_batch * net.subdivisions,
            "subdivisions": net.subdivisions,
            "mini_batch": net.mini_batch,
            "local_batch": self.local_batch._asdict(),
            "schedule": {
                "first_iteration": self.first_iteration,
                "max_batches": net.max_batches,
                "learning_rate": net.learning_rate,
                "policy": net.policy,
                "burn_in": net.burn_in,
                "steps": list(net.steps),
                "scales": list(net.scales),
            },
            "optimizer": {
                "name": "adam" if net.adam else "sgd",
                "momentum": net.momentum,
                "decay": net.decay,
                "ema_alpha": net.ema_alpha,
            },
            "recipe": self.recipe.name,
            "seed": self.seed,
            "weights": str(initial.path) if initial else None,
            "reinitialized": list(initial.reinitialized) if initial else [],
            "resumes": self.resumes,
            "parameters": self.graph.parameters,
            "bflops": self.graph.bflops,
            "memory": {**memory._asdict(), "total": memory.total},
            "seconds": self.speed._asdict() if self.speed else None,
            "files": [str(path) for path in self.output_files],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    @property
    def output_files(self) -> list[Path]:
        """The files that the training writes if nothing goes wrong, without numbered weights."""
        files, evaluates, metric = self.files, self.task.evaluates, self.task.metric
        suffixes = ["last.weights", "last.state", "final.weights", "log.csv"]
        suffixes += ["best.weights", "best.json", f"{metric}.json"] if evaluates else []
        suffixes += ["ema.weights"] if self.net.ema_alpha else []
        suffixes += ["tensorboard"] if self.options.tensorboard else []
        paths = [files.cfg] if self.cfg != self.source else []
        paths += [files.names] if files.writes_names(self.task.names) else []
        paths += [files.path(suffix) for suffix in suffixes]
        paths += self.task.list_files(files.data)
        paths += [files.path("report.html")] if self.options.report else []
        return paths + ([files.chart] if self.options.chart else [])

    def __str__(self) -> str:
        """The plan in words, one line for each decision."""
        net, task, memory = self.net, self.task, self.memory
        shape = self.graph.input
        lines = [
            f"{task.kind}: {self.source}, {counted(len(self.graph.layers), 'layer')}, "
            f"{self.graph.parameters:,} parameters, {self.graph.bflops:.3f} BFLOPs",
            f"input: {shape.w} x {shape.h} x {shape.c}",
        ]
        lines += _change_lines(self.graph)
        if self.options.amp and self.recipe.options.amp is None:
            lines.append(f"change: --amp {self.options.amp} (this CPU multiplies it faster; --amp fp32 turns it off)")
        lines += [
            f"data: {task.file.path}{' (built-in)' if task.builtin else ''}, {task.train_size:,} {task.item} to train "
            f"on, {f'{task.valid_size:,} to evaluate on ({task.metric_label})' if task.evaluates else 'no evaluation'}",
            f"classes: {len(task.names)} of {task.class_limit}{_shortened(task.names)}",
            f"device: {self.device}, {self.options.amp or 'float32'}"
            + (f", {counted(self.context.size, 'process')}" if self.context.size > 1 else ""),
            f"batch: {net.mini_batch * net.subdivisions} = {net.subdivisions} subdivisions of {net.mini_batch}"
            + (f", {self.local_batch.mini_batches} x {self.local_batch.images} here" if self.context.size > 1 else ""),
            f"schedule: iterations {self.first_iteration + 1} to {net.max_batches}, learning rate "
            f"{net.learning_rate:g}, policy {net.policy}{_steps(net)}, burn-in {net.burn_in}",
            f"optimizer: {'Adam' if net.adam else 'SGD'}, momentum {net.momentum:g}, decay {net.decay:g}"
            + (f", EMA {net.ema_alpha:g}" if net.ema_alpha else ""),
            f"weights: {self._start_words()}",
            f"memory: about {memory.total / 2**20:,.0f} MiB (weights {memory.weights / 2**20:,.0f}, gradients and "
            f"optimizer {memory.optimizer / 2**20:,.0f}, activations {memory.activations / 2**20:,.0f})",
            f"files: {', '.join(path.name for path in self.output_files)} in {self.files.folder}",
            *self._earlier_words(),
            *(note for note in self.notes if not self.weights or note != str(self.weights)),
            *(f"warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)

    def _earlier_words(self) -> list[str]:
        earlier = [] if self.continues else self.files.earlier_files()
        return [f"files of an earlier training: moved to {self.files.next_run()}"] if earlier else []

    def _start_words(self) -> str:
        if self.state:
            return f"resumed from {self.files.path('previous.state' if self.falls_back else 'last.state')}"
        if self.weights:
            return str(self.weights)
        return f"initialized with seed {self.seed}"


def open_task(graph: Graph, data: str | Path | None, options: TrainOptions) -> Task:
    """Opens the data as the kind of network asks for it.

    Args:
        graph: A detector, a classifier, or a network of text, which takes no images.
        data: The data; None is the built-in data set.
        options: Options of the run.

    Returns:
        The task.

    Raises:
        DarknetError: The network cannot be trained, or the data cannot be used.
    """
    task: Task
    if graph.reads_text:
        task = TextTask.open(data, graph, options)
    elif graph.detection_specs:
        task = DetectionTask.open(data, graph, options)
    else:
        task = ClassificationTask.open(data, graph, options)
    if options.patience and not task.evaluates:
        raise TrainError(f"patience: expected a validation list (map, --map), got none in {task.file.path}")
    return task


def pick_device(name: str | None, context: DistContext) -> torch.device:
    """The device asked for; else a GPU for each process, else the CPU. Raises TrainError."""
    if name is None:
        name = f"cuda:{context.local_rank}" if torch.cuda.is_available() else "cpu"
    elif name == "cuda":
        name = f"cuda:{context.local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainError(f"expected a device like cpu or cuda:0, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainError(f"expected a device like cpu or cuda:0, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainError(f"expected the device {name}, got {torch.cuda.device_count()} CUDA devices")
    return device


def _recipe_name(graph: Graph, options: TrainOptions, has_weights: bool) -> str:
    """The recipe that was asked for, or that follows: only a changed number of classes asks for one."""
    name = options.recipe or (FINETUNE if options.classes else DARKNET)
    if name == FINETUNE and not has_weights:
        name = SCRATCH
    if name != DARKNET and graph.reads_text:
        if options.recipe:
            raise TrainError(f"recipe: expected darknet for a network of text, got {options.recipe}")
        return DARKNET
    return name


def _length(options: TrainOptions, overrides: Mapping[str, NetValue], context: DistContext) -> Length:
    """How long to train. Raises TrainError where it was said in several ways."""
    given = {"epochs": options.epochs, "time": options.time, "max_batches": overrides.get("max_batches")}
    said = [key for key, value in given.items() if value is not None]
    if len(said) > 1:
        raise TrainError(f"expected one of epochs, time and max_batches, got {' and '.join(said)}")
    if options.time is not None and context.size > 1:
        raise TrainError(f"time: expected one process, got {context.size}; use max_batches")
    max_batches = overrides.get("max_batches")
    iterations = None if max_batches is None else atoi(str(max_batches))
    return Length(iterations, options.epochs, options.seconds)


def _initial_weights(
    cfg: Path,
    weights: str | Path | None,
    stored: ModelFile | None,
    graph: Graph,
    original: Graph,
    options: TrainOptions,
    recipe: str,
) -> InitialWeights:
    """Weights that were given, or those of a checkpoint given as the cfg."""
    path = cfg if weights is None else Path(weights)
    content = stored if weights is None else None
    if options.classes:
        return read_matching_weights(path, graph, original, options.cutoff, content, recipe != DARKNET)
    initial = read_weights(path, graph, options.cutoff, content)
    counts_from_0 = options.clear or options.cutoff or recipe != DARKNET
    return replace(initial, seen=0) if counts_from_0 else initial


def _recipe_notes(name: str, options: TrainOptions, files: CheckpointDir, again: bool) -> list[str]:
    """Which recipe is used, where one is."""
    if again:
        ignored = " (--time and --epochs are ignored with --resume)" if options.time or options.epochs else ""
        return [f"recipe: {name}, as written in {files.cfg}{ignored}"]
    if name == DARKNET:
        return ["recipe: darknet, the cfg word for word"] if options.recipe else []
    why = " (no weights to start from)" if name == SCRATCH and options.recipe != SCRATCH else ""
    return [f"recipe: {name}{why}; --recipe darknet trains the cfg as it is"]


def _memory(graph: Graph, local_batch: LocalBatch, options: TrainOptions) -> MemoryEstimate:
    heads = graph.detection_specs
    factor = heads[-1].random if heads and not heads[-1].vector else 0.0
    width, height = largest_size(graph.net, factor)
    scale = width * height / max(graph.net.width * graph.net.height, 1) if factor else 1.0
    images = local_batch.images * graph.net.time_steps
    return estimate_memory(graph, images, scale, options.amp is not None)


def _schedule_notes(edits: tuple[CfgEdit, ...]) -> list[str]:
    """What followed from another max_batches."""
    followed = [edit for edit in edits if edit.section == 0 and edit.reason.startswith("max_batches=")]
    if not followed:
        return []
    return [f"{followed[0].reason}, so {' and '.join(f'{edit.key}={edit.value}' for edit in followed)}"]


def _resume_notes(
    files: CheckpointDir, net: NetSpec, options: TrainOptions, state: TrainingState | None, resumes: bool, given: bool
) -> list[str]:
    """Where a training resumes. given: whether weights or --clear were given, which a resumed training ignores."""
    if not options.resume:
        return []
    if state:
        lines = [f"resuming at iteration {state['learner']['iteration']} of {net.max_batches}"]
        if given or options.seed not in (0, state["learner"]["seed"]):
            lines.append("note: --weights, --clear and --seed are ignored with --resume")
        return lines
    if resumes:
        last = files.path("last.weights")
        return [f"{files.path('last.state')} not found: continuing from {last} with a new optimizer"]
    return [f"nothing to resume in {files.folder}: starting from the beginning"]


def _warnings(graph: Graph, overrides: Mapping[str, NetValue]) -> list[str]:
    net = graph.net
    lines = [
        str(warning) for key in overrides for warning in graph.warnings if f"unknown key {key!r}" in warning.message
    ]
    if net.batch % net.subdivisions:
        lines.append(
            f"batch={net.batch} is not divisible by subdivisions={net.subdivisions}; "
            f"using {counted(net.mini_batch * net.subdivisions, 'image')}"
        )
    if net.burn_in >= net.max_batches:
        lines.append(f"burn_in={net.burn_in} is not over when training ends at max_batches={net.max_batches}")
    return lines


def _change_lines(graph: Graph) -> list[str]:
    """A line for each change of the cfg, or for the same change of several layers of one type."""
    layers: dict[tuple[str, CfgEdit], list[str]] = {}
    for edit in graph.document.edits:
        section, _, index = _section_name(graph, edit).partition(" ")
        layers.setdefault((section, edit._replace(section=0)), []).append(index)
    return [
        f"change: {' '.join([section, ', '.join(indices)]).rstrip()} {edit.key}={edit.value} "
        f"({edit.reason or 'requested'})"
        for (section, edit), indices in layers.items()
    ]


def _section_name(graph: Graph, edit: CfgEdit) -> str:
    if edit.section == 0:
        return "[net]"
    node = graph.layers[edit.section - 1]
    return f"[{node.type}] #{node.index}"


def _steps(net: NetSpec) -> str:
    if net.policy != "steps":
        return ""
    steps = ", ".join(f"{step} (x {scale:g})" for step, scale in zip(net.steps, net.scales, strict=True))
    return f" {steps}" if steps else ""


def _shortened(names: list[str], limit: int = 10) -> str:
    if not names:
        return ""
    return ": " + ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
