"""Every public function with hostile arguments of each kind: a right result, or a ValueError in one line.

A call never changes a tensor of the caller, and never ends in an error from inside.
"""

import math
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

import eqm
import eqm.evaluation
from eqm import couplings, descent, features, gammas, metrics, sampling, tasks
from eqm.corruption import decay_of
from eqm.features.features import Activations
from eqm.sampling.start import check_seeds
from eqm.tasks.scores import ScoreConfig

B, SHAPE = 3, (1, 4, 4)


def tensor(*shape, seed=0):
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, LABELS = tensor(B, *SHAPE).clamp(-1, 1), torch.tensor([0, 1, 2])
IMAGES = tensor(12, 1, 16, 16).clamp(-1, 1)
ROWS, OTHERS = tensor(12, 3), tensor(14, 3, seed=1)
SCORES = tensor(9)
MAPS = tensor(3, 6, 6)
MASKS = MAPS + tensor(3, 6, 6, seed=1) > 0.3


class Model(nn.Module):
    """A field with classes and weights."""

    shape, num_classes = SHAPE, 3

    def __init__(self):
        super().__init__()
        self.centres = nn.Embedding(4, 16)
        self.metadata = {}

    def forward(self, x, labels):
        if labels is None:
            return 4 * x
        return 4 * (x - 0.1 * self.centres(labels).view(len(x), *SHAPE))


with torch.random.fork_rng():
    torch.manual_seed(0)
    MODEL = Model().eval().requires_grad_(False)
ENERGY = eqm.DotEnergy(Model().eval())
SHORT = eqm.Sampling("gradient-descent", step_size=0.05, path_length=0.1)
RULE, STOP = eqm.GradientDescent(0.05), eqm.GradientNorm(0.1)
WAY = descent.record_trajectory(MODEL, X, rule=RULE, at=range(9), max_steps=8)
ENDS = list(descent.stream(MODEL, X, rule=RULE, batch_size=2, max_steps=2))
DESCENT = tasks.generate(MODEL, count=2, sampling=SHORT)
DETECTOR = tasks.EqmDetector(MODEL, "dot").fit(tensor(30, *SHAPE).clamp(-1, 1))
CONFIG = ScoreConfig.of(MODEL)
MOMENTS = metrics.Moments.of(ROWS)
CLASSIFIER = features.Classifier(shape=(1, 16, 16), num_classes=3).eval()
OPTIMAL = eqm.OptimalField(X, labels=LABELS)


def conditioned(x, labels, gamma):
    return x


class Linear(nn.Module):
    def forward(self, images):
        return images.flatten(1)


def drain(function):
    """The function, whose lazy result is taken whole."""
    return lambda **given: list(function(**given))


def called(make):
    """What `make` makes, called with samples and labels."""
    return lambda **given: make(**given)(X.clone(), LABELS.clone())


