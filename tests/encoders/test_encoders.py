import json
import logging
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from eqm.encoders import Pixels, about_encoder, encoder_of, open_encoder

KINDS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def pixels(generator):
    return torch.rand(3, 3, 8, 12, generator=generator) * 2 - 1


def network(folder):
    import diffusers

    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    return getattr(diffusers, kind).from_pretrained(folder, low_cpu_mem_usage=False)


@pytest.mark.parametrize(("scale", "shift"), [(0.18215, None), (0.3611, 0.1159)])
def test_a_kl_posterior_is_that_of_diffusers_shifted_and_scaled(vae, pixels, scale, shift):
    folder = vae("AutoencoderKL", scaling_factor=scale, shift_factor=shift)
    encoder = open_encoder(folder)
    mean, std = encoder.encode(pixels)
    with torch.no_grad():
        posterior = network(folder).encode(pixels).latent_dist
    assert (encoder.scale, encoder.shift) == (scale, shift or 0)
    torch.testing.assert_close(mean, (posterior.mean - (shift or 0)) * scale)
    torch.testing.assert_close(std, posterior.std * scale)
    assert std.min() > 0


@pytest.mark.parametrize(
    ("kind", "output"), [("AutoencoderTiny", "latents"), ("AutoencoderDC", "latent")]
)
def test_the_others_have_no_posterior(vae, pixels, kind, output):
    folder = vae(kind, scaling_factor=0.5)
    mean, std = open_encoder(folder).encode(pixels)
    with torch.no_grad():
        expected = getattr(network(folder).encode(pixels), output)
    torch.testing.assert_close(mean, expected * 0.5)
    assert not std.any()


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_undoes_scale_and_shift_first(vae, kind, generator):
    settings = {} if kind == "AutoencoderDC" else {"shift_factor": 0.25}
    folder = vae(kind, scaling_factor=2.0, **settings)
    z = torch.randn(2, 4, 4, 6, generator=generator)
    shift = settings.get("shift_factor", 0.0)
    images = open_encoder(folder).decode((z - shift) * 2.0)
    with torch.no_grad():
        expected = network(folder).decode(z).sample.clamp(-1, 1)
    torch.testing.assert_close(images, expected)


def test_parts_change_nothing(vae, monkeypatch, generator):
    encoder = open_encoder(vae())
    z = torch.randn(5, 4, 4, 4, generator=generator)
    whole = encoder.decode(z)
    posterior = encoder.encode(whole)
    monkeypatch.setattr("eqm.encoders.autoencoder._PIXELS_AT_A_TIME", 2 * 8 * 8)
    torch.testing.assert_close(encoder.decode(z), whole)
    sizes: list[int] = []
    encode = encoder.network.encode
    monkeypatch.setattr(
        encoder.network, "encode", lambda x, **more: sizes.append(len(x)) or encode(x, **more)
    )
    torch.testing.assert_close(encoder.encode(whole), posterior)
    assert sizes == [2, 2, 1]


