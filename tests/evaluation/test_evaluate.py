import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eqm.data import digits
from eqm.evaluation import (
    Settings,
    evaluate,
    evaluate_each,
    from_source,
    gather,
    open_statistics,
    save_statistics,
    write,
)
from eqm.evaluation.metrics import MetricInput
from eqm.features import Classifier, open_features
from eqm.features.features import Activations, from_module
from eqm.metrics import Moments, frechet_distance, kernel_distance, overlap
from eqm.pictures import to_uint8


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def halves(source):
    return source.split(0.5)


def test_metrics_use_features_of_images_rounded_to_8_bits(halves, pixels, generator):
    noise = 0.3 * torch.randn(halves[0].data.shape, generator=generator)
    samples, reference = replace(halves[0], data=(halves[0].data + noise).clamp(-1, 1)), halves[1]
    report = evaluate(from_source(samples), gather(from_source(reference), [pixels])[0], [pixels])
    a, b = (
        torch.from_numpy(to_uint8(each.data).reshape(len(each), -1) / 127.5 - 1)
        for each in (samples, reference)
    )
    expected = frechet_distance(Moments.of(a), Moments.of(b))
    assert report["frechet"].value == pytest.approx(expected, rel=1e-6)
    assert report["kernel"].value == pytest.approx(kernel_distance(a, b).value, rel=1e-5)
    expected = overlap(a, b, neighbours=3)
    assert report["precision"].value == pytest.approx(expected.precision)
    assert report["recall"].value == pytest.approx(expected.recall)


