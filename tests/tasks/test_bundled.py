import pytest
import torch

import eqm
from eqm.features import Classifier, accuracy
from eqm.tasks import generate


@pytest.mark.parametrize(("name", "least"), [("fashion-mnist", 0.85), ("mnist-5k", 0.95)])
def test_what_models_that_come_with_the_package_draw_is_recognised(name, least):
    labels = torch.arange(100) % 10
    ends = generate(eqm.from_pretrained(name), labels, seed=0)
    classifier = Classifier.load(name)
    assert accuracy(classifier, ends.x.clamp(-1, 1), labels) >= least
    assert accuracy(classifier, ends.x.clamp(-1, 1), labels.roll(1)) < 0.2
    assert ends.nfe.max() <= 8


def test_emoji_have_the_colours_of_what_they_are():
    model = eqm.from_pretrained("openmoji-32")
    names = model.metadata["data"]["classes"]
    labels = torch.tensor([names.index("face-smiling")] * 8 + [names.index("plant-other")] * 8)
    x = generate(model, labels, seed=0).x
    red, green, blue = (x[:8, :, 8:24, 8:24].median(dim=0).values.mean((1, 2))).tolist()
    assert red > green > 0 > blue  # yellow
    drawn = (x[8:, :, 8:24, 8:24] < 0.9).any(1)  # on white
    tinted = x[8:, :, 8:24, 8:24].permute(0, 2, 3, 1)[drawn].mean(0)
    assert tinted.argmax() == 1  # green
    corners = x[:, :, :2, :2]
    assert (corners > 0.9).float().mean() > 0.95
