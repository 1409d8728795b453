"""`/v1/detect`: which pictures are unlike the training data, by the detector of the model."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from eqm.pictures import heatmap
from eqm.sampling.model import Model
from eqm.serving.http import schemas
from eqm.serving.http.answers import Running, Work, number
from eqm.serving.http.limits import Limits
from eqm.serving.http.pictures import png
from eqm.serving.http.uses import given_pictures
from eqm.serving.models import Served
from eqm.tasks import EqmDetector

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""The false-positive rates whose thresholds are told."""


class Judged(NamedTuple):
    """What a detector says of B pictures."""

    images: Tensor
    """(B, C, H, W)."""
    scores: Tensor
    """(B,)."""
    maps: Tensor | None
    """(B, H, W), if they were asked for."""
    detector: EqmDetector


def judge(model: Model, images: Tensor, x: Tensor, detector: EqmDetector, maps: bool) -> Judged:
    """The scores, and if asked the maps, of `images` whose samples are x (B, ...)."""
    here = replace(detector, field=model)
    found = here.anomaly_map(x) if maps else None
    return Judged(images, here.score_samples(x), found, detector)


def plan_detect(ask: schemas.DetectAsk, limits: Limits, served: Served) -> Work:
    """The work of `/v1/detect`."""
    if served.detector is None:
        raise ValueError(
            f"the model {served.name} has no detector: calibrate one on normal pictures, with "
            "`eqm detect MODEL PICTURES --normal PICTURES --save`"
        )
    detector = served.detector
    if ask.fpr is not None:
        detector = replace(detector, fpr=ask.fpr)
        detector.threshold()  # refuses a rate for which the calibration is too small
    limits.check_answer(len(ask.images) * ask.maps, *served.image_shape[1:])
    given, latents = given_pictures(served, ask.images, ask.resize, limits)
    return Work(
        judge, (given.images, latents, detector, ask.maps), notes=given.notes, detecting=True
    )


def verdicts_of(running: Running, judged: Judged) -> schemas.Verdicts:
    """The answer of `/v1/detect`."""
    detector, images = judged.detector, judged.images
    threshold = detector.threshold()
    rows = zip(judged.scores.tolist(), detector.p_values_of(judged.scores).tolist(), strict=True)
    drawn = [None] * len(images) if judged.maps is None else _drawn(images, judged.maps)
    assert detector.calibration is not None  # it was loaded with one
    return schemas.Verdicts(
        id=running.id,
        created=running.created,
        model=running.served.name,
        score=detector.score if isinstance(detector.score, str) else "+".join(detector.score),
        results=[
            schemas.Verdict(
                index=k,
                score=number(score),
                p_value=p_value,
                anomalous=score > threshold,
                map=drawn[k],
            )
            for k, (score, p_value) in enumerate(rows)
        ],
        threshold=threshold,
        fpr=detector.fpr,
        thresholds=_thresholds(detector),
        calibrated_on=len(detector.calibration.scores),
        seconds=round(time.monotonic() - running.began, 4),
        notes=list(running.work.notes),
    )


def _thresholds(detector: EqmDetector) -> list[schemas.Threshold]:
    found = []
    for rate in RATES:
        try:
            found.append(schemas.Threshold(fpr=rate, threshold=detector.threshold(rate)))
        except ValueError:  # the calibration is too small for this rate
            continue
    return found


def _drawn(images: Tensor, maps: Tensor) -> list[str | None]:
    sides = images.shape[-2:]
    wide = maps.float()[:, None]
    if wide.shape[-2:] != sides:
        wide = functional.interpolate(wide, sides, mode="bilinear")
    with torch.no_grad():
        return [png(image) for image in heatmap(images[:, :3], wide[:, 0])]
