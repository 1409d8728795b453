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
    assert ends.evaluations.max() <= 8
