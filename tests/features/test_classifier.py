from pathlib import Path

import pytest
import torch

from eqm.features import Classifier, accuracy, embed, open_features, train_classifier


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_validation_digits_are_classified_correctly() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    selection = pytest.importorskip("sklearn.model_selection")
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1
    labels = torch.from_numpy(labels)
    seen, val_data = selection.train_test_split(
        torch.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    classifier = train_classifier(images[seen], labels[seen], num_classes=10)
    assert accuracy(classifier, images[val_data], labels[val_data]) >= 0.97


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 5, 9)])
def test_images_of_any_size_and_channels_train(shape: tuple[int, ...]) -> None:
    labels = torch.arange(16) % 2
    images = (labels[:, None, None, None] - 0.5) + normal(16, *shape).clamp(-1, 1) / 4
    classifier = train_classifier(images, labels, num_classes=2)
    assert not classifier.training
    assert classifier(images).shape == (16, 2)
    assert accuracy(classifier, images, labels) == 1


def test_training_is_a_function_of_its_arguments_and_leaves_the_global_state() -> None:
    images, labels = normal(24, 1, 8, 8).clamp(-1, 1), torch.arange(24) % 3
    before = torch.get_rng_state()
    one, same, other = (
        train_classifier(images, labels, num_classes=3, epochs=2, batch_size=10, seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.get_rng_state().equal(before)
    assert embed(one, images).equal(embed(same, images))
    assert not embed(one, images).equal(embed(other, images))
    torch.manual_seed(7)
    after = train_classifier(images, labels, num_classes=3, epochs=2, batch_size=10)
    assert embed(after, images).equal(
        embed(train_classifier(images, labels, num_classes=3, epochs=2, batch_size=10), images)
    )


def test_features_are_detached_and_do_not_depend_on_the_batch_size() -> None:
    classifier, images = Classifier(shape=(1, 8, 8), num_classes=4).train(), normal(10, 1, 8, 8)
    features = embed(classifier, images)
    assert features.shape == (10, 64)
    assert not features.requires_grad
    assert classifier.training  # as it was
    torch.testing.assert_close(embed(classifier, images, batch_size=3), features)
    torch.testing.assert_close(classifier.eval().head(features), classifier(images))


def test_accuracy_counts_the_labels_found() -> None:
    classifier, images = Classifier(shape=(1, 8, 8), num_classes=4).eval(), normal(10, 1, 8, 8)
    labels = classifier(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    assert accuracy(classifier, images, labels, batch_size=4) == pytest.approx(0.7)


def test_invalid_input_is_refused() -> None:
    images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
    with pytest.raises(ValueError, match="one label per image"):
        train_classifier(images, labels[:3], num_classes=4)
    with pytest.raises(ValueError, match=r"in -1..1; got 16 to 16"):
        train_classifier(images + 16, labels, num_classes=4)
    with pytest.raises(ValueError, match="floating-point"):
        train_classifier(images.byte(), labels, num_classes=4)
    with pytest.raises(ValueError, match="labels must lie in 0 to 2; got 0 to 3"):
        train_classifier(images, labels, num_classes=3)
    with pytest.raises(ValueError, match="labels must have shape"):
        accuracy(Classifier(shape=(1, 8, 8), num_classes=4), images, labels[:3])


def test_a_saved_classifier_gives_the_same_features(tmp_path: Path) -> None:
    images, labels = normal(24, 3, 6, 6).clamp(-1, 1), torch.arange(24) % 3
    classifier = train_classifier(images, labels, num_classes=3, epochs=1)
    classifier.metadata = {"val_accuracy": 0.5}
    classifier.save(tmp_path)
    assert Classifier.load(tmp_path).metadata == classifier.metadata
    one, two = (open_features(f"classifier:{tmp_path}") for _ in range(2))
    assert one.fingerprint == two.fingerprint != open_features("classifier:digits").fingerprint
    found = one(images)
    assert found.vector.shape == (24, one.size)
    torch.testing.assert_close(found.vector, embed(classifier, images))
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities.log(), classifier(images).log_softmax(1))


def test_the_package_holds_a_classifier_of_the_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1
    found = open_features("classifier:digits")(images).probabilities
    assert found is not None
    assert (found.argmax(1) == torch.from_numpy(labels)).float().mean() > 0.99


def test_an_invalid_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digits.* or a folder"):
        open_features("classifier:nothing")
    (tmp_path / "config.json").write_text('{"format": "eqm"}')
    with pytest.raises(
        ValueError, match="config.json: format must be one of eqm-classifier; got 'eqm'"
    ):
        open_features(f"classifier:{tmp_path}")
    with pytest.raises(ValueError, match="has files in it"):
        Classifier(shape=(1, 8, 8), num_classes=4).save(tmp_path)
    (tmp_path / "config.json").unlink()
    Classifier(shape=(1, 8, 8), num_classes=4).save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="complete safetensors file"):
        open_features(f"classifier:{tmp_path}")
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\); got \(1, 28, 28\)"):
        open_features("classifier:digits")(torch.zeros(1, 1, 28, 28))
