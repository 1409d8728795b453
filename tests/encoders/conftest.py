"""Small random autoencoders of each kind, in folders as diffusers writes them."""

import pytest
import torch


def make(kind, seed=0, **settings):
    import diffusers

    small = {
        "AutoencoderKL": {
            "block_out_channels": (8, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 4,
        },
        "AutoencoderTiny": {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        "AutoencoderDC": {
            "latent_channels": 4,
            "attention_head_dim": 8,
            "encoder_block_out_channels": (8, 16),
            "decoder_block_out_channels": (8, 16),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), ()),
            "decoder_qkv_multiscales": ((), ()),
        },
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(diffusers, kind)(**small[kind] | settings).eval()


@pytest.fixture(scope="session")
def vae(tmp_path_factory):
    """Saves an autoencoder and returns its folder; the same one for the same arguments."""
    made = {}

    def folder(kind="AutoencoderKL", seed=0, **settings):
        key = kind, seed, *sorted(settings.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp(kind)
            make(kind, seed, **settings).save_pretrained(made[key])
        return made[key]

    return folder
