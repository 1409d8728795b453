"""Sentences as conditions: tokens in networks, a trained model, its uses, frozen text encoders."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from eqm.data import as_source, with_captions, worded
from eqm.data.batches import batches
from eqm.models import MLPConfig, TextConfig, TransformerConfig, UNetConfig, build, from_pretrained
from eqm.randomness import SampleRandom
from eqm.sampling import Sampling
from eqm.serving.engine import Engine
from eqm.tasks import compose, denoise, draw, generate, interpolate, vary
from eqm.text import Vocabulary, open_text, text_of, tokens_of
from eqm.train import TrainConfig, train
from eqm.train.config import OptimizerConfig

TEXT = TextConfig("vocabulary", length=6)
CONFIGS = [
    UNetConfig(num_classes=20, text=TEXT),
    TransformerConfig(shape=(1, 8, 8), width=24, depth=1, heads=2, num_classes=20, text=TEXT),
    MLPConfig(shape=(1, 8, 8), width=32, num_classes=20, text=TEXT),
]
CAPTIONS = ["the top is bright", ["a bright bottom", "bottom"]]


def pictures():
    """Sixteen pictures: those with even numbers are bright above, the others below."""
    x = torch.full((16, 1, 8, 8), -0.8)
    x[::2, :, :4] = x[1::2, :, 4:] = 0.8
    return with_captions(as_source(x), CAPTIONS * 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / "run"
    config = TrainConfig(
        model=UNetConfig(width=8, multipliers=(1, 2), text=TEXT),
        images=16 * 120,
        batch_size=16,
        sampling=Sampling(step_size=0.02, guidance=1.5),
        optimizer=OptimizerConfig(learning_rate=5e-3, ema_halflife=200),
    )
    for _ in train(config, pictures(), folder):
        pass
    return config, folder


@pytest.fixture(scope="module")
def model(run):
    return from_pretrained(run[1])


def trained(config):
    torch.manual_seed(0)
    network = build(config)
    for weight in network.parameters():
        if weight.requires_grad:  # zero weights would hide the words
            torch.nn.init.normal_(weight, std=0.1)
    return network.double()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_what_fills_a_sentence_changes_nothing_and_its_words_change_the_field(config):
    network, x = trained(config), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    short = torch.tensor([[1, 2, 3], [4, 20, 20], [20, 20, 20]])
    padded = torch.nn.functional.pad(short, (0, 3), value=20)
    field = network(x, short)
    torch.testing.assert_close(network(x, padded), field, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(network(x, None)[2], field[2], atol=1e-6, rtol=1e-6)
    assert (network(x, short[[1, 0, 2]]) - field)[:2].abs().max() > 1e-3
    if not isinstance(config, MLPConfig):  # the order of words matters
        assert (network(x, short.flip(1)) - field)[0].abs().max() > 1e-6
    with pytest.raises(ValueError, match="at most 6 tokens"):
        network(x, torch.zeros(3, 7, dtype=torch.int64))


def test_a_trained_model_draws_what_the_prompt_says_and_none_without(model):
    found = generate(model, prompts=["bright top", "Bottom!"], seed=3).x
    upper, lower = found[:, :, :4].mean((1, 2, 3)), found[:, :, 4:].mean((1, 2, 3))
    assert upper[0] > lower[0] + 0.5
    assert lower[1] > upper[1] + 0.5
    same = generate(model, prompts="", count=2, seed=5).x
    torch.testing.assert_close(generate(model, count=2, seed=5).x, same, atol=1e-4, rtol=1e-4)
    ends = {end.index: end.x for end in draw(model, prompts=["top", "bottom"], batch_size=1)}
    whole = generate(model, prompts=["top", "bottom"]).x
    torch.testing.assert_close(torch.stack([ends[0], ends[1]]), whole, atol=1e-4, rtol=1e-4)


def test_a_run_resumes_and_its_vocabulary_is_stored_with_the_weights(run, model):
    config, folder = run
    assert text_of(model.metadata).words[:2] == ("bottom", "bright")
    steps = [step.images for step in train(replace(config, images=16 * 121), pictures(), folder)]
    assert steps == [16 * 121]


def test_all_uses_take_sentences(model):
    x = pictures().batch(torch.arange(2), SampleRandom(0, torch.arange(2)))
    assert vary(model, x, ["top", "bottom"], count=2).x.shape == (4, 1, 8, 8)
    assert denoise(model, x, "top").x.shape == x.shape
    assert interpolate(model, x[0], x[1], ("top", "bottom"), count=3).x.shape == (3, 1, 8, 8)
    alone = compose(model, "'bright top'", count=2, seed=1).x
    torch.testing.assert_close(
        alone, generate(model, prompts="bright top", count=2, seed=1).x, atol=1e-4, rtol=1e-4
    )
    assert compose(model, "'bright top' + 0.5*bottom - 'a'", count=2).x.shape == (2, 1, 8, 8)


def test_requests_with_sentences_share_a_batch_and_get_their_own_samples(model):
    engine = Engine(model, slots=3)
    try:
        asked = [
            engine.submit(generate, None, prompts=["top", "bottom"], seed=4),
            engine.submit(compose, "'bright top' + bottom", count=1, seed=2),
            engine.submit(generate, count=1, seed=8),
        ]
        first, second, third = (each.result(60) for each in asked)
    finally:
        engine.close()
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(
        first.x, generate(model, prompts=["top", "bottom"], seed=4).x, **close
    )
    torch.testing.assert_close(
        second.x, compose(model, "'bright top' + bottom", count=1, seed=2).x, **close
    )
    torch.testing.assert_close(third.x, generate(model, count=1, seed=8).x, **close)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"labels": [3]}, "takes sentences, not classes"),
        ({"prompts": 3}, "must be text, or a list"),
        ({"prompts": [3]}, "a prompt must be text"),
        ({"prompts": ["a"] * 3, "count": 2}, "one for each sample"),
        ({"prompts": "a", "labels": "a"}, "not both"),
        ({"prompts": []}, "one for each sample"),
    ],
)
def test_a_wrong_prompt_is_one_sentence(model, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(model, **given)


def test_a_model_without_words_refuses_a_prompt():
    with pytest.raises(ValueError, match="trained without words and takes no prompt"):
        generate(from_pretrained("mnist-5k"), prompts="a cat")


def test_what_is_left_out_of_a_sentence_is_said(caplog):
    words = Vocabulary(("a", "cat"))
    with caplog.at_level(logging.WARNING):
        rows = tokens_of(words, ["A CAT, a cat", "a zebra", ""], 3)
    assert rows.tolist() == [[0, 1, 0], [0, 2, 2], [2, 2, 2]]
    assert "only the first 3 words are used" in caplog.text
    assert "and of 1 other" in caplog.text


def test_one_of_several_captions_is_drawn_each_epoch_and_a_missing_one_is_counted(caplog):
    source = with_captions(as_source(torch.rand(2, 1, 8, 8)), [["one", "two"], []])
    with caplog.at_level(logging.INFO):
        tokens = worded(source, Vocabulary(("one", "two")), length=2)
    assert "1 of 2 samples have no caption" in caplog.text
    steps = batches(tokens, seed=0, position=0, batch_size=64, device=torch.device("cpu"))
    rows = next(steps).labels.unique(dim=0).tolist()
    assert rows == [[0, 2], [1, 2], [2, 2]]


def tokenizer_in(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "[PAD]": 1, "a": 2, "cat": 3, "hat": 4, "red": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=6
    )
    fast.save_pretrained(folder)


@pytest.fixture
def frozen(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=12,
    )  # fmt: skip
    folder = tmp_path / "bert"
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_a_frozen_text_model_needs_its_tokenizer_and_is_trained_on_by_name(frozen, tmp_path):
    with pytest.raises(ValueError, match="holds no tokenizer"):
        open_text(f"transformers:{frozen}")
    tokenizer_in(frozen)
    text = open_text(f"transformers:{frozen}")
    rows = tokens_of(text, ["a red cat", "a cat a cat a cat a cat"], 6)
    assert rows.tolist() == [[2, 5, 3, 6, 6, 6], [2, 3, 2, 3, 2, 3]]
    assert torch.equal(text.vectors(rows)[:1], text.vectors(rows[:1]))
    config = TrainConfig(
        model=UNetConfig(width=8, multipliers=(1, 2), text=TextConfig(text.name)),
        images=16, batch_size=16,
    )  # fmt: skip
    for _ in train(config, pictures(), tmp_path / "run"):
        pass
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["network"]["text"]["width"] == 8
    assert saved["metadata"]["data"]["text"]["fingerprint"] == text.fingerprint
    model = from_pretrained(tmp_path / "run")
    assert not any("bert" in name for name in model.state_dict())
    assert generate(model, prompts="a cat").x.shape == (1, 1, 8, 8)


def test_a_text_model_that_only_a_model_names_is_not_opened():
    about = {"encoder": "transformers:somebody/model", "fingerprint": "0" * 16}
    with pytest.raises(ValueError, match="open it first"):
        text_of({"data": {"text": about}})


def test_wordllama_gives_near_words_near_vectors():
    pytest.importorskip("wordllama")
    text = open_text("wordllama")
    rows = tokens_of(text, ["dog", "puppy", "engine"], 4)
    assert rows.max() == text.size == 32_000
    present = (rows < text.size).double()[..., None]
    dog, puppy, engine = (text.vectors(rows) * present).sum(1).double()
    assert torch.cosine_similarity(dog, puppy, 0) > torch.cosine_similarity(dog, engine, 0) + 0.2