def test_merged_statistics_equal_those_of_all_images(source, pixels):
    whole = gather(from_source(source), [pixels], Settings(batch_size=100))[0]
    parts = [from_source(source, count=700), from_source(source, skip=700)]
    one, other = (gather(part, [pixels], Settings(batch_size=33))[0] for part in parts)
    merged = one.merge(other)
    assert merged.moments.count == len(source)
    for a, b in zip(
        (merged.moments.mean, merged.moments.covariance),
        (whole.moments.mean, whole.moments.covariance),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    torch.testing.assert_close(merged.vectors.sort(0).values, whole.vectors.sort(0).values)


def test_images_are_freed_and_at_most_max_rows_are_kept(source, pixels):
    alive, most = set(), []

    def watched(size):
        for batch in from_source(source).batches(size):
            alive.add(number := int(batch.numbers[0]))
            weakref.finalize(batch.images, alive.discard, number)
            most.append(len(alive))
            yield batch
            del batch

    samples = replace(from_source(source), batches=watched)
    found = gather(samples, [pixels], Settings(max_rows=50, batch_size=64))[0]
    assert max(most) <= 2
    assert found.vectors.shape == (50, 64)
    assert found.moments.count == len(source)


def test_at_most_max_rows_of_the_reference_are_kept(source, pixels):
    settings = Settings(("kernel",), max_rows=50)
    samples = from_source(source, count=60)
    report = evaluate(samples, source, [pixels], settings=settings)
    assert "from at most 50 feature vectors" in str(report["kernel"].protocol)
    assert len(report.reference[0].vectors) == 50
    assert report.reference[0].moments.count == len(source)


def test_a_number_is_printed_with_its_protocol(halves, pixels, tmp_path):
    report = evaluate(from_source(halves[0]), halves[1], [pixels])
    text = str(report["frechet"])
    for part in (pixels.fingerprint, halves[1].fingerprint, "899", "8 bits", "seed 0", "resize"):
        assert part in text
    with pytest.raises(TypeError):
        f"{report['frechet']:.2f}"
    for name in ("report.md", "report.json"):
        write(report, tmp_path / name)
    assert pixels.fingerprint in (tmp_path / "report.md").read_text()
    saved = json.loads((tmp_path / "report.json").read_text())
    for one in saved["measurements"]:
        assert one["protocol"]["features"]["fingerprint"] == pixels.fingerprint
    with pytest.raises(ValueError, match=r"\.json or \.md"):
        write(report, tmp_path / "report.txt")


def test_real_images_are_measured_too(source, pixels):
    report = evaluate(from_source(source, count=100), source, [pixels])
    real = {one.name: one for one in report.real_images}
    assert real["frechet"].protocol.samples.count == 100
    assert real["frechet"].protocol.reference.count == len(source) - 100
    # The samples are these very images, and the reference holds them besides.
    assert real["frechet"].value > report["frechet"].value > 0.8 * real["frechet"].value
    assert real["coverage"].value == pytest.approx(report["coverage"].value, abs=0.1)


def test_copies_of_training_images_are_found(source, pixels):
    training, unseen = source.split(0.3)
    settings = Settings(metrics=("memorisation",))
    copied = from_source(training, count=200)
    report = evaluate(copied, source, [pixels], training=training, settings=settings)
    assert report["copies"].value == 1
    assert report["nearest-ratio"].value == pytest.approx(0, abs=1e-6)
    new = evaluate(from_source(unseen), source, [pixels], training=training, settings=settings)
    assert new["nearest-ratio"].value == pytest.approx(1, abs=0.02)
    assert new["copies"].value < 0.03
    with pytest.raises(
        ValueError, match="needs a reference with images that are not training images"
    ):
        evaluate(copied, training, [pixels], training=training, settings=settings)


def test_the_interval_of_a_fraction_lies_in_0_to_1():
    given = MetricInput(None, None, None, SimpleNamespace(seed=0))
    assert given.mean("copies", torch.arange(1000) < 1).interval == (0, 0.003)


def test_accuracy_is_the_fraction_classified_as_their_label(source):
    features = open_features("classifier:digits")
    wrong = replace(source, labels=(source.labels + (torch.arange(len(source)) % 2)) % 10)
    report = evaluate(from_source(wrong), source, [features])
    right = Classifier.load("digits")(source.data).argmax(1) == wrong.labels
    assert report["accuracy"].value == pytest.approx(right.double().mean().item(), abs=2e-3)
    low, high = report["accuracy"].interval
    assert low < report["accuracy"].value < high


def test_a_missing_input_of_a_metric_is_named(source, pixels):
    bare = replace(source, labels=None, num_classes=0)
    classifier = open_features("classifier:digits")
    for features, name, lack in [
        (classifier, "accuracy", "labels of the samples"),
        (pixels, "accuracy", "probabilities of classes"),
        (pixels, "inception-score", "probabilities of classes"),
        (pixels, "frechet-spatial", "spatial activations"),
        (pixels, "memorisation", "the training images"),
    ]:
        with pytest.raises(ValueError, match=f"{name} in {features.name} features needs .*{lack}"):
            evaluate(from_source(bare), source, [features], settings=Settings((name,)))
    three = replace(source, labels=source.labels % 3, num_classes=3)
    with pytest.raises(ValueError, match="needs a classifier of the samples' 3 classes"):
        evaluate(from_source(three), source, [classifier], settings=Settings(("accuracy",)))
    notes = evaluate(from_source(bare), source, [pixels]).notes
    assert any("accuracy; needed: probabilities" in note for note in notes)
    with pytest.raises(
        ValueError, match="metric must be one of accuracy, .*frechet.*; got 'nonsense'"
    ):
        evaluate(from_source(source), source, [pixels], settings=Settings(("nonsense",)))


def test_fid_kid_and_sfid_need_inception_features(source, pixels):
    def read(x):
        return Activations(x.flatten(1), spatial=x.flatten(1))

    inception = from_module(torch.nn.Identity(), name="inception:weights.pth", read=read)
    samples = from_source(source, count=300)
    settings = Settings(metrics=("fid", "kid", "sfid"))
    report = evaluate(samples, source, [inception], settings=settings)
    assert [one.label for one in report.measurements] == ["FID", "KID", "sFID"]
    assert report["fid"] is report["frechet"]
    assert "| FID |" in str(report)
    plain = evaluate(samples, source, [pixels], settings=Settings(("frechet", "kernel")))
    assert str(plain["frechet"]).startswith("Frechet distance in pixels features: ")
    for name, other in [("fid", "frechet"), ("kid", "kernel"), ("sfid", "frechet-spatial")]:
        sentence = f"{name} is the .* in Inception features; with pixels ask for {other}$"
        with pytest.raises(ValueError, match=f"(?i){sentence}"):
            evaluate(samples, source, [inception, pixels], settings=Settings((name,)))


def test_a_metric_with_two_names_is_measured_once(source, pixels):
    measured = [one.name for one in evaluate(from_source(source), source, [pixels]).measurements]
    assert measured[:3] == ["frechet", "frechet-infinity", "kernel"]
    assert len(set(measured)) == len(measured)


def test_a_report_says_whether_there_are_signs_of_memorisation(source, pixels):
    training, unseen = source.split(0.3)
    settings = Settings(metrics=("memorisation",))
    for images, sentence in [(unseen, "is no sign of memor"), (training, "are signs of memor")]:
        report = evaluate(
            from_source(images), source, [pixels], training=training, settings=settings
        )
        assert [note for note in report.notes if f"There {sentence}" in note]


def test_too_few_samples_give_a_note(source, pixels):
    report = evaluate(from_source(source, count=64), source, [pixels])
    assert any("64 samples are too few" in note and "kernel" in note for note in report.notes)
    assert not any(
        "too few" in note for note in evaluate(from_source(source), source, [pixels]).notes
    )


def test_images_of_other_shape_or_range_are_refused(source, pixels):
    samples = from_source(source)
    half = replace(source, name="half", data=(source.data + 1) / 2)
    with pytest.raises(ValueError, match=r"half: .* seem to lie in 0\.\.1"):
        evaluate(from_source(half), source, [pixels])
    with pytest.raises(ValueError, match=r"half: .* seem to lie in 0\.\.1"):
        evaluate(samples, half, [pixels])
    small = replace(source, name="small", data=source.data[:, :, :4])
    with pytest.raises(
        ValueError, match=r"one shape .* small \(1, 4, 8\), the reference \(1, 8, 8\)"
    ):
        evaluate(from_source(small), source, [pixels])
    with pytest.raises(ValueError, match="1,797 and 100: give --count"):
        evaluate_each([samples, from_source(source, count=100)], source, [pixels])

    def broken(size):
        for batch in samples.batches(size):
            batch.images[batch.numbers == 5] = torch.nan
            yield batch

    with pytest.raises(ValueError, match="1 images hold NaN or infinity, the first is number 5"):
        evaluate(replace(samples, batches=broken), source, [pixels])
    many = from_module(torch.nn.ZeroPad2d(70), name="many")
    with pytest.raises(ValueError, match=r"at most 20,000 numbers per image; got 21,904"):
        evaluate(samples, source, [many])


def test_saved_statistics_can_be_the_reference(source, pixels, tmp_path):
    samples = from_source(source, count=300)
    report = evaluate(samples, source, [pixels])
    save_statistics(tmp_path / "digits.safetensors", report.reference[0])
    again = evaluate(samples, open_statistics(tmp_path / "digits.safetensors"), [pixels])
    assert [(one.name, one.value) for one in again.measurements] == [
        (one.name, one.value) for one in report.measurements
    ]
    assert again["frechet"].protocol == report["frechet"].protocol
    with pytest.raises(
        ValueError, match=r"holds statistics of pixels .*needed are those of classif"
    ):
        evaluate(samples, again.reference[0], [open_features("classifier:digits")])
    with pytest.raises(ValueError, match="statistics of one kind of features; got 2"):
        evaluate(samples, again.reference[0], [pixels, pixels])
    with pytest.raises(ValueError, match=r"saved as \.safetensors"):
        save_statistics(tmp_path / "digits.pt", again.reference[0])


def test_an_npz_of_mean_and_covariance_gives_the_frechet_distance(source, pixels, tmp_path):
    rows = source.data.flatten(1).double().numpy()
    moments = {"mu": rows.mean(0), "sigma": np.cov(rows, rowvar=False)}
    np.savez(tmp_path / "digits.npz", **moments)
    samples = from_source(source, count=300)
    found = evaluate(samples, open_statistics(tmp_path / "digits.npz"), [pixels])
    expected = evaluate(samples, source, [pixels], settings=Settings(rounding=False))
    assert found["frechet"].value == pytest.approx(expected["frechet"].value, rel=1e-2)
    assert found["frechet"].protocol.reference.count is None
    assert any("kernel" in note and "file of mean and covariance" in note for note in found.notes)
    sought = evaluate(samples, open_statistics(tmp_path / "digits.npz"), [pixels], training=source)
    assert sought["frechet"].protocol.training is None  # no copies could be looked for
    assert any(
        "memorisation" in note and "file of mean and covariance" in note for note in sought.notes
    )
    np.savez(tmp_path / "other.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    other = open_statistics(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="features of one size; got 64 and 2048"):
        evaluate(samples, other, [pixels])
    with pytest.raises(ValueError, match="other holds .* 2,048 numbers .*; needed .* 64 numbers"):
        evaluate(samples, other, [open_features("classifier:digits")])
