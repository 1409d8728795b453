import pytest

from eqm.inspection.layout import tested as pictures_of

USUAL = ["train/good/0.png", "test/good/0.png", "test/hole/0.png", "test/hole/1.png"]


def pairs(names):
    return [(names[t.number], t.kind, t.mask and names[t.mask]) for t in pictures_of("x", names)]


@pytest.mark.parametrize("before", ["", "screw/"])
@pytest.mark.parametrize(
    ("folder", "after"), [("ground_truth", "_mask"), ("masks", ""), ("masks", "_mask")]
)
def test_masks_are_found_by_the_names_of_their_pictures(before, folder, after):
    names = [*USUAL, f"{folder}/hole/1{after}.png", f"{folder}/hole/0{after}.png"]
    names = [before + name for name in names]
    assert pairs(names) == [
        (names[1], "good", None),
        (names[2], "hole", names[5]),
        (names[3], "hole", names[4]),
    ]


def test_kinds_may_be_without_masks():
    names = [*USUAL, "test/crack/a.jpg", "masks/crack/a.png"]
    assert pairs(names)[1:] == [
        ("test/crack/a.jpg", "crack", "masks/crack/a.png"),
        ("test/hole/0.png", "hole", None),
        ("test/hole/1.png", "hole", None),
    ]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["good/0.png"], "must have a folder test as MVTec has it; it has none"),
        (["a/test/good/0.png", "b/test/good/0.png"], "several folders test, in a, b: give one"),
        (["test/0.png", *USUAL], "the picture test/0.png beside the folders of kinds"),
        (USUAL[2:], "must have pictures in test/good"),
        (USUAL[:2], "and in a folder of anomalies; it has good"),
        ([*USUAL, "masks/hole/0.png"], "1 of 2 pictures of hole in x have no mask, such as"),
        (
            [*USUAL, *(f"masks/hole/{k}.png" for k in range(3))],
            "1 masks in x have no picture, such as masks/hole/2.png",
        ),
        ([*USUAL, "masks/crack/0.png"], "masks of crack, but no such folder in test"),
        ([*USUAL, "masks/hole/0.png", "ground_truth/hole/0.png"], "two masks for one picture"),
        ([*USUAL, "test/hole/0.jpg"], "differ in their endings only"),
    ],
)
def test_what_is_not_in_the_layout_is_one_sentence(names, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        pictures_of("x", names)
