"""Networks and detectors as files that run without eqm: torch.export and ONNX."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqm import registry
from eqm.checks import check_kind, kind_of, seeded
from eqm.encoders import FeatureMaps
from eqm.files import replacing
from eqm.sampling.model import describe
from eqm.tasks.calibration import finite
from eqm.tasks.detect import EqmDetector
from eqm.tasks.error_maps import errors_of, relative
from eqm.tasks.scores import ScoreConfig, ScoreContext, as_columns

SCORES = ("dot", "gradient-norm", "loss", "losses", "residuals", "gaussian")
"""The scores that a graph can hold: those without a descent and without zlib."""
ENDINGS = (".pt2", ".onnx")


def export_network(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Returns nothing; writes a network as a graph, `gradient = graph(x, labels)`, for any batch size.

    x is (B, ...) in float32, `labels` (B,) int64, or (B, L) tokens of a model with words; a network without
    classes takes x alone. `path` ends in .pt2 (load it with `torch.export.load(path).module()`) or in .onnx,
    which needs the extra `onnx`.

    Raises ValueError for another ending, a network that does not say its shape, a noise-conditioned network,
    and an explicit energy, whose gradient is no plain graph.
    """
    check_kind(nn.Module, network=network)
    path = _checked(path)
    info = describe(network)
    if info.shape is None:
        raise ValueError("the network must say the shape of a sample, in network.config.shape")
    if info.noise_conditioning or hasattr(network, "energy"):
        raise ValueError(
            "export is for networks that return the field of a time-invariant model; "
            f"got {kind_of(network)}, which is noise-conditioned or an explicit energy"
        )
    x: tuple[Tensor, ...] = (torch.zeros(2, *info.shape),)
    if info.num_classes:
        x += (torch.zeros((2, info.sentence) if info.sentence else 2, dtype=torch.int64),)
    _write(_Field(network), x, path, ("x", "labels")[: len(x)], ("gradient",))


def export_detector(detector: EqmDetector, path: str | os.PathLike[str]) -> None:
    """Returns nothing; writes a calibrated detector as a graph, `scores, maps = graph(pictures)`.

    `pictures` are (B, C, S, S) in float32, in -1..1, at the one size of the detector: resize them first. Scores
    (B,) and maps (B, h, w) are those of `score_samples` and of `anomaly_map` before it is enlarged. Beside
    `path` a file of the same name and the ending .json holds the shape of a picture, the threshold, and the
    sorted scores of the calibration, so that p-values need no eqm. `path` is as for `export_network`.

    Raises ValueError for a detector without calibration, and for the scores that no graph can hold: those that
    descend, and complexity and combined, which compress the picture.
    """
    check_kind(EqmDetector, detector=detector)
    path = _checked(path)
    scores = [detector.score] if isinstance(detector.score, str) else list(detector.score)
    for name in scores:
        if name not in SCORES:
            raise ValueError(
                f"a graph can hold the scores {', '.join(SCORES)}; this detector has {name}: fit another one"
            )
    if detector.calibration is None:
        raise ValueError("the detector is not calibrated: call fit with normal images first")
    encoder, shape = detector.encoder, describe(detector.field).shape
    if isinstance(encoder, FeatureMaps):
        shape = (3 if encoder.repeated or shape is None else shape[0], encoder.side, encoder.side)
    if shape is None or (encoder is not None and not isinstance(encoder, FeatureMaps)):
        raise ValueError("export needs a detector of pictures, or of feature maps of a network")
    about = {
        "format": "eqm exported detector",
        "shape": list(shape),
        "range": [-1, 1],
        "fpr": detector.fpr,
        "threshold": detector.threshold(),
        "calibration": detector.calibration.scores.tolist(),
    }
    _write(_Scored(detector), (torch.zeros(2, *shape),), path, ("pictures",), ("scores", "maps"))
    with replacing(path.with_suffix(".json")) as file:
        file.write_text(json.dumps(about) + "\n", encoding="utf-8")


