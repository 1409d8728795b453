from itertools import pairwise

import numpy as np
import pytest
import torch

from eqm.metrics import best_f1, pixel_auroc, pixel_intervals, pro

TRUE = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]]]).bool()


def literal_pro(maps, masks, limit):
    """The definition, threshold by threshold, with regions found by flooding."""
    regions = []
    for picture, mask in enumerate(masks):
        left = {(r, c) for r, c in mask.nonzero().tolist()}
        while left:
            region, border = set(), {left.pop()}
            while border:
                region |= border
                near = {(r + a, c + b) for r, c in border for a in (-1, 0, 1) for b in (-1, 0, 1)}
                border = near & left
                left -= border
            regions.append((picture, region))
    normal = [x for m, t in zip(maps, masks, strict=True) for x in m[~t].tolist()]
    points = [(0.0, 0.0)]
    for threshold in sorted({x for m in maps for x in m.flatten().tolist()}, reverse=True):
        shares = [
            sum(maps[picture][r, c].item() >= threshold for r, c in region) / len(region)
            for picture, region in regions
        ]
        points.append((np.mean([x >= threshold for x in normal]), np.mean(shares)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 > limit and x0 < limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2 if x1 <= limit else 0
    return area / limit


def random_maps(levels, seed=0):
    """Pictures of different sizes, with regions that touch at corners and pictures without any."""
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(h, w, generator=generator) < 0.15 for h, w in ((9, 7), (6, 12), (5, 5))]
    masks.append(torch.zeros(8, 8, dtype=torch.bool))
    draws = [torch.rand(mask.shape, generator=generator) + 0.4 * mask for mask in masks]
    return [(x * levels).floor() for x in draws], masks


@pytest.mark.parametrize("levels", [4, 10**6])  # with many ties, and with few
@pytest.mark.parametrize("limit", [0.05, 0.3, 1])
def test_pro_follows_its_definition(levels, limit):
    maps, masks = random_maps(levels)
    assert pro(maps, masks, limit=limit) == pytest.approx(
        literal_pro(maps, masks, limit), abs=1e-12
    )


@pytest.mark.parametrize("levels", [4, 10**6])
def test_pixels_agree_with_scikit_learn(levels):
    metrics = pytest.importorskip("sklearn.metrics")
    maps, masks = random_maps(levels)
    scores = torch.cat([x.flatten() for x in maps]).numpy()
    truth = torch.cat([x.flatten() for x in masks]).numpy()
    assert pixel_auroc(maps, masks) == pytest.approx(
        metrics.roc_auc_score(truth, scores), abs=1e-12
    )
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / (precision + recall).clip(1e-9)
    found, k = best_f1(maps, masks), f1[:-1].argmax()
    assert found == pytest.approx((f1[k], thresholds[k], precision[k], recall[k]), abs=1e-12)


def test_perfect_random_and_inverted_maps():
    assert pixel_auroc(TRUE.float(), TRUE) == pro(TRUE.float(), TRUE) == 1
    assert best_f1(TRUE.float(), TRUE) == (1, 1, 1, 1)
    assert pixel_auroc(-TRUE.float(), TRUE) == pro(-TRUE.float(), TRUE) == 0
    constant = torch.zeros(TRUE.shape)
    assert pixel_auroc(constant, TRUE) == 0.5
    assert pro(constant, TRUE, limit=0.2) == pytest.approx(0.1)  # limit / 2
    assert best_f1(constant, TRUE).value == pytest.approx(2 * 3 / (10 + 3))  # all are marked


def test_regions_count_alike_whatever_their_size():
    half = TRUE.float()
    half[0, 1, 4] = -1  # the region of one pixel is missed, that of two is found
    assert pro(half, TRUE) == pytest.approx(1 / 2)
    assert pixel_auroc(half, TRUE) == pytest.approx(2 / 3)
    joined = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]])  # they touch at a corner
    assert pro(torch.tensor([[[1.0, 0, 0], [0, -1, 0], [0, 0, 0]]]), joined) == pytest.approx(1 / 2)
    assert pro(torch.tensor([[[1.0, 0, 0]]]).repeat(1, 1, 1), joined[:, :1]) == 1


def test_infinite_values_are_the_highest():
    maps = torch.tensor([[[torch.inf, 1.0, 0.0]]])
    assert pro(maps, maps.isinf()) == pixel_auroc(maps, maps.isinf()) == 1


def test_intervals_hold_the_exact_values_and_draw_pictures():
    maps, masks = random_maps(10**6)
    copies = [x for x in maps for _ in range(10)], [x for x in masks for _ in range(10)]
    found = pixel_intervals(*copies, resamples=300)
    assert found.auroc.value == pytest.approx(pixel_auroc(maps, masks), abs=1e-12)
    assert found.pro.value == pytest.approx(pro(maps, masks), abs=1e-12)
    assert found.f1.value == pytest.approx(best_f1(maps, masks).value, abs=1e-12)
    assert all(each.low < each.value < each.high for each in found)
    # the same draws, one by one, with the exact metrics
    generator = torch.Generator().manual_seed(1)
    values = []
    for _ in range(100):
        rows = torch.cat(
            [torch.randint(30, (30,), generator=generator), 30 + torch.zeros(10).long()]
        )
        drawn = [[each[k] for k in rows.tolist()] for each in copies]
        values.append(pro(*drawn))
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.pro.low == pytest.approx(low, abs=0.01)
    assert found.pro.high == pytest.approx(high, abs=0.01)
    assert found == pixel_intervals(*copies, resamples=300)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (TRUE.float(), TRUE[..., :4], r"masks\[0\] must have the shape of its map, \(2, 5\); got"),
        (TRUE.float(), TRUE * 255, r"masks\[0\] has values from 0 to 255: pass mask > 0"),
        (TRUE * torch.nan, TRUE, r"maps must not be NaN; maps\[0\] has 10 pixels of NaN"),
        (TRUE.float(), TRUE & False, "got none anomalous ones"),
        (TRUE.float(), TRUE | True, "got only anomalous ones"),
        (TRUE.float(), torch.cat([TRUE, TRUE]), "must be as many, at least one; got 1 and 2"),
        (TRUE[0].float(), TRUE[0], r"maps\[0\] must be numbers of shape \(H, W\)"),
        ([], [], "at least one; got 0 and 0"),
    ],
)
def test_maps_and_masks_that_do_not_fit_are_refused(maps, masks, message):
    for metric in (pixel_auroc, best_f1, pro, pixel_intervals):
        with pytest.raises(ValueError, match=message):
            metric(maps, masks)


@pytest.mark.parametrize("limit", [0, 1.1, 30])
def test_a_limit_outside_its_range_is_refused(limit):
    with pytest.raises(ValueError, match=r"limit must lie in \(0, 1\]"):
        pro(TRUE.float(), TRUE, limit=limit)
