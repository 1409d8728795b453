"""Files of models, detectors, latents and checkpoints that somebody changed: whatever they say, they load or
end in one sentence that names the file, and nothing is made that is larger than they are."""

import json
import resource
import struct
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from eqm.data.encoding import encode
from eqm.data.latents import check_latents, is_latents
from eqm.encoders import Pixels
from eqm.features.classifier import Classifier
from eqm.models import (
    MLPConfig,
    TransformerConfig,
    UNetConfig,
    build,
    from_pretrained,
    official,
    save_pretrained,
)
from eqm.models.card import write_card
from eqm.monitor.log import Log, read_log
from eqm.tasks import EqmDetector
from eqm.tensor_files import read_tensors

MOST_MEMORY = 500 << 10  # KiB, as getrusage counts
NUMBERS = st.sampled_from(
    [0, -1, 0.5, 1e300, 2, 3, 10**3, 10**6, 10**9, 10**12, 10**18, 2**63, 10**25]
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(
    ["../..", "/etc/passwd", "\x1b[31m"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
often = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def memory():
    """The test takes at most MOST_MEMORY more than before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + MOST_MEMORY


def places(value, path=()):
    """The paths of all entries of a JSON value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, entry in inner:
        yield (*path, key)
        yield from places(entry, (*path, key))


@st.composite
def changed(draw, document):
    """A JSON text like `document` with some entries replaced, removed, added or written twice."""
    found = deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        *path, key = draw(st.sampled_from(sorted(places(found), key=str)))
        inside = found
        for step in path:
            inside = inside[step]
        if draw(st.booleans()):
            inside[key] = draw(VALUES)
        elif draw(st.booleans()) and len(found) > 1:
            del inside[key]
        elif isinstance(inside, dict):
            inside[draw(TEXT)] = draw(VALUES)
    text = json.dumps(found)
    if draw(st.integers(0, 9)) == 0:
        name = json.dumps(draw(st.sampled_from(sorted(found))))
        text = f"{text[:-1]}, {name}: 1}}"
    return text


def loads_or_explains(load, *names):
    """Calls `load`; a ValueError must be one clean line with one of `names`."""
    try:
        load()
    except ValueError as error:
        sentence = str(error)
    else:
        return
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000
    assert any(name in sentence for name in names), sentence


NETWORKS = [
    MLPConfig(shape=(2,), width=8, depth=1),
    UNetConfig(shape=(1, 8, 8), num_classes=3, width=8, multipliers=(1, 2)),
    TransformerConfig(shape=(1, 8, 8), patch=4, width=16, depth=2, heads=2),
]


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: type(config).__name__)
@often
@given(data=st.data())
def test_a_changed_config_of_a_model(tmp_path_factory, config, data):
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(build(config), folder)
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(data.draw(changed(whole)))
    loads_or_explains(lambda: from_pretrained(folder), str(folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 10**9), ("depth", 500), ("width", 10**9), ("width", 65_536), ("heads", 10**18),
        ("shape", [1, 10**6, 10**6]), ("shape", [1, 4096, 4096]), ("shape", [1] * 10**5), ("shape", []),
        ("num_classes", 10**9), ("num_classes", 10**7), ("mlp_ratio", 1e300), ("mlp_ratio", 1000),
        ("patch", 10**30),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_its_file_is_never_built(tmp_path, name, value):
    save_pretrained(build(NETWORKS[2]), tmp_path)
    path = tmp_path / "config.json"
    description = json.loads(path.read_text())
    description["network"][name] = value
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"config\.json|model\.safetensors") as caught:
        from_pretrained(tmp_path)
    assert str(caught.value).isprintable()


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    save_pretrained(build(NETWORKS[1]), folder)
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    EqmDetector(from_pretrained(folder), "loss", 0.2).fit(images).save(folder)
    return folder


@often
@given(data=st.data())
def test_a_changed_detector(detector, data):
    path = detector / "detector.json"
    whole = path.read_text()
    try:
        path.write_text(data.draw(changed(json.loads(whole))))
        loads_or_explains(lambda: EqmDetector.load(detector), str(detector))
    finally:
        path.write_text(whole)


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    from eqm.data import open_source
    from eqm.data.config import DataConfig

    folder = tmp_path_factory.mktemp("latents") / "digits"
    for _ in encode(
        open_source(DataConfig("digits", classes=("0", "1"))), Pixels(), folder, shard_size=200
    ):
        pass
    return folder


@often
@given(data=st.data())
def test_a_changed_manifest_of_latents(latents, data):
    path = latents / "manifest.json"
    whole = path.read_text()
    try:
        path.write_text(data.draw(changed(json.loads(whole))))
        is_latents(latents)
        loads_or_explains(lambda: check_latents(latents), str(latents))
    finally:
        path.write_text(whole)


@often
@given(data=st.data())
def test_a_changed_config_of_a_classifier(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("classifier")
    Classifier(shape=(1, 8, 8), num_classes=3).save(folder)
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(data.draw(changed(whole)))
    loads_or_explains(lambda: Classifier.load(folder), str(folder))


HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "I64", "shape": [1], "data_offsets": [24, 32]},
}


@often
@given(
    text=changed(HEADER),
    length=st.none() | NUMBERS.filter(lambda n: isinstance(n, int) and 0 <= n < 2**64),
)
def test_a_changed_header_of_tensors(tmp_path_factory, text, length):
    path = tmp_path_factory.mktemp("tensors") / "model.safetensors"
    header = text.encode()
    path.write_bytes(
        struct.pack("<Q", len(header) if length is None else length) + header + bytes(32)
    )
    loads_or_explains(lambda: read_tensors(path), str(path))


DTYPES = ["BOOL", "F4", "F6_E2M3", "F8_E5M2", "F8_E8M0", "C64", "U64", "F128", "f32", "", "I4"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_unusual_types_of_tensors_load_or_are_named(tmp_path, dtype):
    header = json.dumps({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    loads_or_explains(lambda: read_tensors(path), str(path))


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "detector.json", "detector.safetensors"]
)
@pytest.mark.parametrize("kind", ["zero", "pipe", "folder", "loop", "huge", "empty"])
def test_devices_pipes_and_folders_in_place_of_files_are_refused(tmp_path, detector, name, kind):
    import os
    import shutil

    folder = shutil.copytree(detector, tmp_path / "copy")
    path = folder / name
    path.unlink()
    if kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        with path.open("wb") as file:
            file.truncate(10**12 if kind == "huge" else 0)
    with pytest.raises((ValueError, OSError)) as caught:
        EqmDetector.load(folder)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()


def test_views_and_empty_tensors_of_an_official_file_are_not_copied(tmp_path):
    weights = {"x_embedder.proj.weight": torch.zeros(1).expand(10**6, 10**6, 2, 2)}
    torch.save(weights, tmp_path / "bomb.pt")
    with pytest.raises(ValueError, match="bomb.pt must hold whole tensors"):
        official.load(tmp_path / "bomb.pt")
    torch.save({"a": torch.zeros(10**6, 10**6, device="meta")}, tmp_path / "meta.pt")
    with pytest.raises(ValueError, match="meta.pt must"):
        official.load(tmp_path / "meta.pt")


@pytest.mark.parametrize(
    "names", [["blocks.x.attn"], ["blocks"], ["blocks.999999999999.a"], ["pos_embed"], [""]]
)
def test_odd_names_in_an_official_file_are_explained(tmp_path, names):
    save_file({name: torch.zeros(2, 2) for name in names}, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="odd.safetensors must hold") as caught:
        official.load(tmp_path / "odd.safetensors")
    assert str(caught.value).isprintable()


LINES = st.lists(
    st.sampled_from([b'{"images": 5, "loss": 1}', b"{", b'{"images": 1e400}', b"[" * 5000, b"\xff", b"{}", b"[1]",
                     b"NaN", b'{"images": "5"}', b'{"images": 7, "loss": [1]}', b'{"images": 8, "images": 9}',
                     b"1" * 5000]),
    max_size=6,
)  # fmt: skip


@often
@given(lines=LINES)
def test_damaged_lines_of_a_log_are_left_out(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("run")
    Log(folder).start(0)
    (folder / "log.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert read_log(folder) == [{"images": 5, "loss": 1}] * lines.count(b'{"images": 5, "loss": 1}')
    Log(folder).start(6)
    assert (folder / "log.jsonl").read_bytes() == b'{"images": 5, "loss": 1}\n' * lines.count(
        b'{"images": 5, "loss": 1}'
    )


def test_a_card_of_odd_metadata_is_written(tmp_path):
    save_pretrained(
        build(NETWORKS[0]),
        tmp_path,
        metadata={"data": {"name": 3, "encoder": [1]}, "best": {}, "sampling": 3},
    )
    write_card(tmp_path, "model")