def _checked(path: str | os.PathLike[str]) -> Path:
    found = Path(path)
    if found.suffix not in ENDINGS:
        raise ValueError(f"the file must end in {' or '.join(ENDINGS)}; got {found.name}")
    if found.suffix == ".onnx" and not (_is_there("onnx") and _is_there("onnxscript")):
        raise ValueError("an .onnx file needs the extra onnx: pip install 'eqm[onnx]'")
    return found


def _write(
    graph: nn.Module, given: tuple[Tensor, ...], path: Path, inputs: Any, outputs: Any
) -> None:
    batch = torch.export.Dim("batch", min=1)
    graph = graph.eval().requires_grad_(False)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's exporters, about their own code
        program = torch.export.export(
            graph, given, dynamic_shapes=tuple({0: batch} for _ in given), strict=False
        )
        if path.suffix == ".pt2":
            written = BytesIO()
            torch.export.save(program, written)
            with replacing(path) as file:
                file.write_bytes(written.getvalue())
            return
        with replacing(path) as file, _quiet("onnxscript", "onnx_ir", "torch.onnx"):
            torch.onnx.export(
                program,
                given,
                str(file),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamo=True,
                external_data=False,
                verbose=False,
            )


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Holds back what these loggers say below an error."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class _Field(nn.Module):
    """A network as a graph sees it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        found: Tensor = self.network(x, labels)
        return found


class _Scored(nn.Module):
    """A detector as a graph sees it: no checks, and the noise of the score as constants."""

    def __init__(self, detector: EqmDetector) -> None:
        super().__init__()
        self.field, self.detector = detector.field, detector
        self.config: ScoreConfig = detector.score_config
        shape = describe(detector.field).shape
        assert shape is not None  # checked
        generator, noises = seeded(self.config.seed), []
        for gamma in self.config.gammas:
            draws = self.config.draws if gamma < 1 else 1
            noises.append([torch.randn(shape, generator=generator) for _ in range(draws)])
        decay = self.config.objective.decay
        decays = [float(decay(torch.full((1,), gamma))) for gamma in self.config.gammas]
        self.noises, self.decays = noises, decays

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        detector = self.detector
        x, encoder = pictures, detector.encoder
        if isinstance(encoder, FeatureMaps):
            x = encoder.white(encoder.raw_of_all(pictures))
        context = _Prepared(
            detector.field, x, None, self.config, detector.usual, self.noises, self.decays
        )
        calibration = detector.calibration
        assert calibration is not None  # checked
        names = [detector.score] if isinstance(detector.score, str) else detector.score
        found = [registry.lookup("score", name)(context) for name in names]
        numbers = torch.cat([as_columns(each) for each in found], 1)
        scores = finite(numbers[:, 0]) if numbers.shape[1] == 1 else calibration.distance(numbers)
        maps = relative(errors_of(context), calibration.expected, x.ndim - 2)
        return scores.float(), maps


@dataclass(frozen=True, eq=False)
class _Prepared(ScoreContext):
    """The context of a graph: the same numbers, without generators and checks of values."""

    noises: Any = ()
    decays: Any = ()

    def residuals(self) -> Iterator[list[Tensor]]:
        for gamma, decay, noises in zip(self.config.gammas, self.decays, self.noises, strict=True):
            found = []
            for noise in noises:
                mixed = gamma * self.x + (1 - gamma) * noise
                found.append(self._gradient_at(mixed, gamma) - (noise - self.x) * decay)
            yield found

    @property
    def mean_residual(self) -> Tensor:
        found = zip(self.residuals(), self.decays, strict=True)
        return torch.stack([torch.stack(draws).mean(0) / decay for draws, decay in found]).mean(0)

    def _gradient_at(self, x: Tensor, gamma: float) -> Tensor:
        if self.config.objective.noise_conditioning:
            return self.field(x, self.labels, self._full(gamma))  # type: ignore[call-arg]
        return self.field(x, self.labels)


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it is hidden
        return False
