"""The metrics agree with torchmetrics, which needs no torchvision for given features."""

import pytest
import torch

from eqm.metrics import (
    Moments,
    frechet_distance,
    inception_score,
    kernel_distance,
)

fid = pytest.importorskip("torchmetrics.image.fid")
kid = pytest.importorskip("torchmetrics.image.kid")
inception = pytest.importorskip("torchmetrics.image.inception")

pytestmark = pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")


class Given(torch.nn.Module):
    """Takes features for images."""

    num_features = 6

    def forward(self, x):
        return x


@pytest.fixture
def sets(generator):
    samples = torch.randn(300, 6, generator=generator, dtype=torch.float64)
    references = 1.5 * torch.randn(200, 6, generator=generator, dtype=torch.float64) + 0.3
    return samples, references


def fed(metric, samples, references):
    for rows in references.split(64):
        metric.update(rows, real=True)
    for rows in samples.split(64):
        metric.update(rows, real=False)
    return metric.compute()


def test_frechet_distance(sets):
    theirs = fid.FrechetInceptionDistance(feature=Given(), normalize=True).set_dtype(torch.float64)
    found = frechet_distance(*map(Moments.of, sets))
    assert found == pytest.approx(fed(theirs, *sets).item(), rel=1e-9)


def test_kernel_distance_over_all_rows(sets):
    samples, references = sets[0][:200], sets[1]
    theirs = kid.KernelInceptionDistance(
        feature=Given(), subsets=1, subset_size=200, normalize=True
    )
    found = kernel_distance(samples, references, subsets=1, subset_size=200).value
    assert found == pytest.approx(fed(theirs, samples, references)[0].item(), rel=1e-9)


@pytest.mark.filterwarnings("ignore:std")
def test_inception_score_of_one_split(sets):
    logits = sets[0]
    theirs = inception.InceptionScore(feature=Given(), splits=1)
    theirs.update(logits)
    found = inception_score(logits.softmax(1), splits=1).value
    assert found == pytest.approx(theirs.compute()[0].item(), rel=1e-9)
