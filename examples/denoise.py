"""Removes noise of unknown strength: the model does not know the noise level."""

import torch
from torch.utils.data import DataLoader

import eqm
from eqm.data import DataConfig, as_dataset, open_source
from eqm.metrics import psnr
from eqm.pictures import grid


def main() -> None:
    model = eqm.from_pretrained("fashion-mnist")
    clothes = as_dataset(open_source(DataConfig("fashion-mnist-test"), small=True))
    clean, _ = next(iter(DataLoader(clothes, batch_size=10)))  # (10, 1, 28, 28) in -1..1
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noisy = clean + 0.5 * noise

    sigma = eqm.tasks.estimate_sigma(noisy)
    restored = eqm.tasks.denoise(model, noisy, sigma=sigma, aim="mmse").x
    print(f"estimated noise level {sigma.mean():.2f}, true 0.50")
    print(
        f"PSNR before {psnr(noisy, clean).mean():.1f} dB, after {psnr(restored, clean).mean():.1f} dB"
    )
    grid(torch.cat([clean, noisy.clamp(-1, 1), restored.clamp(-1, 1)]), columns=10, scale=2).save(
        "denoised.png"
    )


if __name__ == "__main__":
    main()
