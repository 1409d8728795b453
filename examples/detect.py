"""Finds pictures that are not clothes: calibrate on normal pictures, then test new ones."""

from torch.utils.data import DataLoader

import eqm
from eqm.data import DataConfig, as_dataset, open_source


def main() -> None:
    dataset = as_dataset(open_source(DataConfig("fashion-mnist-test"), small=True))
    clothes, _ = next(iter(DataLoader(dataset, batch_size=300)))  # (300, 1, 28, 28) in -1..1
    model = eqm.from_pretrained("fashion-mnist")
    detector = eqm.tasks.EqmDetector(model).fit(clothes[:250])

    new = clothes[250:]
    tests = {"clothes": new, "upside down": new.flip(-2), "inverted": -new}
    for name, pictures in tests.items():
        flagged = detector.predict(pictures, fpr=0.05)
        print(f"{name}: {int(flagged.sum())} of {len(pictures)} flagged as anomalies")


if __name__ == "__main__":
    main()
