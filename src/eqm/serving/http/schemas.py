"""What requests and answers hold. The texts below the fields are in the OpenAPI page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from eqm.schema import Count, CountOrZero, Meta, Seed

Several = Annotated[tuple[str, ...], Meta(min_length=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Labels = str | int | Annotated[tuple[str | int, ...], Meta(min_length=1)] | None
Few = Annotated[int, Meta(ge=1, le=100_000)]
Range = tuple[Annotated[float, Meta(ge=-12, le=12)], Annotated[float, Meta(ge=-12, le=12)]]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What all requests for samples have in common."""

    model: str | None = None
    """The name of a model of `/v1/models`. It may be left out if the server has one."""
    seed: Seed = 0
    """Seed of the noise. Sample k uses seed + k."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Settings of the descent to change. Settings that are left out are those stored with the model."""
    labels: Labels = None
    """The class of each sample or picture, or one class for all, by name or number; sentences for a model that
    takes prompts."""
    deadline: Annotated[float, Meta(gt=0, le=86400)] | None = None
    """Seconds until the answer must be there; otherwise the request ends with status 504."""
    stream: bool = False
    """Whether to answer with server-sent events: previews on the way, and each sample as it ends."""
    preview_every: CountOrZero | None = None
    """Steps between two previews of a stream; 0 sends none. By default a tenth of the path."""


@dataclass(frozen=True, kw_only=True)
class SampleAsk(Ask):
    """Samples from noise."""

    count: Few | None = None
    """Number of samples; by default one for each label."""
    trajectory: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """About how many moments of its path to return with each sample; by default none."""


@dataclass(frozen=True, kw_only=True)
class VaryAsk(Ask):
    """Variations of pictures."""

    images: Several
    """Picture files in base64."""
    resize: bool = False
    """Whether to crop and resize the pictures to the size of the model."""
    strength: Share = 0.5
    """How different the variations are: 0 gives the picture back, 1 any other sample."""
    count: Few = 1
    """Variations of each picture."""


@dataclass(frozen=True, kw_only=True)
class DenoiseAsk(Ask):
    """Pictures without their noise."""

    images: Several
    """Picture files in base64."""
    resize: bool = False
    """Whether to crop and resize the pictures to the size of the model."""
    range: Range = (-1.0, 1.0)
    """The values of black and white. Noise leaves -1..1, where a picture ends: send it scaled, with its range."""
    sigma: Annotated[float, Meta(ge=0, le=1000)] | Literal["estimate"] | None = None
    """Standard deviation of the noise on the scale from -1 (black) to 1 (white); "estimate" measures it.
    Without it, a picture is a mixture gamma * picture + (1 - gamma) * noise of unknown gamma."""
    aim: Literal["sample", "mmse"] = "sample"
    """"sample" looks real and invents hidden detail; "mmse" has the least squared error and is smooth."""


@dataclass(frozen=True, kw_only=True)
class OperatorAsk:
    """How a measurement was made of a picture."""

    name: Literal["inpaint", "downsample", "blur", "motion", "grey"]
    """inpaint loses the pixels of `mask`, downsample takes means of blocks, blur is Gaussian, motion is a
    straight blur, grey is the mean of the channels."""
    factor: Annotated[int, Meta(ge=1, le=1024)] = 2
    """Side of a block of downsample."""
    sigma: Annotated[float, Meta(gt=0, le=32)] = 1.0
    """Standard deviation of blur, in pixels."""
    length: Annotated[int, Meta(ge=1, le=64)] = 5
    """Length of motion, in pixels."""
    angle: Annotated[float, Meta(ge=-360, le=360)] = 0.0
    """Degrees of motion from the horizontal."""


@dataclass(frozen=True, kw_only=True)
class RestoreAsk(Ask):
    """Likely pictures behind measurements."""

    images: Several
    """The measurements as picture files in base64; for inpaint the pictures with the hole."""
    operator: OperatorAsk
    """How the measurements were made."""
    mask: str | None = None
    """For inpaint: a picture in base64, white where pixels are missing."""
    measure: bool = False
    """Whether `images` are whole pictures, which the operator measures first."""
    resize: bool = False
    """Whether to crop and resize the pictures to the size that is wanted."""
    range: Range = (-1.0, 1.0)
    """The values of black and white in `images`, as for `/v1/denoise`."""
    noise: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """Standard deviation of noise in the measurements, on the scale from -1 to 1."""
    count: Few = 1
    """Answers for each measurement."""
    steps: Count = 25
    """Evaluations of an answer."""


@dataclass(frozen=True, kw_only=True)
class InterpolateAsk(Ask):
    """A smooth path between two pictures. `labels` are the classes of the two."""

    first: str
    """The first picture, a file in base64."""
    last: str
    """The last picture, a file in base64."""
    resize: bool = False
    """Whether to crop and resize the pictures to the size of the model."""
    count: Annotated[int, Meta(ge=2, le=100_000)] = 9
    """Pictures of the path, with the two ends."""
    through: Literal["noise", "landscape"] = "noise"
    """noise mixes blends with noise and descends; landscape moves a chain of blends downhill."""
    strength: Share = 0.5
    """Share of noise halfway."""


@dataclass(frozen=True, kw_only=True)
class ComposeAsk(Ask):
    """Samples of several classes at once. It takes no `labels`."""

    expression: Annotated[str, Meta(max_length=2000)]
    """A sum of classes with weights, such as `trouser + 0.5*bag`, or `left*7 + ~left*3` with a mask."""
    masks: Annotated[dict[str, str], Meta(max_length=64)] = field(default_factory=dict)
    """Pictures in base64 by name, white is 1 and black 0. left, right, top and bottom exist already."""
    balance: bool = False
    """Whether to give the contributions of all labels the same norm."""
    count: Few = 1
    """Number of samples."""


