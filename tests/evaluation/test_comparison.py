import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from eqm.data import digits
from eqm.evaluation import Settings, compare, evaluate, evaluate_each, from_source, gather, write
from eqm.features import open_features
from eqm.metrics import bootstrap

FAST = Settings(("frechet", "kernel", "precision-recall", "accuracy"))


@pytest.fixture(scope="module")
def features():
    return [open_features("classifier:digits")]


@pytest.fixture(scope="module")
def reports(features):
    """Of digits, and of the same with noise."""
    clean, reference = digits().split(0.5)
    noise = torch.randn(clean.data.shape, generator=torch.Generator().manual_seed(0))
    noisy = replace(clean, name="noisy", data=(clean.data + 0.5 * noise).clamp(-1, 1))
    both = [from_source(clean), from_source(noisy)]
    return evaluate_each(both, gather(from_source(reference), features)[0], features, settings=FAST)


def test_the_better_samples_are_named(reports):
    for pair, better in ((reports, "A"), (reports[::-1], "B")):
        found = {one.a.name: one for one in compare(*pair).differences}
        assert [found[name].better for name in ("frechet", "kernel", "accuracy")] == [better] * 3
        for one in found.values():
            low, high = one.interval
            assert low < one.value < high


def test_equal_samples_have_no_difference(reports):
    for one in compare(reports[0], reports[0]).differences:
        assert one.value == 0
        assert one.interval == (0, 0)
        assert one.better == "cannot tell"


def test_intervals_are_a_paired_bootstrap(reports):
    clean, noisy = (report["accuracy"] for report in reports)
    found = next(one for one in compare(*reports).differences if one.a.name == "accuracy")
    a, b = (one.influence + one.value for one in (clean, noisy))  # whether each is right
    assert set(a.unique().tolist()) <= {0.0, 1.0}
    expected = bootstrap(lambda pairs: (pairs[:, 1] - pairs[:, 0]).mean(), torch.stack([a, b], 1))
    assert (found.interval[0], found.value, found.interval[1]) == pytest.approx(tuple(expected))


def test_a_comparison_is_written_as_table_json_and_plot(reports, tmp_path):
    found = compare(*reports)
    for name in ("c.md", "c.json", "c.png"):
        write(found, tmp_path / name)
    text = (tmp_path / "c.md").read_text()
    assert "| metric in classifier:digits features | A | B | B - A | better |" in text
    assert "* B: " in text
    assert "of noisy" in text
    saved = json.loads((tmp_path / "c.json").read_text())
    assert [one["name"] for one in saved["differences"]] == [
        one.a.name for one in found.differences
    ]
    assert saved["A"]["measurements"][0]["protocol"]["samples"]["count"] == 899
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 100
    with pytest.raises(ValueError, match=r"written as \.json or \.md or \.png; got"):
        write(found, tmp_path / "c.pdf")


def test_the_same_noise_is_named_only_for_equal_seeds(reports):
    def seeded(report, seeds):
        return replace(
            report, measurements=tuple(with_seeds(one, seeds) for one in report.measurements)
        )

    def with_seeds(one, seeds):
        samples = replace(one.protocol.samples, settings={"seeds": seeds})
        return replace(one, protocol=replace(one.protocol, samples=samples))

    a, b = reports
    for pair, so in [
        ((a, b), False),  # pictures
        ((seeded(a, "0..9"), seeded(b, "0..9")), True),
        ((seeded(a, "0..9"), seeded(b, "5..14")), False),
        ((seeded(a, "0..9"), b), False),
    ]:
        assert ("start from the same noise" in str(compare(*pair))) == so


def test_a_plot_without_differences_is_empty(reports, tmp_path):
    nothing = replace(compare(*reports), differences=())
    write(nothing, tmp_path / "c.png")
    assert (tmp_path / "c.png").exists()


def test_reports_with_different_protocols_are_refused(reports, features):
    reference = reports[0].reference[0]
    samples = from_source(digits(), count=899)
    other = evaluate(samples, reference, features, settings=replace(FAST, seed=1))
    with pytest.raises(ValueError, match=r"differ in seed \(0 and 1\): measure one"):
        compare(reports[0], other)
    fewer = evaluate(from_source(digits(), count=700), reference, features, settings=FAST)
    with pytest.raises(ValueError, match=r"the number of samples \(899 and 700\)"):
        compare(reports[0], fewer)
