import pytest
import torch
from PIL import Image

from eqm.pictures import animate, grid, heatmap

FRAMES = [grid(torch.full((2, 1, 5, 5), level), columns=2) for level in (-1.0, 0.0, 1.0)]


def test_a_gif_has_every_picture_and_shows_the_last_longer(tmp_path):
    animate(FRAMES, tmp_path / "a.gif", seconds=0.1, last_seconds=1.0)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 3
        times, levels = [], []
        for k in range(3):
            film.seek(k)
            times.append(film.info["duration"])
            levels.append(film.convert("L").getpixel((3, 3)))
    assert times == [100, 100, 1000]
    assert levels == [0, 128, 255]


def test_an_mp4_can_be_read_back(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    animate(FRAMES, tmp_path / "a.mp4", seconds=0.1, last_seconds=0.3)
    frames, seconds = ffmpeg.count_frames_and_secs(tmp_path / "a.mp4")
    assert (frames, round(seconds, 1)) == (5, 0.5)


@pytest.mark.parametrize(
    ("frames", "name", "message"),
    [
        (FRAMES, "a.avi", "must end in .gif or .mp4"),
        ([], "a.gif", "pictures of one size"),
        ([FRAMES[0], FRAMES[0].resize((3, 3))], "a.gif", "pictures of one size"),
    ],
)
def test_bad_animations_are_refused(tmp_path, frames, name, message):
    with pytest.raises(ValueError, match=message):
        animate(frames, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_heatmaps_redden_from_one_to_the_maximum():
    map_ = torch.tensor([[0.5, 1.0, 8**0.5, 8.0, 100.0]]).view(1, 1, 5)
    red, green, _ = heatmap(torch.zeros(1, 1, 1, 5), map_)[0, :, 0].tolist()
    assert red == pytest.approx([0, 0, 0.5, 1, 1])
    assert green == pytest.approx([0, 0, -0.35, -0.7, -0.7])