TENSORS = [
    *(None, "text", 3, 2.5, [1.0, 2.0], [[0.1, "a"]], {1.0}, {"a": 1}, object(), b"x", [], [[]]),
    *(X.numpy(), (X * 100).byte(), X.long(), X > 0, X.cfloat(), X.to("meta"), X.to_sparse()),
    *(
        torch.tensor(1.0),
        torch.tensor(1),
        torch.zeros(0),
        X[:0],
        X[:1],
        X[0],
        X.flatten(1),
        X[..., :0],
    ),
    *(X * math.nan, X + math.inf, X.double(), X.half(), X.bfloat16(), X.repeat(2, 1, 1, 1)),
    *(X.clone().requires_grad_(), X.numpy()[::-1], np.array(["a"]), np.array([None]), X * 1e30),
    *(ROWS, ROWS[:0], ROWS[:1], ROWS[:, :0], SCORES, SCORES[:0], SCORES * math.nan, SCORES[:1]),
    *(
        ROWS.numpy().astype(">f8"),
        ROWS.tolist(),
        SCORES.tolist(),
        IMAGES,
        IMAGES.numpy(),
        IMAGES[:0],
    ),
    *(np.float32(1), np.array(1.0), ROWS.numpy().astype(np.float16), torch.ones(B, 2).long()),
]
CLASSES = [
    *(
        {1, 2},
        1.5,
        "cat",
        "1",
        -1,
        3,
        99,
        2**70,
        True,
        None,
        object(),
        [],
        [0, 1],
        [0, 1, 2],
        ["a"] * 3,
    ),
    *(
        [0.5] * 3,
        [None] * 3,
        [[0, 1, 2]],
        {"a": 1},
        b"abc",
        range(3),
        (0, 1, 9),
        [True] * 3,
        [2**70] * 3,
    ),
    *(LABELS.float(), LABELS - 5, LABELS + 50, LABELS[:2], LABELS[None], LABELS.int(), LABELS > 0),
    *(LABELS.numpy(), LABELS.numpy() * 1.0, LABELS.to("meta"), torch.tensor(1), torch.tensor(0.5)),
    *(LABELS.cfloat(), LABELS[:0], np.array([math.nan] * 3), np.array(["0", "1", "2"])),
]
COUNTS = [0, -1, 1, 2, 1.5, 2.0, "3", True, math.nan, math.inf, 2**70, -(2**70), [1], object(), 1j]
COUNTS += [np.int64(2), np.float64(2), torch.tensor(2), {}, None, b"1"]
SEEDS = [1.5, "x", True, 2**70, -(2**70), 2**63 - 1, -(2**63), -1, np.int64(3), [1], None, math.nan]
NUMBERS = [
    math.nan,
    math.inf,
    -math.inf,
    -1,
    0,
    0.5,
    1,
    2,
    "x",
    [1],
    True,
    1j,
    10**400,
    object(),
    None,
]
NUMBERS += [np.float32(0.5), torch.tensor(0.5), torch.ones(2), b"1"]
FIELDS = [None, 3, "fashion-mnist", Model, [], {}, torch.ones(2), nn.Module, np.ones(3), object()]
PARTS = [
    None,
    [],
    "gradient-descent",
    "path-length",
    3,
    eqm.GradientDescent,
    eqm.PathLength,
    {},
    object(),
]
PARTS += [eqm.GradientDescent(0.1), eqm.PathLength(0.1), lambda x: x]
SAMPLINGS = [{}, "x", 3, [], eqm.Sampling, {"rule": "euler"}, object(), None]
SHAPES = [
    3,
    "x",
    (2.5,),
    (-1,),
    (0,),
    (),
    [None],
    (10**12,),
    (2, 2),
    {1},
    torch.ones(2),
    list(SHAPE),
    None,
]
CALLABLES = [3, "x", [], None, torch.ones(2), dict, lambda *given: None]
CHOICES = [3, None, "x", [], {}, True, b"normal"]
ROWS_OF = [
    None,
    "abc",
    3,
    2.5,
    {},
    {1.0},
    [],
    [None],
    [1, 2],
    ["a"],
    X,
    X[0],
    [X[0], X[0][0]],
    object(),
]
GAMMAS = [
    None,
    "abc",
    3,
    [],
    ["a"],
    [2.0],
    [math.nan],
    {0.5},
    [[0.5]],
    torch.ones(2),
    np.ones(2),
    [True],
]
OTHER = [None, 3, "x", [], {}, object(), torch.ones(2)]
NAMES = [None, 3, "no such name", "", [], ("dot", "dot"), (), {"dot": 1}, [3], b"dot", object()]

KINDS = {
    **dict.fromkeys(
        ["x", "data", "noise_tensor", "gamma", "images", "clean", "measurement"], TENSORS
    ),
    **dict.fromkeys(
        ["samples", "references", "features", "probabilities", "first", "last"], TENSORS
    ),
    **dict.fromkeys(["normal_scores", "anomalous_scores", "reference", "mask", "kernel"], TENSORS),
    **dict.fromkeys(["mean", "covariance", "scores_tensor", "like", "maps", "good"], TENSORS),
    **dict.fromkeys(["labels", "label", "classes"], CLASSES),
    **dict.fromkeys(["count", "max_steps", "batch_size", "steps", "order", "probes"], COUNTS),
    **dict.fromkeys(
        ["iterations", "moments", "draws", "resamples", "subsets", "subset_size"], COUNTS
    ),
    **dict.fromkeys(
        ["halvings", "splits", "neighbours", "components", "num_classes", "epochs"], COUNTS
    ),
    **dict.fromkeys(
        ["nodes", "patience", "budget", "factor", "depth", "channels", "null_label"], COUNTS
    ),
    **dict.fromkeys(["sample_count", "nfe", "size"], COUNTS),
    "seed": SEEDS,
    **dict.fromkeys(
        ["scale", "start", "initial", "exponent", "length", "relative", "absolute"], NUMBERS
    ),
    **dict.fromkeys(
        ["guidance", "noise", "strength", "tolerance", "fpr", "level", "tpr", "limit"], NUMBERS
    ),
    **dict.fromkeys(["learning_rate", "floor", "sigma", "step_size", "momentum", "ratio"], NUMBERS),
    **dict.fromkeys(
        ["threshold", "temperature", "angle", "contamination", "beta1", "beta2"], NUMBERS
    ),
    **dict.fromkeys(["epsilon", "ridge", "max_ratio", "first_step", "last_number"], NUMBERS),
    **dict.fromkeys(["min_step", "max_step"], NUMBERS),
    **dict.fromkeys(["field", "model", "net", "base"], FIELDS),
    **dict.fromkeys(["rule", "stop", "other"], PARTS),
    "sampling": SAMPLINGS,
    "shape": SHAPES,
    **dict.fromkeys(["decay", "operator", "statistic", "functions", "make", "read"], CALLABLES),
    **dict.fromkeys(["aim", "by", "through", "positive"], CHOICES),
    **dict.fromkeys(["starts", "starting_labels", "at", "fields", "weights", "rows"], ROWS_OF),
    **dict.fromkeys(["interval", "guidance_interval"], ROWS_OF),
    "gammas": GAMMAS,
    "seeds": [*ROWS_OF, [2**70], range(2**63 - 1, 2**63 + 1), [1.5], [True]],
    **dict.fromkeys(["trajectory", "descent", "ends", "a", "b", "moments_of", "expression"], OTHER),
    **dict.fromkeys(["models", "masks", "config", "objective", "generator", "module"], OTHER),
    **dict.fromkeys(["classifier", "settings"], OTHER),
    **dict.fromkeys(["score", "name"], NAMES),
}


