"""`eqm sample`: images from a trained model."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eqm.cli.arguments import Model

if TYPE_CHECKING:
    from eqm.descent import FinishedSample


def sample(
    model: Model,
    labels: tuple[str, ...] = (),
    count: int | None = None,
    output: Path = Path("samples.png"),
    seed: int = 0,
    rule: str | None = None,
    step_size: float | None = None,
    momentum: float | None = None,
    path_length: float | None = None,
    gradient_ratio: float | None = None,
    guidance: float | None = None,
    vae: str | None = None,
    guidance_interval: tuple[float, float] | None = None,
    animate: Path | None = None,
    batch_size: int = 256,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compile: bool = False,
    dry_run: bool = False,
) -> None:
    """Sample a trained model. What is not set is as the model was stored with.

    Under torchrun the processes share the work and the first one writes; what is drawn is the same.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32).
        labels: Classes to sample, by number or name, in equal shares, one after the other; by default all
            of them. `eqm info MODEL` lists them.
        count: How many images; by default ten of each of `labels`, of all classes at most 100 together,
            or 64 without classes.
        output: A .png for a sheet of all images, a folder for a .png each, or a .npz with the array `arr_0`,
            (N, H, W, C), uint8.
        seed: Image k starts from noise of this seed plus k.
        rule: How to move.
        step_size: Size of a step.
        momentum: How far the look-ahead looks.
        path_length: Stop a sample after this path, the sum of its step sizes.
        gradient_ratio: Stop a sample earlier once its gradient is this much of its first one; 0 never
            does.
        guidance: Classifier-free guidance scale; 1 is none.
        vae: What decodes the latents of a model of latents: folder or name on the hub; by default, where
            it was when they were encoded.
        guidance_interval: Guide a sample only while the path it has covered is between these two.
        animate: Also write how the first 100 images come out of noise, step by step of the rule, to a .gif
            or an .mp4.
        batch_size: Images at a time.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
        precision: Of the network; auto is bfloat16 on CUDA, else that of its weights.
        compile: Compile the network first (torch.compile); pays off for many images.
        dry_run: Only print how it would be done.
    """
    from dataclasses import asdict, replace

    import torch

    from eqm.cli.output import STILL, check_drawable, check_output, write_images
    from eqm.cli.show import show_settings
    from eqm.descent import collect
    from eqm.encoders import encoder_of
    from eqm.files import make_folder
    from eqm.models import for_inference, from_pretrained
    from eqm.pictures import ANIMATION_SUFFIXES, check_channels, grid
    from eqm.pictures import animate as write_animation
    from eqm.sampling import Sampling, diagnose
    from eqm.sampling.labels import label_number
    from eqm.tasks import draw, gather, trajectory
    from eqm.train import distributed

    check_output(output, STILL)
    if animate is not None:
        check_output(animate, ANIMATION_SUFFIXES, name="animate")
    where = distributed.join(device)
    atexit.register(distributed.leave)
    network = from_pretrained(model, device=where)
    if len(network.config.shape) != 3:
        raise ValueError(
            f"eqm sample draws images; this model is of shape {network.config.shape}: "
            "sample it in Python with eqm.tasks.generate"
        )
    encoder = encoder_of(network.metadata, vae, device=where)
    shape = encoder.image_shape_of(network.config.shape)
    check_drawable(shape[0], output)
    if animate is not None:
        check_channels(shape[0])
    sampling = Sampling.of(network.metadata).but(
        rule=rule,
        step_size=step_size,
        momentum=momentum,
        path_length=path_length,
        gradient_ratio=gradient_ratio,
        guidance=guidance,
        guidance_interval=guidance_interval,
    )
    classes = [label_number(network, label) for label in labels] or list(
        range(network.config.num_classes)
    )
    if count is None:
        count = 10 * len(labels) or min(10 * len(classes), 100) or 64
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    chosen = [classes[k * len(classes) // count] for k in range(count)] if classes else None
    if dry_run:
        about = {"count": count, "labels": chosen, "encoder": encoder.name, "output": output}
        show_settings({**asdict(sampling), **about})
        return
    make_folder(output.parent)
    if animate is not None:
        make_folder(animate.parent)
    fast = for_inference(network, precision=precision, compile=compile)
    ends: list[FinishedSample] = []
    failure: BaseException | None = None
    try:
        for end in draw(
            fast, chosen, count=count, seed=seed, sampling=sampling, batch_size=batch_size
        ):
            ends.append(end)
    except (KeyboardInterrupt, ValueError, RuntimeError, MemoryError) as error:
        failure = error
    ends = gather(ends)  # all must come here: a process that left would end those that wait for it
    if not distributed.is_main():
        if failure is not None:
            print(f"eqm: {str(failure) or 'interrupted'}", file=sys.stderr)
        return
    if failure is None and len(ends) < count:
        failure = RuntimeError("another process failed")
    if failure is not None and not ends:
        raise failure
    descent = collect(ends)
    columns = 10 if classes else 8
    parts = (encoder.decode(x) for x in descent.x.split(batch_size))
    write_images(parts, output, columns=columns)
    print(f"{descent}, {descent.nfe.float().mean():.0f} evaluations each: {output}")
    if failure is not None:
        sentence = (
            f"{str(failure) or 'interrupted'}; {len(ends)} of {count} samples are in {output}"
        )
        raise (KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else RuntimeError)(
            sentence
        ) from failure
    labels_drawn = None if chosen is None else torch.tensor(chosen)
    for sentence in diagnose(network, descent, labels_drawn, sampling=sampling, seed=seed):
        print(f"eqm: note: {sentence}", file=sys.stderr)
    if animate is not None:
        shown = None if chosen is None else chosen[:100]
        small = replace(sampling, multistep_coefficients=())  # fitted steps are too few to animate
        moving = trajectory(network, shown, count=min(count, 100), seed=seed, sampling=small)
        scale = max(1, 32 // shape[-1])
        write_animation(
            (grid(encoder.decode(x), columns=columns, scale=scale) for x in moving.x), animate
        )
        print(f"{len(moving)} moments of the first {moving.x.shape[1]}: {animate}")