def test_gradients_flow_through_a_decoder_whose_weights_are_frozen(vae):
    encoder = open_encoder(vae())
    z = torch.zeros(1, 4, 4, 4, requires_grad=True)
    encoder.decode(z).square().sum().backward()
    assert z.grad.any()
    assert not any(weight.requires_grad for weight in encoder.network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_known_before_anything_is_encoded(vae, pixels, kind):
    encoder = open_encoder(vae(kind))
    mean, _ = encoder.encode(pixels)
    assert encoder.shape_of((3, 8, 12)) == mean.shape[1:] == (4, 4, 6)
    assert encoder.image_shape_of((4, 4, 6)) == encoder.decode(mean).shape[1:] == (3, 8, 12)


def test_pixels_stay_what_they_are(pixels):
    encoder = open_encoder("pixels")
    mean, std = encoder.encode(pixels)
    assert torch.equal(encoder.decode(mean), pixels)
    assert not std.any()
    assert encoder.shape_of((3, 8, 12)) == encoder.image_shape_of((3, 8, 12)) == (3, 8, 12)
    assert encoder_of({}) == Pixels()


def test_opening_an_encoder_is_quiet(vae, monkeypatch):
    heard = []
    monkeypatch.setattr(logging.Logger, "callHandlers", lambda log, record: heard.append(record))
    open_encoder(vae())
    assert heard == []


def test_the_fingerprint_is_of_the_network_not_of_its_place(vae, tmp_path):
    fingerprint = open_encoder(vae()).fingerprint
    moved = shutil.copytree(vae(), tmp_path / "moved")
    assert open_encoder(moved).fingerprint == fingerprint
    others = [
        vae(seed=1),
        vae(scaling_factor=1.0),
        vae(norm_num_groups=2),
    ]  # the last has the same weights
    assert len({fingerprint, *(open_encoder(other).fingerprint for other in others)}) == 4


def test_a_setting_that_a_later_diffusers_adds_changes_no_fingerprint(vae, tmp_path):
    less = shutil.copytree(vae(), tmp_path / "less")
    config = json.loads((less / "config.json").read_text())
    del config["use_quant_conv"], config["_diffusers_version"]
    (less / "config.json").write_text(json.dumps(config))
    assert open_encoder(less).fingerprint == open_encoder(vae()).fingerprint


def test_an_encoder_that_only_the_model_names_is_not_opened(vae, monkeypatch):
    monkeypatch.setattr(
        "eqm.encoders.autoencoder.open_encoder", lambda *_, **__: pytest.fail("opened")
    )
    for name in (str(vae()), "../vae", "owner/repository", "/etc"):
        about = {"name": name, "fingerprint": "0", "scale": 1.0, "shift": 0.0}
        metadata = {"data": {"encoder": about}}
        with pytest.raises(ValueError, match=f"encoder {name}: pass --vae"):
            encoder_of(metadata)


def test_a_model_is_decoded_by_the_encoder_it_remembers_and_no_other(vae, tmp_path):
    encoder = open_encoder(vae())
    metadata = {"data": {"encoder": about_encoder(encoder)}}
    assert encoder_of(metadata, outside=True).fingerprint == encoder.fingerprint
    moved = shutil.copytree(vae(), tmp_path / "moved")
    assert encoder_of(metadata, moved).name == str(moved)
    with pytest.raises(ValueError, match="pass the first"):
        encoder_of(metadata, vae(seed=1))
    metadata["data"]["encoder"]["name"] = "/gone"
    with pytest.raises(ValueError, match="was not found: pass --vae"):
        encoder_of(metadata, outside=True)
    assert encoder_of({}, vae()).fingerprint == encoder.fingerprint


def broken(folder, copy, change):
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def without_a_tensor(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["decoder.conv_in.bias"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def cut_short(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:999])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_a_tensor, "1 are missing or unexpected, such as decoder.conv_in.bias"),
        (cut_short, "must be a complete safetensors file"),
        (lambda folder: (folder / WEIGHTS).unlink(), "there is no .*safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "must hold config.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "of a diffusers encoder"),
        (
            lambda folder: (folder / "config.json").write_text('{"_class_name": "UNet2D"}'),
            "AutoencoderKL, AutoencoderTiny or AutoencoderDC; got 'UNet2D'",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_a_sentence(vae, tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_encoder(broken(vae(), tmp_path / "broken", change))


def test_a_name_that_is_none_and_a_missing_package_are_sentences(vae, monkeypatch):
    with pytest.raises(ValueError, match="expected the folder of an encoder"):
        open_encoder("nowhere")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"pip install 'eqm\[latents\]'"):
        open_encoder(vae())


def test_images_and_latents_that_do_not_fit_are_refused(vae):
    encoder = open_encoder(vae())
    with pytest.raises(
        ValueError, match=r"3 channels whose sides are multiples of 2; got \(1, 8, 8\)"
    ):
        encoder.shape_of((1, 8, 8))
    with pytest.raises(ValueError, match=r"multiples of 2; got \(3, 7, 8\)"):
        encoder.encode(torch.zeros(1, 3, 7, 8))
    with pytest.raises(ValueError, match=r"decodes latents of 4 channels; got \(3, 8, 8\)"):
        encoder.decode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="latents_mean"):
        open_encoder(vae(latents_mean=(0.0, 0.0, 0.0, 0.0)))