@dataclass(frozen=True)
class Call:
    """A call that works; `kinds` names the kind of an argument that is not called as its kind."""

    function: object
    given: dict
    kinds: dict


def call(function, *, kinds=None, **given):
    return Call(function, given, kinds or {})


FIELD = {"field": MODEL, "x": X, "labels": LABELS}
MANY = {"labels": LABELS, "count": 3, "seed": 1, "sampling": SHORT, "shape": SHAPE}
CALLS = {
    # core
    "corrupt": call(
        eqm.corrupt, data=X, noise=X, gamma=torch.rand(B), kinds={"noise": "noise_tensor"}
    ),
    "LinearDecay": call(eqm.LinearDecay, scale=1.0),
    "TruncatedDecay": call(eqm.TruncatedDecay, start=0.8, scale=4.0),
    "PiecewiseDecay": call(eqm.PiecewiseDecay, start=0.8, initial=1.4, scale=1.0),
    "ConstantDecay": call(eqm.ConstantDecay, scale=1.0),
    "LinearDecay()": call(eqm.LinearDecay(), gamma=torch.rand(3)),
    "TruncatedDecay()": call(eqm.TruncatedDecay(), gamma=torch.rand(3)),
    "PiecewiseDecay()": call(eqm.PiecewiseDecay(), gamma=torch.rand(3)),
    "ConstantDecay()": call(eqm.ConstantDecay(), gamma=torch.rand(3)),
    "Power": call(gammas.Power, exponent=1.3, kinds={"exponent": "scale"}),
    "LogitNormal": call(
        gammas.LogitNormal, mean=0.5, deviation=1.0, kinds={"mean": "scale", "deviation": "scale"}
    ),
    "Tabulated": call(partial(gammas.Tabulated, torch.square), end=1.0, kinds={"end": "floor"}),
    "Sinkhorn": call(
        couplings.Sinkhorn,
        regularisation=0.02,
        iterations=3,
        kinds={"regularisation": "scale", "iterations": "draws"},
    ),
    "InverseDecay": call(partial(gammas.InverseDecay, eqm.LinearDecay()), floor=0.01),
    "EquilibriumMatching": call(
        eqm.EquilibriumMatching(),
        **{"field": MODEL, "data": X, "labels": LABELS, "generator": None},
    ),
    "loss_at": call(
        eqm.EquilibriumMatching().loss_at,
        **{"field": MODEL, "data": X, "labels": LABELS, "noise": X, "gamma": torch.rand(B)},
        kinds={"noise": "noise_tensor"},
    ),
    "guide": call(
        called(eqm.guide),
        **{
            "field": MODEL,
            "scale": 2.0,
            "null_label": 3,
            "channels": 1,
            "interval": (0.1, 0.2),
            "norm": 0.5,
        },
        kinds={"norm": "scale"},
    ),
    "condition": call(called(eqm.condition), field=MODEL, label=1),
    "compose": call(called(eqm.compose), fields=[MODEL, MODEL], weights=[1.0, 2.0], base=MODEL),
    "DotEnergy": call(eqm.DotEnergy, net=Model()),
    "NormEnergy": call(eqm.NormEnergy, net=Model()),
    "DotEnergy()": call(ENERGY, x=X, labels=LABELS % 3),
    "energy_and_gradient": call(ENERGY.energy_and_gradient, x=X, labels=LABELS),
    "OptimalField": call(eqm.OptimalField, data=X, decay=None, labels=LABELS, nodes=33, floor=1e-3),
    "OptimalField()": call(OPTIMAL, x=X, labels=LABELS),
    # descent
    "descend": call(descent.descend, **FIELD, rule=RULE, stop=STOP, max_steps=3),
    "iterate": call(
        lambda **given: list(islice(descent.iterate(**given), 9)),
        **FIELD,
        **{"rule": RULE, "stop": STOP},
    ),
    "stream": call(
        drain(descent.stream),
        **{"field": MODEL, "starts": X, "labels": [0, 1, 2], "rule": RULE, "stop": STOP},
        **{"batch_size": 2, "max_steps": 3},
    ),
    "stream of a list": call(
        drain(descent.stream),
        **{"field": MODEL, "starts": list(X), "labels": [0, 1, 2], "rule": RULE, "batch_size": 2},
        max_steps=3,
        kinds={"labels": "starting_labels"},
    ),
    "collect": call(descent.collect, ends=ENDS, like=X[:0]),
    "record_trajectory": call(
        descent.record_trajectory,
        **FIELD,
        **{"rule": RULE, "at": [0, 1], "by": "steps", "stop": STOP, "max_steps": 3},
    ),
    "measure_trajectory": call(
        descent.measure_trajectory, field=MODEL, trajectory=WAY, labels=LABELS
    ),
    "fit_multistep": call(
        descent.fit_multistep,
        **{"field": MODEL, "trajectory": WAY, "labels": None, "steps": 2, "order": 2},
        exponent=1.5,
    ),
    "integrate": call(
        descent.integrate,
        **{"field": conditioned, "x": X, "labels": LABELS, "steps": 2, "start": 0.1},
        **{"decay": eqm.LinearDecay(), "guidance": 2.0, "null_label": 3},
        guidance_interval=(0.1, 0.2),
    ),
    "dopri5": call(descent.dopri5, **FIELD, length=0.1, relative=1e-2, absolute=1e-2),
    "curl": call(descent.curl, **FIELD, probes=2, seed=0),
    "stiffness": call(descent.stiffness, **FIELD, iterations=2, seed=0),
    "stability_limit": call(descent.stability_limit, rule=RULE),
    "GradientDescent": call(eqm.GradientDescent, step_size=0.1),
    "NesterovLookahead": call(eqm.NesterovLookahead, step_size=0.1, momentum=0.3),
    "Adam": call(eqm.Adam, step_size=0.1, beta1=0.9, beta2=0.9, epsilon=1e-8),
    "RMSProp": call(eqm.RMSProp, step_size=0.1, beta2=0.9, epsilon=1e-8),
    "BarzilaiBorwein": call(eqm.BarzilaiBorwein, first_step=0.01, min_step=0.001, max_step=0.05),
    "Anderson": call(eqm.Anderson, step_size=0.1, depth=2, ridge=1e-4, max_ratio=3.0),
    "AdamsBashforth": call(eqm.AdamsBashforth, step_size=0.1, order=2),
    "Langevin": call(eqm.Langevin, step_size=0.1, temperature=1.0, seed=0),
    "LinearMultistep": call(eqm.LinearMultistep, rows=[(1.0, 0.5)]),
    "CosineSteps": call(eqm.CosineSteps, length=0.4, steps=4),
    "EvenGamma": call(
        eqm.EvenGamma, decay=eqm.LinearDecay(), steps=4, last=1.0, kinds={"last": "last_number"}
    ),
    "TorchOptimizer": call(eqm.TorchOptimizer, make=partial(torch.optim.SGD, lr=0.1)),
    "GradientNorm": call(eqm.GradientNorm, threshold=0.1),
    "RelativeGradientNorm": call(eqm.RelativeGradientNorm, ratio=0.1),
    "Stagnation": call(eqm.Stagnation, patience=3, ratio=0.9),
    "PathLength": call(eqm.PathLength, length=0.5),
    "MaxNFE": call(eqm.MaxNFE, budget=3),
    "|": call(lambda other: eqm.MaxNFE(3) | other, other=eqm.PathLength(0.1)),
    # sampling
    "prepare": call(sampling.prepare, model=MODEL, **MANY),
    "starting_noise": call(sampling.starting_noise, shape=SHAPE, seeds=[1, 2]),
    "check_seeds": call(check_seeds, seeds=[1, 2]),
    "describe": call(sampling.describe, model=MODEL),
    "diagnose": call(
        sampling.diagnose,
        **{"model": MODEL, "descent": DESCENT, "labels": [0, 1], "sampling": SHORT, "seed": 0},
    ),
    "check_sampling": call(sampling.check_sampling, decay=eqm.LinearDecay(), sampling=SHORT),
    "guided": call(sampling.guided, model=MODEL, sampling=SHORT, labels=LABELS),
    "Sampling": call(
        eqm.Sampling,
        **{"step_size": 0.1, "momentum": 0.3, "guidance": 1.0, "guidance_interval": (0.1, 0.2)},
    ),
    # tasks
    "generate": call(tasks.generate, model=MODEL, **MANY, batch_size=2),
    "draw": call(drain(tasks.draw), model=MODEL, **MANY, batch_size=2),
    "gather": call(tasks.gather, ends=ENDS),
    "trajectory": call(tasks.trajectory, model=MODEL, **MANY, moments=2),
    "denoise": call(tasks.denoise, **FIELD, sigma=0.1, aim="mmse", decay=None, sampling=SHORT),
    "denoise to a sample": call(tasks.denoise, **FIELD, sigma=None, aim="sample", sampling=SHORT),
    "estimate_sigma": call(tasks.estimate_sigma, x=IMAGES),
    "estimate_gamma": call(tasks.estimate_gamma, **FIELD, decay=None),
    "restore": call(
        tasks.restore,
        **{
            "field": MODEL,
            "measurement": X,
            "operator": tasks.Inpaint(torch.eye(4)),
            "labels": LABELS,
        },
        **{"noise": 0.1, "count": 2, "seed": 0, "steps": 2, "decay": None, "sampling": SHORT},
    ),
    "Inpaint": call(tasks.Inpaint, mask=torch.eye(4)),
    "Inpaint()": call(tasks.Inpaint(torch.eye(4)), x=X),
    "Downsample": call(tasks.Downsample, factor=2),
    "Downsample()": call(tasks.Downsample(2), x=X),
    "Blur": call(tasks.Blur, kernel=torch.ones(3, 3)),
    "Blur()": call(tasks.Blur(torch.ones(3, 3)), x=X),
    "Blur.gaussian": call(tasks.Blur.gaussian, sigma=1.0),
    "Blur.motion": call(tasks.Blur.motion, length=3, angle=0.0),
    "Grey()": call(tasks.Grey(), x=X),
    "vary": call(
        tasks.vary,
        **{"model": MODEL, "images": X, "labels": LABELS, "strength": 0.5, "count": 2, "seed": 0},
        **{"sampling": SHORT, "batch_size": 2},
    ),
    "interpolate": call(
        tasks.interpolate,
        **{"model": MODEL, "first": X[0], "last": X[1], "labels": (0, 1), "count": 3},
        **{"through": "noise", "strength": 0.5, "seed": 0, "sampling": SHORT, "batch_size": 2},
    ),
    "tasks.compose": call(
        tasks.compose,
        **{"models": MODEL, "expression": "1 + left*2", "count": 2, "seed": 0, "masks": {}},
        **{"sampling": SHORT, "batch_size": 2},
    ),
    "mask of a composition": call(
        lambda mask: tasks.compose(MODEL, "m*1", masks={"m": mask}, sampling=SHORT),
        mask=torch.eye(4),
    ),
    "matching_error": call(
        tasks.matching_error, **FIELD, objective=None, gammas=(0.5, 0.7), draws=2, seed=0
    ),
    "ScoreConfig.of": call(ScoreConfig.of, field=MODEL, gammas=(0.5, 0.7), draws=2, seed=0),
    "EqmDetector": call(
        tasks.EqmDetector,
        **{"field": MODEL, "score": "dot", "fpr": 0.1, "config": CONFIG, "batch_size": 8},
        contamination=0.1,
    ),
    "fit": call(
        tasks.EqmDetector(MODEL, "dot").fit,
        images=tensor(30, *SHAPE).clamp(-1, 1),
        labels=LABELS.repeat(10),
    ),
    "score_samples": call(DETECTOR.score_samples, images=X, labels=LABELS),
    "p_values": call(DETECTOR.p_values, images=X, labels=LABELS),
    "p_values_of": call(DETECTOR.p_values_of, scores=SCORES, kinds={"scores": "scores_tensor"}),
    "predict": call(DETECTOR.predict, images=X, labels=LABELS, fpr=0.1),
    "anomaly_map": call(DETECTOR.anomaly_map, images=X, labels=LABELS),
    "train_detector": call(
        tasks.train_detector,
        **{"good": IMAGES, "features": "auto", "size": 2, "fpr": 0.3, "seed": 0, "steps": 1},
        progress=None,
        kinds={"features": "name", "progress": "settings"},
    ),
    "tune": call(
        tasks.tune,
        **{"model": MODEL, "reference": X.repeat(4, 1, 1, 1), "labels": LABELS.repeat(4)},
        **{"samples": 8, "nfe": 2, "tolerance": 0.03, "seed": 0, "batch_size": 8},
        **{"features": None, "on_trial": None},
        kinds={"samples": "sample_count", "features": "functions", "on_trial": "functions"},
    ),
    # metrics
    "bootstrap": call(
        lambda statistic, samples, resamples, level, seed: metrics.bootstrap(
            statistic, samples, resamples=resamples, level=level, seed=seed
        ),
        **{"statistic": torch.mean, "samples": SCORES, "resamples": 5, "level": 0.9, "seed": 0},
    ),
    "auroc": call(metrics.auroc, normal_scores=SCORES, anomalous_scores=SCORES),
    "average_precision": call(
        metrics.average_precision, normal_scores=SCORES, anomalous_scores=SCORES, positive="normal"
    ),
    "fpr_at_tpr": call(
        metrics.fpr_at_tpr,
        **{"normal_scores": SCORES, "anomalous_scores": SCORES, "tpr": 0.9, "positive": "normal"},
    ),
    "pixel_auroc": call(metrics.pixel_auroc, maps=MAPS, masks=MASKS, kinds={"masks": "maps"}),
    "best_f1": call(metrics.best_f1, maps=MAPS, masks=MASKS, kinds={"masks": "maps"}),
    "pro": call(metrics.pro, maps=MAPS, masks=MASKS, limit=0.3, kinds={"masks": "maps"}),
    "pixel_intervals": call(
        metrics.pixel_intervals,
        **{"maps": MAPS, "masks": MASKS, "limit": 0.3, "resamples": 5, "level": 0.9, "seed": 0},
        kinds={"masks": "maps"},
    ),
    "nearest_distances": call(metrics.nearest_distances, samples=ROWS, references=OTHERS),
    "psnr": call(metrics.psnr, images=IMAGES, clean=IMAGES),
    "ssim": call(metrics.ssim, images=IMAGES, clean=IMAGES),
    "Moments": call(
        metrics.Moments,
        **{"mean": torch.zeros(2), "covariance": torch.eye(2), "count": 3},
    ),
    "Moments.of": call(metrics.Moments.of, features=ROWS),
    "merge": call(MOMENTS.merge, other=MOMENTS, kinds={"other": "moments_of"}),
    "frechet_distance": call(metrics.frechet_distance, a=MOMENTS, b=MOMENTS),
    "frechet_influence": call(
        metrics.frechet_influence,
        **{"features": ROWS, "reference": MOMENTS},
        kinds={"reference": "moments_of"},
    ),
    "frechet_at_infinity": call(
        metrics.frechet_at_infinity,
        **{"features": ROWS, "reference": MOMENTS, "halvings": 2, "seed": 0},
        kinds={"reference": "moments_of"},
    ),
    "inception_score": call(
        metrics.inception_score, probabilities=ROWS.softmax(1), splits=2, seed=0
    ),
    "inception_influence": call(metrics.inception_influence, probabilities=ROWS.softmax(1)),
    "kernel_distance": call(
        metrics.kernel_distance,
        **{"samples": ROWS, "references": OTHERS, "subsets": 2, "subset_size": 4, "seed": 0},
    ),
    "kernel_influence": call(metrics.kernel_influence, samples=ROWS, references=OTHERS),
    "overlap": call(metrics.overlap, samples=ROWS, references=OTHERS, neighbours=2),
    # features
    "open_features": call(features.open_features, name="pixels"),
    "from_module": call(
        features.from_module,
        **{"module": Linear(), "name": "mine", "read": None, "settings": {}, "batch_size": 4},
        kinds={"name": None},
    ),
    "pixels": call(features.open_features("pixels"), images=IMAGES),
    "fit_pca": call(features.fit_pca, images=IMAGES, components=2),
    "Classifier": call(features.Classifier, shape=(1, 16, 16), num_classes=3),
    "Classifier.features": call(CLASSIFIER.features, x=IMAGES),
    "embed": call(features.embed, classifier=CLASSIFIER, images=IMAGES, batch_size=4),
    "accuracy": call(
        features.accuracy,
        **{"classifier": CLASSIFIER, "images": IMAGES[:3], "labels": LABELS, "batch_size": 4},
    ),
    "train_classifier": call(
        features.train_classifier,
        **{"images": IMAGES[:3], "labels": LABELS, "num_classes": 3, "epochs": 1, "batch_size": 4},
        **{"learning_rate": 1e-3, "seed": 0},
    ),
}
UNTRIED = {
    # values and types, not functions
    *("F1", "PixelIntervals"),
    *(
        "Outcome",
        "Solution",
        "Rule",
        "Schedule",
        "State",
        "StepResult",
        "Step",
        "Stop",
        "Trajectory",
    ),
    *(
        "FinishedSample",
        "TrajectoryMeasures",
        "Model",
        "ModelInfo",
        "Start",
        "Calibration",
        "Trial",
    ),
    *(
        "CalibrationWarning",
        "Composition",
        "Operator",
        "Tuning",
        "Interval",
        "Nearest",
        "Extrapolated",
    ),
    *("Spread", "Overlap", "Activations", "Features", "Field", "Grey", "FlowMatching"),
    # other names of what is tried, or tried through others
    *(
        "Euler",
        "Heun",
        "RungeKutta4",
        "HeavyBall",
        "Nesterov",
        "EqmOutlierDetector",
        "chosen_labels",
    ),
    *(
        "class_names",
        "label_number",
        "check_time_invariant",
        "Inception",
        "load_inception",
        "Lite0",
    ),
    *("load_lite0", "register", "from_pretrained", "save_pretrained"),
    *("export_detector", "export_network"),
}
PAIRS = [
    (name, argument)
    for name, each in CALLS.items()
    for argument in each.given
    if each.kinds.get(argument, argument)
]


