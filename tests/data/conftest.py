"""Data sets of small pictures, packed in every way."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image


def _picture():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURE = _picture()


def in_folder(path, files):
    for name, content in files.items():
        place = path / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return path


def in_zip(path, files):
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def in_tar(path, files):
    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(params=[in_folder, in_zip, in_tar])
def pack(request):
    """Writes files, a dict of names and contents, into a folder, a zip or a tar, and returns its path."""
    return request.param


@pytest.fixture(scope="session")
def packs():
    """The three ways."""
    return in_folder, in_zip, in_tar


@pytest.fixture(scope="session")
def drawn():
    """Makes files that hold a picture, by their names."""
    return lambda *names: dict.fromkeys(names, PICTURE)
