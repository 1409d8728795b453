"""`eqm sample`: images from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro


def sample(
    model: tyro.conf.Positional[str],
    labels: tuple[int, ...] = (),
    count: int | None = None,
    output: Path = Path("samples.png"),
    seed: int = 0,
    rule: Literal["gradient-descent", "nesterov-lookahead"] | None = None,
    step_size: float | None = None,
    momentum: float | None = None,
    path_length: float | None = None,
    gradient_ratio: float | None = None,
    guidance: float | None = None,
    vae: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compile: bool = False,
    dry_run: bool = False,
) -> None:
    """Sample a trained model. What is not set is as the model was stored with.

    Args:
        model: Folder of a trained model, or its name on the hub.
        labels: Classes to sample, in equal shares, one after the other; all of them by default.
        count: How many images; by default ten a class, or 64 without classes.
        output: A .png for a sheet of all images, or a .npz with the array `arr_0`, (N, H, W, C), uint8.
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
        batch_size: Images at a time.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
        precision: Of the network; auto is bfloat16 on CUDA, else that of its weights.
        compile: Compile the network first (torch.compile); pays off for many images.
        dry_run: Only print how it would be done.
    """
    from dataclasses import asdict

    import numpy as np

    from eqm.cli.show import show_settings
    from eqm.devices import pick_device
    from eqm.encoders import encoder_of
    from eqm.files import make_folder, replacing
    from eqm.models import for_inference, from_pretrained
    from eqm.pictures import grid, to_uint8
    from eqm.tasks import Sampling, generate

    if output.suffix not in (".png", ".npz"):
        raise ValueError(f"output must end in .png or .npz; got {output}")
    where = pick_device(device)
    network = from_pretrained(model, device=where)
    if len(network.config.shape) != 3:
        raise ValueError(
            f"eqm sample draws images; this model is of shape {network.config.shape}: "
            "sample it in Python with eqm.tasks.generate"
        )
    encoder = encoder_of(network.metadata, vae, device=where)
    shape = encoder.image_shape_of(network.config.shape)
    sampling = Sampling.of(network.metadata).but(
        rule=rule,
        step_size=step_size,
        momentum=momentum,
        path_length=path_length,
        gradient_ratio=gradient_ratio,
        guidance=guidance,
    )
    classes = labels or tuple(range(network.config.num_classes))
    if count is None:
        count = 10 * len(classes) if classes else 64
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    chosen = [classes[k * len(classes) // count] for k in range(count)] if classes else None
    if dry_run:
        about = {"count": count, "labels": chosen, "encoder": encoder.name, "output": output}
        show_settings({**asdict(sampling), **about})
        return
    make_folder(output.parent)
    fast = for_inference(network, precision=precision, compile=compile)
    descent = generate(
        fast, chosen, count=count, seed=seed, sampling=sampling, batch_size=batch_size
    )
    images = encoder.decode(descent.x)
    with replacing(output) as path:
        if output.suffix == ".png":
            scale = max(1, 32 // shape[-1])
            grid(images, columns=10 if classes else 8, scale=scale).save(path, format="png")
        else:
            with path.open("wb") as file:
                np.savez(file, arr_0=to_uint8(images))
    print(f"{descent}, {descent.evaluations.float().mean():.0f} evaluations each: {output}")