def test_every_public_function_is_tried():
    tried = {name.removesuffix("()").split(".")[-1] for name in CALLS}
    for package in (eqm, descent, sampling, tasks, metrics, features):
        public = [
            name for name in package.__all__ if not hasattr(getattr(package, name), "__path__")
        ]
        assert not set(public) - tried - UNTRIED


def copies(values):
    """Copies of the tensors among the values."""
    return [
        v.detach().clone() if isinstance(v, torch.Tensor) and not v.is_meta else v for v in values
    ]


def assert_same(before, after):
    for old, new in zip(before, after, strict=True):
        if isinstance(old, torch.Tensor) and not old.is_meta and old.layout is torch.strided:
            assert torch.equal(old.nan_to_num(7), new.detach().nan_to_num(7))


def said(function, given):
    """The message of the ValueError of a call, None if there is none."""
    try:
        function(**given)
    except ValueError as error:
        return str(error)
    return None


def attempt(function, given):
    """Calls; anything but a result or a ValueError of one line fails."""
    before = copies(given.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tasks.CalibrationWarning)
        sentence = said(function, given)
    assert sentence is None or (0 < len(sentence) < 500 and "\n" not in sentence)
    assert_same(before, given.values())


@pytest.mark.parametrize(("name", "argument"), PAIRS)
def test_hostile_arguments_give_a_result_or_a_sentence(name, argument):
    each = CALLS[name]
    each.function(**each.given)  # as it is, it works
    wrong = []
    for value in KINDS[each.kinds.get(argument, argument)]:
        try:
            attempt(each.function, each.given | {argument: value})
        except Exception as error:
            wrong.append(f"{value!r:.60} {type(error).__name__}: {str(error)[:150]}")
    assert not wrong, "\n" + "\n".join(wrong)


