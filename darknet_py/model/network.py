"""The graph as a torch module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from darknet_py.errors import CfgError, DarknetError, Problem
from darknet_py.graph.graph import Graph
from darknet_py.inference.detect import DetectArguments, DetectOptions, ImageLike, detect_each, detect_tensor
from darknet_py.inference.detections import Detections
from darknet_py.inference.fused_cache import FusedCache
from darknet_py.inference.steps import Step
from darknet_py.layers.base import (
    HIER_THRESH,
    DetectionHeadSpec,
    HeadLayer,
    HeadLoss,
    Node,
    Predictions,
    ShapeError,
    StatefulLayer,
    TrainState,
    weights_follow,
)
from darknet_py.model.c_emulation import CEmulation
from darknet_py.model.header import Header
from darknet_py.model.model_file import ModelFile, check_trained

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LossReport(NamedTuple):
    """The loss of a mini-batch.

    Attributes:
        total: Scalar; its gradient with respect to each head's input is −(Darknet's delta), summed over the mini-batch.
        cost: Darknet's cost of the mini-batch before division by its size (a detached float64 scalar).
        parts: For each head, by its layer index: named scalars (iou, objectness, count …).
    """

    total: Tensor
    cost: Tensor
    parts: dict[int, dict[str, Tensor]]


class Network(nn.Module):
    """Runs a graph layer by layer and frees each output after its last use.

    Args:
        graph: The network's layers.
        names: Class names.

    Attributes:
        graph: The network's layers.
        names: Class names.
        best_thresh: Confidence threshold of the validation list for `thresh="auto"`, see
            `evaluation.best_threshold.auto_operating_point`; None where it is
            not known.
        layers: The modules; `layers[i]` is cfg layer i.
        heads: The layers with a loss, with their indices.
        state: Where training stands; heads and a few layers read it.
        dtype: Of all layers but the heads, where it is not float32 (see `fuse`).
        is_fused: Whether it is a copy for inference that `fuse` made.
        steps: What `forward` runs instead of the layers one by one; `fuse` sets it.
        loaded_layers: Number of layers, from the first on, with weights from a file or a state dict.
        random_weights: Whether it detects although the other layers have random weights. `load` says no unless it is
            asked for, `Network(graph)` and a network that is trained say yes.

    Raises:
        CfgError: A layer does not fit another that it refers to.
    """

    def __init__(self, graph: Graph, names: Sequence[str] = ()):
        super().__init__()
        self.graph = graph
        self.names = list(names)
        self.best_thresh: float | None = None
        self.dtype: torch.dtype | None = None
        self.is_fused = False
        self.steps: list[Step] | None = None
        self._for_inference: FusedCache[Network] = FusedCache()
        self.loaded_layers = 0
        self.random_weights = True
        self.state = TrainState(max_batches=graph.net.max_batches)
        self.layers = nn.ModuleList(node.spec.build(node) for node in graph.layers)
        for node, layer in zip(graph.layers, self.layers, strict=True):
            try:
                node.spec.link(layer, list(self.layers), graph.layers)
            except ShapeError as error:
                where = f"[{node.type}] #{node.index}"
                raise CfgError([Problem(graph.path, node.line, where, str(error))]) from None
        self.register_load_state_dict_post_hook(_count_loaded)  # type: ignore[no-untyped-call]
        self.heads = [(i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, HeadLayer)]
        for layer in self.modules():
            if isinstance(layer, StatefulLayer):
                layer.state = self.state

    @classmethod
    def of(cls, model: ModelFile) -> Network:
        """The network of a file, with its weights and the number of images seen. Raises WeightsError."""
        with weights_follow() if model.is_complete else nullcontext():
            net = cls(model.graph, model.names)
        net.best_thresh = model.thresh
        if model.tensors:
            net.set_weights(model.fit(model.graph))
        return net

    @property
    def detectors(self) -> list[tuple[int, HeadLayer]]:
        """The heads that give boxes, with their layer indices."""
        return [(i, head) for i, head in self.heads if isinstance(self.graph.layers[i].spec, DetectionHeadSpec)]

    @property
    def nms_kind(self) -> tuple[str, float]:
        """(nms_kind, beta_nms) of the last detection layer: Darknet looks at that one alone."""
        specs = self.graph.detection_specs
        return (specs[-1].nms_kind, specs[-1].beta_nms) if specs else ("default", 0.6)

    @property
    def device(self) -> torch.device:
        """The device of its arrays; the CPU where it has none."""
        return next(self.parameters(), torch.empty(0)).device

    if TYPE_CHECKING:  # torch types it as a function of anything

        def __call__(self, x: Tensor, hier: float = HIER_THRESH) -> Predictions | Tensor: ...

    def forward(self, x: Tensor, hier: float = HIER_THRESH) -> Predictions | Tensor:
        """Runs the network.

        Args:
            x: (B, C, H, W) RGB in 0..1; (B, inputs) for networks without images.
            hier: Class trees only: probability above which a class is reported.

        Returns:
            Of detectors, the `Predictions` of all heads together, boxes (B, N, 4) relative to the input. Of other
            networks the last layer's output, (B, N) for vectors.

        Raises:
            DarknetError: The input has another shape.
        """
        return self._forward(x, lambda node, module, inputs: None, hier, self.steps)

    def predict(self, x: Tensor, hier: float = HIER_THRESH) -> Predictions:
        """As `forward`, of a detector. Raises DarknetError for a network without detection layers."""
        predictions = self(x, hier) if self.detectors else None
        if not isinstance(predictions, Predictions):
            raise DarknetError(f"{self.graph.path}: this network has no detection layer")
        return predictions

    def predict_vector(self, x: Tensor) -> Tensor:
        """As `forward`, (B, N), of a network without detection layers. Raises DarknetError for a detector."""
        output: Predictions | Tensor = self(x)
        if isinstance(output, Predictions):
            raise DarknetError(f"{self.graph.path}: expected a network without detection layers, got a detector")
        return output.flatten(1)

    def forward_with_loss(self, x: Tensor, truth: Tensor) -> tuple[Predictions | Tensor, Tensor]:
        """Runs the network once, for its output and its loss.

        Heads count as they do late in training, so that nothing is drawn at random and the weights alone decide; heads
        that compare images with each other are left out.

        Args:
            x: As `forward` takes it.
            truth: As `loss` takes it.

        Returns:
            What `forward` gives, and Darknet's cost of the mini-batch (float64) divided by the number of heads.

        Raises:
            DarknetError: No layer has a loss.
        """
        late, costs = TrainState(seen=1 << 40), []

        def cost(node: Node, module: nn.Module, inputs: list[Tensor]) -> None:
            if isinstance(module, HeadLayer) and not module.is_contrastive and not node.common.onlyforward:
                costs.append(_head_loss(module, inputs[0], truth, late).cost)

        output = self._forward(x, cost)
        if not costs:
            raise DarknetError(f"{self.graph.path}: no layer of this network has a loss")
        return output, torch.stack(costs).mean()

    def _forward(
        self,
        x: Tensor,
        before: Callable[[Node, nn.Module, list[Tensor]], None],
        hier: float = HIER_THRESH,
        steps: list[Step] | None = None,
    ) -> Predictions | Tensor:
        """`forward`, with `before` called before each step (default: each layer)."""
        decoded: list[Predictions] = []
        last: list[Tensor] = []

        def keep(node: Node, module: nn.Module, inputs: list[Tensor]) -> Tensor:
            before(node, module, inputs)
            output: Tensor = module(*inputs)
            if isinstance(module, HeadLayer) and isinstance(node.spec, DetectionHeadSpec):
                decoded.append(module.decode(output, hier))
            last[:] = [output]
            return output

        self._run(x, keep, steps)
        if decoded:
            return Predictions(*(torch.cat(parts, 1) for parts in zip(*decoded, strict=True)))
        return _as_darknet(last[0], self.graph.layers[-1])

    def outputs(self, x: Tensor) -> list[Tensor | None]:
        """Runs the network and reproduces what C Darknet's CPU build keeps in each layer's `l.output`.

        C's faults are included: see `model.c_emulation` for the few cfgs where this is not what the network computes.

        Args:
            x: As `forward` takes it.

        Returns:
            For each layer (B, C, H, W), or (B, N) for vectors; None where Darknet keeps nothing.
        """
        build = CEmulation(self.graph.layers, list(self.layers))
        outputs: list[Tensor | None] = []

        def keep(node: Node, module: nn.Module, inputs: list[Tensor]) -> Tensor:
            output: Tensor = module(*inputs)
            c_output = build.output(node, module, inputs, output)
            outputs.append(None if c_output is None else c_output.clone())
            return output

        with build.faults():
            self._run(x, keep)
        return outputs

    def loss(self, x: Tensor, truth: Tensor) -> LossReport:
        """Runs a mini-batch and computes the losses of all heads.

        Args:
            x: (B, C, H, W) RGB in 0..1.
            truth: For detectors (N, 6) rows (image, class, cx, cy, w, h), relative to the input; for classifiers
                (B, outputs).

        Returns:
            The loss, its gradients those of Darknet.

        Raises:
            DarknetError: No layer has a loss.
        """
        totals: list[Tensor] = []
        costs: list[Tensor] = []
        parts: dict[int, dict[str, Tensor]] = {}

        def measure(node: Node, module: nn.Module, inputs: list[Tensor]) -> Tensor | None:
            if isinstance(module, HeadLayer) and not node.common.onlyforward:
                report = _head_loss(module, inputs[0], truth, self.state)
                totals.append(report.total)
                costs.append(report.cost)
                parts[node.index] = report.parts
                if node.last_use == node.index:
                    return None
            output: Tensor = module(*inputs)
            return output

        if torch.is_grad_enabled():
            self.random_weights = True  # they are being trained
        truth = truth if truth.numel() else truth.reshape(0, 6)  # no boxes at all, as torch.tensor([]) gives them
        self.state.truth = truth
        try:
            self._run(x, measure)
        finally:
            self.state.truth = None
        if not totals:
            raise DarknetError(f"{self.graph.path}: no layer of this network has a loss")
        return LossReport(torch.stack(totals).sum(), torch.stack(costs).sum(), parts)

    def load_weights(self, path: str | Path, cutoff: int | None = None, *, ignore_rest: bool = False) -> Header:
        """Reads a `.weights` file or a checkpoint, and logs how many layers it has.

        Args:
            path: The file. A partial one (`*.conv.N`) fills the layers that it has.
            cutoff: Only the layers before this one are filled (default: all).
            ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.

        Returns:
            The file's header; its number of images seen becomes that of the network.

        Raises:
            WeightsError: The file cannot be read or does not fit the network, or holds values that are not finite.
        """
        stored = ModelFile.read_weights(path, self.graph, cutoff=cutoff, ignore_rest=ignore_rest)
        model = stored.fit(self.graph, cutoff)
        model.log_loaded()
        self.set_weights(model)
        return model.header

    def save_weights(self, path: str | Path, cutoff: int | None = None, seen: int | None = None) -> None:
        """Writes a Darknet `.weights` file.

        Args:
            path: The file; it is complete or not there.
            cutoff: Only the layers before this one are written (default: all).
            seen: Number of images trained on, for the header (default: the network's).

        Raises:
            WeightsError: The file cannot be written.
        """
        self.model_file(seen).write_weights(path, cutoff)

    def set_weights(self, model: ModelFile) -> None:
        """Copies the arrays that a file has, which must fit, and the number of images seen."""
        self.copy_tensors(model.tensors)
        self.loaded_layers = max(self.loaded_layers, model.loaded_layers)
        self.state.seen = model.header.seen
        self.state.iteration = model.header.seen // self.graph.net.batch_images

    def require_weights(self) -> None:
        """Checks that it does not run with random weights that nobody asked for. Raises WeightsError."""
        if not self.random_weights:
            check_trained(self.graph.path, self.loaded_layers, len(self.layers))

    def copy_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies arrays into those of the same names in the state dict."""
        state = self.state_dict()
        with torch.no_grad():
            for name, values in tensors.items():
                state[name].copy_(values)

    def model_file(self, seen: int | None = None) -> ModelFile:
        """The network as a file holds it; the arrays are the network's own. seen: for the header."""
        header = Header(seen=self.state.seen if seen is None else seen)
        return ModelFile(self.graph, tuple(self.names), header, self.state_dict(), self.best_thresh)

    def threshold(self, thresh: float | str) -> float:
        """A confidence threshold as a number.

        Args:
            thresh: A number, or "auto" for the threshold of the best F1 on the validation list, which a training stores
                in NAME_best.json beside NAME_best.weights, and `convert` in a checkpoint.

        Raises:
            DarknetError: No threshold is stored with the weights.
        """
        if not isinstance(thresh, str):
            return thresh
        if thresh != "auto":
            raise DarknetError(f'thresh: expected a number or "auto", got {thresh!r}')
        if self.best_thresh is None:
            raise DarknetError(
                "thresh=auto: expected weights with a stored threshold (NAME_best.weights beside NAME_best.json), got "
                "others; `evaluate` prints the threshold of the best F1"
            )
        return self.best_thresh

    def boxes(
        self, x: Tensor, thresh: float = 0.25, nms: float = 0.45, *, hier: float = HIER_THRESH
    ) -> list[Detections]:
        """Detects objects in a ready input tensor.

        Args:
            x: (B, C, H, W) RGB in 0..1.
            thresh: Confidence threshold.
            nms: IoU threshold for non-maximum suppression; 0 suppresses nothing.
            hier: Class trees only: probability above which a class is reported.

        Returns:
            The detections of each image; boxes are relative to the input.

        Raises:
            DarknetError: The network has no detection layer.
            WeightsError: Its weights are random, and that was not asked for (`load`).
        """
        self.require_weights()
        return detect_tensor(self._for_inference.get(self), x, DetectOptions(thresh, nms, hier=hier))

    def detect(
        self,
        images: ImageLike | Iterable[ImageLike],
        thresh: float | Literal["auto"] = 0.25,
        nms: float = 0.45,
        *,
        bgr: bool = False,
        letter_box: bool | None = None,
        hier: float = HIER_THRESH,
        stb: bool = False,
        batch: int = 1,
        agnostic: bool = False,
        class_thresh: Mapping[int | str, float] | None = None,
        tiles: int = 0,
        overlap: float = 0.2,
    ) -> list[Detections]:
        """Detects objects in images, which are resized as C's `detector test` does.

            net.detect(cv2.imread("dog.jpg"), bgr=True)  # OpenCV's arrays are BGR; RGB is the default
            net.detect("dog.jpg")
            net.detect("photos/", thresh=0.5)

        Args:
            images: One or several (a list, or any iterable, which is read as it is needed): paths of files, of folders
                (without subfolders), globs, lists of images (.txt), http(s) addresses, the bytes of an image file,
                uint8 arrays (H, W, C) or (H, W), tensors (C, H, W) or (B, C, H, W) of uint8 or of floats in 0..1, or
                PIL images, which are taken as they are stored (no EXIF rotation). Tensors are RGB.
            thresh: Confidence threshold; "auto" is the one stored with the weights, see `threshold`.
            nms: IoU threshold for non-maximum suppression; 0 suppresses nothing.
            bgr: Whether arrays have their channels in OpenCV's order (blue, green, red), as `cv2.imread` and
                `cv2.VideoCapture` give them; otherwise they are RGB. Nothing else is affected.
            letter_box: Whether an image keeps its aspect ratio in the input; None: as the cfg's `letter_box`.
            hier: Class trees (YOLO9000) only: the most specific class with a probability above it is reported.
            stb: Whether JPEGs are decoded as by a C Darknet without OpenCV.
            batch: Images per forward pass.
            agnostic: Whether suppression looks at all classes together; a box then has one class.
            class_thresh: Confidence thresholds of single classes, by number or name, instead of `thresh`.
            tiles: Images that are larger are also searched in square tiles of so many pixels, so that small objects
                keep their size; 0: as a whole only.
            overlap: Share of a tile that its neighbor has too.

        Returns:
            The detections of each image, by falling confidence; boxes are relative to the image. `path` says which
            file it was.

        Raises:
            DataError: An image cannot be read, or `class_thresh` names a class that the network does not have.
            DarknetError: An array has another shape, or the network has no detection layer.
            WeightsError: Its weights are random, and that was not asked for (`load`).
        """
        return list(
            self.detect_each(
                images,
                thresh,
                nms,
                bgr=bgr,
                letter_box=letter_box,
                hier=hier,
                stb=stb,
                batch=batch,
                agnostic=agnostic,
                class_thresh=class_thresh,
                tiles=tiles,
                overlap=overlap,
            )
        )

    def detect_each(
        self,
        images: ImageLike | Iterable[ImageLike],
        thresh: float | Literal["auto"] = 0.25,
        nms: float = 0.45,
        **options: Unpack[DetectArguments],
    ) -> Iterator[Detections]:
        """As `detect`, one image after the other: memory does not grow with their number.

            for found in net.detect_each(frames(), thresh=0.5, batch=4):  # frames() may be endless

        Args:
            images: As `detect` takes them. `batch` images of an iterator are read at once.
            thresh: As in `detect`.
            nms: As in `detect`.
            options: The other arguments of `detect`.

        Returns:
            An iterator over the detections of each image.

        Raises:
            DataError: As `detect`, for an image when its turn comes.
            DarknetError: As `detect`.
            WeightsError: As `detect`.
        """
        self.require_weights()
        chosen = DetectOptions.of(self.threshold(thresh), nms, self.names, options)
        return detect_each(self._for_inference.get(self), images, chosen)

    def _run(
        self,
        x: Tensor,
        call: Callable[[Node, nn.Module, list[Tensor]], Tensor | None],
        steps: Iterable[tuple[Node, nn.Module]] | None = None,
    ) -> None:
        """Calls `call` for each step (default: each layer) in order with its inputs; it gives that layer's output."""
        self._check_input(x)
        x = x if self.dtype is None else x.to(self.dtype)
        outputs: dict[int, Tensor] = {-1: x if x.dim() == 4 else x[:, :, None, None]}
        for _, head in self.heads:
            head.input_size = (x.shape[3], x.shape[2]) if x.dim() == 4 else (1, 1)
        for node, module in steps or zip(self.graph.layers, self.layers, strict=True):
            output = call(node, module, [outputs[source] for source in node.sources])
            if output is not None and node.common.onlyforward:
                output = output.detach()  # `backward_network` passes over such a layer
            for source in node.frees:
                outputs.pop(source, None)
            if output is not None and node.last_use > node.index:
                outputs[node.index] = output

    def _check_input(self, x: Tensor) -> None:
        expected = self.graph.input
        if x.dim() == 2 and expected.size == x.shape[1]:
            return
        if x.dim() != 4 or x.shape[1] != expected.c:
            raise DarknetError(f"expected an input of (batch, {expected.c}, height, width), got {tuple(x.shape)}")


def _count_loaded(network: nn.Module, keys: torch.nn.modules.module._IncompatibleKeys) -> None:
    """A complete state dict counts as trained weights."""
    if isinstance(network, Network) and not keys.missing_keys:
        network.loaded_layers = len(network.layers)


def _head_loss(head: HeadLayer, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
    """In float32 whatever the layers before run in: a sum over thousands of cells needs more than 16 bits."""
    with torch.autocast(x.device.type, enabled=False):
        return head.loss(x.float(), truth, state)


def _as_darknet(output: Tensor, node: Node) -> Tensor:
    return output.flatten(1) if node.spec.vector else output