@dataclass(frozen=True, kw_only=True)
class DetectAsk:
    """Which pictures are unlike the training data."""

    images: Several
    """Picture files in base64."""
    model: str | None = None
    """The name of a model with a detector. It may be left out if the server has one model."""
    resize: bool = False
    """Whether to crop and resize the pictures to the size of the model."""
    fpr: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """The share of normal pictures that may be called anomalous; by default that of the detector."""
    maps: bool = False
    """Whether to return a map of where each picture is anomalous."""
    deadline: Annotated[float, Meta(gt=0, le=86400)] | None = None
    """Seconds until the answer must be there; otherwise the request ends with status 504."""


@dataclass(frozen=True, kw_only=True)
class ImageAsk:
    """A request in OpenAI's form, with settings of eqm."""

    prompt: Annotated[str, Meta(max_length=2000)] = ""
    """A class such as `sneaker`, or an expression such as `sneaker + boot`. Empty: the classes take turns."""
    model: str | None = None
    """The name of a model of `/v1/models`. It may be left out if the server has one."""
    n: Few | None = None
    """Number of pictures; by default 1."""
    size: str | None = None
    """WIDTHxHEIGHT: that of the model or a whole multiple, which repeats pixels. auto is that of the model."""
    response_format: str | None = None
    """Only b64_json: this server keeps no pictures, so it has no addresses for them."""
    output_format: str | None = None
    """Only png."""
    seed: Seed = 0
    """Seed of the noise. Picture k uses seed + k."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Settings of the descent to change."""
    deadline: Annotated[float, Meta(gt=0, le=86400)] | None = None
    """Seconds until the answer must be there."""
    stream: bool | None = None
    """Whether to answer with OpenAI's server-sent events."""
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    """Previews of a stream."""
    quality: str | None = None
    """Taken and without effect, as are style, background, moderation, user and output_compression."""
    style: str | None = None
    background: str | None = None
    moderation: str | None = None
    user: str | None = None
    output_compression: int | None = None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A sample on its way."""

    index: int
    """Its number in the request."""
    steps: int
    """Its steps so far."""
    max_steps: int
    """It takes no more steps than these."""
    gradient_norm: float | None
    """Norm of its last gradient."""
    energy: float | None
    """Change of the energy since its start."""
    b64_json: str
    """A PNG in base64."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample, and how it ended."""

    index: int
    """Its number in the request."""
    seed: int | None
    """The seed of its noise; null where no noise of its own was drawn."""
    label: str | None
    """Its class or expression."""
    b64_json: str | None
    """A PNG in base64."""
    steps: int
    """Its steps."""
    nfe: int
    """Its evaluations of the model."""
    gradient_norm: float | None
    """Norm of its last gradient."""
    outcome: Literal["converged", "max_steps", "diverged"]
    """How it ended."""
    sentence: str
    """The outcome in words."""
    energy: float | None = None
    """Change of the energy from its start to its end; only in a stream, for plain descents."""
    trajectory: list[Moment] | None = None
    """Moments of its path, where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The answer to a request for samples."""

    id: str
    object: Literal["eqm.samples"] = "eqm.samples"
    created: int
    """Time in seconds since 1970."""
    model: str
    samples: list[Sample]
    seconds: float
    """Time from the request to the answer."""
    notes: list[str]
    """Sentences about how the request was read."""
    mean: list[str] | None = None
    """Of a restoration: the mean of the answers for each measurement, a PNG in base64."""
    spread: list[str] | None = None
    """Of a restoration: the standard deviation of the answers at each pixel, a grey PNG in base64; black is
    0, white is 1, half of the way from black to white."""
    sigma: list[float] | None = None
    """Of a denoising: the estimated standard deviation of the noise of each picture."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A picture, judged by the detector."""

    index: int
    score: float | None
    """Higher is less like the training data; null is infinite."""
    p_value: float
    """The share of normal pictures with a score as high, from the calibration."""
    anomalous: bool
    """Whether the score is above the threshold."""
    map: str | None = None
    """A PNG in base64: the picture in grey, red where it is anomalous."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A false-positive rate and its threshold."""

    fpr: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The answer of `/v1/detect`."""

    id: str
    object: Literal["eqm.verdicts"] = "eqm.verdicts"
    created: int
    model: str
    score: str
    """The name of the score, or the names joined by +."""
    results: list[Verdict]
    threshold: float
    fpr: float
    thresholds: list[Threshold]
    """The thresholds of several false-positive rates that the calibration allows."""
    calibrated_on: int
    """Number of normal pictures whose scores are known."""
    seconds: float
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Image:
    """A picture in OpenAI's form."""

    b64_json: str
    """A PNG in base64."""
    revised_prompt: str | None = None
    """What was drawn."""
    seed: int | None = None
    outcome: str | None = None
    sentence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Images:
    """The answer in OpenAI's form."""

    created: int
    data: list[Image]
    size: str
    output_format: Literal["png"] = "png"
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class About:
    """What a model is."""

    shape: list[int]
    """Channels, height and width of its pictures."""
    num_classes: int
    classes: list[str]
    uses: list[str]
    detector: bool
    loaded: bool
    sampling: dict[str, Any]
    """The settings stored with the model."""
    decay: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelItem:
    """A model in OpenAI's list."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    eqm: About


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """All models in OpenAI's form."""

    object: Literal["list"] = "list"
    data: list[ModelItem]


@dataclass(frozen=True, kw_only=True)
class ErrorWords:
    """What is wrong, and what to change."""

    message: str
    type: str
    param: str | None
    code: str | None


@dataclass(frozen=True, kw_only=True)
class Error:
    """An error in OpenAI's form."""

    error: ErrorWords