def returned(result):
    return lambda x, labels=None, *more: result(x)


BEHAVIOURS = {
    "none": returned(lambda x: None),
    "a list": returned(lambda x: x.tolist()),
    "another shape": returned(lambda x: x.flatten(1)),
    "fewer": returned(lambda x: x[:-1]),
    "integers": returned(lambda x: x.long()),
    "float64": returned(lambda x: x.double()),
    "complex": returned(lambda x: x.cfloat()),
    "nan": returned(lambda x: x * math.nan),
    "infinity": returned(lambda x: x + math.inf),
    "no data": returned(lambda x: x.to("meta")),
    "a view": returned(lambda x: x.view_as(x)),
    "in place": returned(lambda x: x.mul_(4)),
    "in place, labels": lambda x, labels=None, *more: (
        labels is not None and labels.fill_(1),
        4 * x,
    )[1],
}
WITH_FIELD = sorted(
    name
    for name, each in CALLS.items()
    if {"field", "model", "models"} & each.given.keys() and name not in ("Sampling", "describe")
)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("name", WITH_FIELD)
def test_a_field_may_return_anything_and_work_in_place(name, behaviour):
    each = CALLS[name]

    def field(x, labels=None, *more):
        return BEHAVIOURS[behaviour](x, labels, *more)

    field.shape, field.num_classes = SHAPE, 3
    key = next(iter({"field", "model", "models"} & each.given.keys()))
    attempt(each.function, each.given | {key: field})


