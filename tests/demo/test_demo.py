import json
import re

import pytest
from PIL import Image

from eqm.demo import baseline, clothes, composition
from eqm.demo.run import SECTIONS, run

PICTURES = {
    "samples.png",
    "descent.gif",
    "baseline.png",
    "denoising.png",
    "clothes.png",
    "detection.png",
    "composition.png",
}


def facts(folder):
    sections = json.loads((folder / "metrics.json").read_text())["facts"]
    return {fact["name"]: fact for section in sections.values() for fact in section}


def test_a_short_demo_leaves_everything_it_promises(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "EVALUATIONS", (5,))
    monkeypatch.setattr(composition, "COUNT", 20)
    monkeypatch.setattr(clothes, "COUNT", 12)
    said = []
    run(tmp_path, images=1000, seed=0, say=said.append)
    assert set(said) >= set(SECTIONS)
    assert {path.name for path in tmp_path.iterdir()} == PICTURES | {
        "eqm.json",
        "report.html",
        "metrics.json",
        "model",
        "baseline",
    }
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            picture.verify()
    with Image.open(tmp_path / "descent.gif") as animation:
        assert animation.n_frames == 45
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == len(PICTURES)
    assert page.count("<li>") == 2  # where EqM wins over flow matching, and where it does not
    assert not re.search(r'(src|href)="(?!data:)', page)  # opens offline
    assert all(fact["how"] for fact in facts(tmp_path).values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_is_as_good_as_it_says(tmp_path, seed):
    run(tmp_path, images=200_000, seed=seed)
    value = {name: fact["value"] for name, fact in facts(tmp_path).items()}
    assert value["The classifier on real digits"] >= 0.97
    assert value["Recognised as their class"] >= 0.97
    assert value["Their ratio"] <= 2
    assert value["Samples that could be copies"] <= 0.05
    for impostors in ("noise", "inverted", "shuffled pixels"):
        assert value[f"AUROC, digits against {impostors}"] >= 0.99
    assert value["AUROC, digits against scrambled halves"] >= 0.9