@pytest.mark.parametrize(
    "name", ["descend", "generate", "denoise", "vary", "matching_error", "stiffness"]
)
def test_a_field_that_works_in_place_gives_the_same_result(name):
    each = CALLS[name]
    results = []
    for field in (lambda x, labels=None: 4 * x, lambda x, labels=None: x.mul_(4)):
        field.shape, field.num_classes = SHAPE, 3
        key = "field" if "field" in each.given else "model"
        found = each.function(**each.given | {key: field})
        results.append(found if isinstance(found, torch.Tensor) else found.x)
    assert torch.equal(*results)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_an_operator_may_return_anything_and_work_in_place(behaviour):
    attempt(CALLS["restore"].function, CALLS["restore"].given | {"operator": BEHAVIOURS[behaviour]})


@pytest.mark.parametrize(
    "name",
    ["auroc", "kernel_distance", "overlap", "psnr", "ssim", "Moments.of", "nearest_distances"],
)
def test_metrics_take_arrays_and_lists_of_any_precision(name):
    each = CALLS[name]
    tensors = {key: v for key, v in each.given.items() if isinstance(v, torch.Tensor)}
    exact = {key: v.double() for key, v in tensors.items()}

    def values(found):
        found = vars(found) if hasattr(found, "__dict__") else found
        found = found.values() if isinstance(found, dict) else found
        found = found if isinstance(found, tuple | type({}.values())) else [found]
        return [torch.as_tensor(v).double() for v in found if not isinstance(v, str)]

    expected = values(each.function(**each.given | exact))
    forms = [
        lambda v: v.numpy(),
        lambda v: v.tolist(),
        lambda v: v.numpy().astype(">f8"),
        lambda v: v.numpy()[::-1][::-1],
        lambda v: v.clone().requires_grad_(),
    ]
    for form in forms:
        given = each.given | {key: form(v) for key, v in exact.items()}
        for one, other in zip(expected, values(each.function(**given)), strict=True):
            torch.testing.assert_close(one, other)
    mixed = dict(exact)
    mixed[next(iter(mixed))] = next(iter(tensors.values())).numpy()  # float32 with float64
    each.function(**each.given | mixed)


def test_a_model_on_another_device_is_refused():
    away = Model().to("meta")
    for name in ("descend", "iterate", "curl", "stiffness", "denoise"):
        with pytest.raises(ValueError, match="x must be on the device of the field, meta; got cpu"):
            CALLS[name].function(**CALLS[name].given | {"field": away})
    assert decay_of(away) == eqm.TruncatedDecay()
    assert Activations(X).spatial is None


@pytest.mark.parametrize("device", ["cuda", "nonsense", "meta", "cuda:99", None])
@pytest.mark.parametrize(
    "function",
    [
        partial(eqm.from_pretrained, "mnist-5k"),
        partial(features.open_features, "pixels"),
        partial(features.fit_pca, IMAGES, 2),
        partial(tasks.EqmDetector.load, "fashion-mnist"),
    ],
)
def test_a_device_that_is_not_there_is_refused(function, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="device"):
        function(device=device)


@pytest.mark.parametrize("name", [None, 3, [], {}, b"mnist-5k"])
@pytest.mark.parametrize(
    "function",
    [
        eqm.from_pretrained,
        tasks.EqmDetector.load,
        features.Classifier.load,
        features.load_inception,
        features.open_features,
    ],
)
def test_a_name_that_is_no_text_is_refused(function, name):
    with pytest.raises(ValueError, match="got"):
        function(name)


@pytest.mark.parametrize("value", [None, torch.ones(2), [1.0]], ids=str)
@pytest.mark.parametrize(
    "function",
    [
        lambda value: eqm.data.points("moons", value),
        eqm.data.open_latents,
        eqm.monitor.read_log,
        eqm.evaluation.open_statistics,
        lambda value: eqm.save_pretrained(value, "nowhere"),
        eqm.models.for_inference,
    ],
)
def test_what_is_no_count_path_or_model_is_refused(function, value):
    with pytest.raises(ValueError, match="must be"):
        function(value)
