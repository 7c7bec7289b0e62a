"""EVA-I2I: sizes, stages, losses by hand, targets in words and the ablations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scan_batches import FLAIR, T1, T2, scan_batch

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.models.blocks.eva_recipe import EvaRecipe, EvaRecipeConfig
from MedXlateCore.models.blocks.init import without_memory
from MedXlateCore.models.eva_i2i import EvaConfig, EvaI2I, EvaNetwork, known_domains
from MedXlateCore.models.method import TrainingState

METHOD = EvaI2I()
TINY = METHOD.presets["tiny"]
QUICK = METHOD.recipe_presets["tiny"]


def network(**changes):
    torch.manual_seed(0)
    return EvaNetwork(replace(TINY, **changes)).eval()


def slices(n=2, size=(32, 32), seed=0):
    return torch.rand(n, 1, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_state(recipe, progress=0.0):
    state = TrainingState(recipe.networks(), recipe.optimisers(), lambda loss: loss.backward(), torch.Generator(), 0)
    state.progress = progress
    return state


def make_recipe(config=QUICK, **changes):
    return EvaRecipe(network(**changes), config)


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def changed(module, before):
    return [not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True)]


def test_the_published_sizes():
    with without_memory():
        recipe = EvaRecipe(EvaNetwork(EvaConfig()), EvaRecipeConfig())
    generator, discriminator = recipe.networks().values()
    parts = dict(generator.named_children()) | {"discriminator": discriminator}
    millions = {name: round(sum(p.numel() for p in part.parameters()) / 1e6, 1) for name, part in parts.items()}
    assert millions == {"structure": 10.2, "decoder": 56.3, "dclip": 153.3, "discriminator": 67.4}


@pytest.mark.parametrize("size", [(32, 32), (44, 64), (96, 112)])
def test_slices_of_any_multiple_of_four_are_translated(size):
    assert network()(slices(1, size)).shape == (1, 1, *size)


def test_other_sizes_are_refused():
    with pytest.raises(InputError, match="MX-MOD-007"):
        network()(slices(1, (30, 32)))


def test_a_named_target_is_the_nearest_domain_in_the_slices_plane():
    domains = ("T2-weighted MR image of the breast. Coronal plane.", "T1-weighted MR image of the breast. Axial plane.")
    net = network(domains=domains)
    named = METHOD.towards(net, net.config, 0)  # T1->T2
    told = METHOD.with_text(net, net.config, "T2 breast", plane="axial")
    assert torch.equal(named.vector, told.vector)


def test_words_say_what_is_made():
    net, image = network(layer_scale=1.0), slices()
    made = {text: METHOD.with_text(net, net.config, text)(image) for text in ("T1 brain", "T2 brain", "T1W brain")}
    assert (made["T1 brain"] - made["T2 brain"]).abs().max() > 1e-5
    assert torch.equal(made["T1 brain"], made["T1W brain"])  # read, and told in our own words
    facts = Acquisition(modality="MR", sequence="T1", organ="brain")
    assert torch.equal(METHOD.with_facts(net, net.config, facts)(image), made["T1 brain"])


def test_the_vector_of_a_target_is_made_once(monkeypatch):
    net = network()
    wrapped = METHOD.with_text(net, net.config, "T2 brain")
    monkeypatch.setattr(EvaNetwork, "vectors", lambda *_: pytest.fail("the sentence was encoded again"))
    wrapped(slices())
    again = METHOD.with_facts  # a wrapped network can be given another target
    monkeypatch.undo()
    assert again(wrapped, net.config, T1).network is net


def test_a_text_that_says_nothing_is_refused():
    net = network()
    with pytest.raises(UsageError, match="MX-TXT-001"):
        METHOD.with_text(net, net.config, " ... ")


def test_the_stages_are_parts_of_one_run():
    recipe = make_recipe(replace(QUICK, dclip_share=0.5, init_share=0.2))
    stages = [recipe.stage_of(progress) for progress in (0.0, 0.49, 0.5, 0.59, 0.61, 0.99)]
    assert stages == ["dclip", "dclip", "init", "init", "fine", "fine"]
    assert [recipe.judged(progress) for progress in (0.49, 0.5)] == [False, True]
    assert make_recipe(replace(QUICK, last_stage="init")).stage_of(0.99) == "init"
    assert make_recipe(domain_encoding="onehot").stage_of(0.0) == "init"


def test_each_stage_trains_its_own_networks():
    recipe = make_recipe()
    generator, discriminator = recipe.networks().values()
    own = {"dclip": ("dclip",), "init": ("structure", "decoder"), "fine": ("structure", "decoder", "discriminator")}
    parts = dict(generator.named_children()) | {"discriminator": discriminator}
    for progress, stage in ((0.0, "dclip"), (0.41, "init"), (0.9, "fine")):
        before = {name: weights(part) for name, part in parts.items()}
        recipe.step(scan_batch(slices(), slices(seed=1)), make_state(recipe, progress))
        for name, part in parts.items():
            assert (all if name in own[stage] else any)(changed(part, before[name])) == (name in own[stage]), stage
        assert all(parameter.requires_grad for part in parts.values() for parameter in part.parameters())


def test_the_rate_is_constant_as_published_or_falls_in_each_part_of_the_run():
    falling = replace(QUICK, dclip_share=0.5, decay_from=0.5)
    recipe, codes = make_recipe(falling), make_recipe(falling, domain_encoding="onehot")
    assert [recipe.learning_rate_factor(part) for part in (0.0, 0.25, 0.375, 0.5, 0.75, 1.0)] == [1, 1, 0.5, 1, 1, 0]
    assert [codes.learning_rate_factor(part) for part in (0.0, 0.5, 0.75, 1.0)] == [1, 1, 0.5, 0]
    published = EvaRecipe(network(), replace(QUICK, decay_from=EvaRecipeConfig().decay_from))
    assert {published.learning_rate_factor(part) for part in (0.0, 0.2, 0.399, 0.41, 1.0)} == {1.0}


def test_what_shortens_a_training_is_off_in_the_published_sizes():
    published = METHOD.presets["paper"]
    assert (published.slope, published.text_gain) == (0.01, 1.0)
    assert (TINY.slope, TINY.text_gain) == (0.2, pytest.approx(TINY.dclip.vector**0.5))


@pytest.mark.parametrize("slope", [0.01, 0.2])
def test_below_black_the_output_has_the_configured_slope(slope):
    decoder = network(slope=slope).decoder
    with torch.no_grad():
        decoder.output.weight.zero_()
        made = {}
        for level in (-3.0, 0.5, 1.5):
            decoder.output.bias.fill_(level)
            made[level] = decoder(torch.zeros(1, TINY.widths[2], 8, 8), torch.zeros(1, TINY.dclip.vector)).unique()
    assert made == {-3.0: pytest.approx(-1 - 2 * slope), 0.5: pytest.approx(0.5), 1.5: pytest.approx(1.5)}


def test_the_gain_lengthens_the_vectors_of_sentences_and_no_others():
    image, vectors = slices(1), torch.nn.functional.normalize(torch.randn(1, 32), dim=1)
    with torch.no_grad():
        made = [network(text_gain=gain)(image, vectors=factor * vectors) for gain, factor in ((3.0, 1.0), (1.0, 3.0))]
        assert torch.equal(*made)
        codes = [network(domain_encoding="onehot", text_gain=gain)(image, vectors=vectors) for gain in (3.0, 1.0)]
        assert torch.equal(*codes)


def test_the_losses_of_each_stage_are_named():
    recipe, batch = make_recipe(), scan_batch(slices(), slices(seed=1))
    names = [set(recipe.step(batch, make_state(recipe, progress))) for progress in (0.0, 0.41, 0.9)]
    assert names[0] == {"dclip"}
    assert names[1] == {"generator", "rec", "content"}
    assert names[2] == names[1] | {"discriminator", "adv", "clip", "atlas"}


def test_the_total_is_the_published_sum():
    recipe = make_recipe(replace(QUICK, content_weight=EvaRecipeConfig().content_weight))
    losses = recipe.step(scan_batch(slices(), slices(seed=1)), make_state(recipe, 0.9))
    total = 10 * (losses["rec"] + losses["atlas"]) + losses["content"] + 5 * losses["adv"] + 0.1 * losses["clip"]
    assert losses["generator"] == pytest.approx(total, rel=1e-5)


def test_reconstruction_is_taken_where_source_and_target_agree_on_what_is_foreground():
    recipe = make_recipe()
    batch = scan_batch(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5))
    batch.foregrounds[1, :, :, :4] = 0  # the target's upper half is background, the source's is not
    made = {name: torch.zeros(1, 1, 8, 8) for name in ("target", "source", "intermediate", "onwards")}
    made["target"][:, :, :4] = 7.0  # not looked at
    made["onwards"] += 0.25
    codes = {name: torch.zeros(1, 3, 2, 2) for name in ("source", "target", "intermediate")}
    codes["source"][:, :, 1] = 2.0
    terms = recipe._terms(batch, torch.zeros(4, 1, 32), made, codes, make_state(recipe))
    assert terms["rec"][0] == 10
    assert terms["rec"][1].item() == pytest.approx(0.5 + 0.0 + 0.25)
    # squared differences of 4 in the lower half, in both directions, ten times; the two places' contrast is log 3
    expected = 10 * 2 * 4
    contrast = terms["content"][1].item() - expected
    assert 0 < contrast < 20


def test_codes_outside_the_common_mask_are_not_compared():
    recipe = make_recipe()
    batch = scan_batch(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    batch.foregrounds[:2] = 0
    batch.foregrounds[1, :, :, :4] = 1
    codes = {name: torch.zeros(1, 3, 2, 2) for name in ("source", "target", "intermediate")}
    codes["source"][:, :, 0] = 9.0
    made = dict.fromkeys(("target", "source", "intermediate", "onwards"), batch.images[0])
    assert recipe._terms(batch, torch.zeros(4, 1, 32), made, codes, make_state(recipe))["content"][1].item() == 0


def test_the_discriminator_s_loss_by_hand():
    recipe = make_recipe()
    discriminator = recipe.networks()["discriminator"]
    with torch.no_grad():
        discriminator.scores.weight.zero_()
        discriminator.scores.bias.fill_(0.25)
    batch = scan_batch(slices(1), slices(1, seed=1))
    made = dict.fromkeys(("target", "source", "intermediate", "onwards"), batch.images[0])
    loss = recipe._judge(batch, torch.randn(4, 1, 32), made, make_state(recipe))
    assert loss.item() == pytest.approx(0.5 * ((2 + 1 + 1) * 0.75**2 + 4 * 0.25**2))


def test_generator_and_discriminator_see_the_same_masked_images():
    recipe, seen = make_recipe(), []
    batch = scan_batch(slices(), slices(seed=1))
    batch.foregrounds[..., :16, :] = 0
    recipe.networks()["discriminator"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    recipe.step(batch, make_state(recipe, 0.9))
    judged, advised = seen
    assert torch.equal(judged[6:], advised)  # behind three real images each of two slices
    assert (judged[..., :16, :] == -1).all()
    assert (judged[..., 16:, :] > -1).any()


def test_one_hot_codes_take_the_nearest_domain_and_have_no_dclip():
    net = network(domain_encoding="onehot", domains=tuple(known_domains(TINY)))
    assert not hasattr(net, "dclip")
    assert list(known_domains(net.config).values()) == [fact.with_facts(plane=None) for fact in (T2, T1)]
    t2_like = METHOD.with_text(net, net.config, "T2 with a TE of 80 ms")
    assert torch.equal(t2_like.vector[0], net.codes.weight[0])


@pytest.mark.parametrize("encoding", ["onehot", "frozen_text"])
def test_other_encodings_train(encoding):
    recipe = make_recipe(domain_encoding=encoding)
    generator = recipe.networks()["generator"]
    part = generator.codes if encoding == "onehot" else generator.frozen_text.project
    before, fixed = weights(part), weights(generator.frozen_text.text) if encoding == "frozen_text" else []
    losses = recipe.step(scan_batch(slices(), slices(seed=1)), make_state(recipe, 0.9))
    assert "clip" not in losses
    assert all(changed(part, before))
    assert not any(changed(generator.frozen_text.text, fixed) if fixed else [])


@pytest.mark.parametrize("backbone", ["resnet", "swin"])
def test_other_backbones_translate(backbone):
    assert network(structure_backbone=backbone)(slices(1, (36, 44))).shape == (1, 1, 36, 44)


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (1, 2)},
        {"rank": 0},
        {"decoder_blocks": (1, 0)},
        {"directions": ("T1,T2->CT",)},
        {"layer_scale": -1},
        {"slope": 1.5},
        {"text_gain": 0.0},
    ],
)
def test_impossible_networks_are_refused(change):
    with pytest.raises(UsageError, match="MX-MOD-005"):
        replace(TINY, **change)


def test_a_domain_that_is_no_sentence_is_refused():
    with pytest.raises(UsageError, match="MX-TXT-006"):
        replace(TINY, domains=("xyzzy",))


def test_constants_out_of_range_are_refused():
    with pytest.raises(UsageError, match="MX-MOD-006"):
        EvaRecipeConfig(dclip_share=1.5)


def test_the_first_triples_of_a_batch_are_a_batch():
    batch = scan_batch(slices(3), slices(3, seed=1), facts=(T1, T1, FLAIR))
    first = batch.first(2)
    assert torch.equal(first.images, batch.images[:, :2])
    assert first.tokens.shape[:2] == first.domains.shape == (4, 2)
    assert torch.equal(first.positive, scan_batch(slices(2), slices(2), facts=(T1, T1, FLAIR)).positive)
    assert all(map(torch.equal, vars(batch.first(9)).values(), vars(batch).values()))


def test_only_so_many_triples_are_translated_as_the_recipe_says():
    recipe, seen = make_recipe(replace(QUICK, triples=1)), []
    recipe.networks()["generator"].structure.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    recipe.step(scan_batch(slices(), slices(seed=1)), make_state(recipe, 0.41))
    assert seen == [2, 1]


def test_the_positives_of_a_batch_come_from_its_facts():
    batch = scan_batch(slices(), slices(seed=1), facts=(T1, T1, FLAIR))
    assert batch.positive[:4, :4].all()
    assert not batch.positive[:4, 4:].any()


def test_a_few_steps_on_one_batch_lower_the_error():
    torch.manual_seed(0)
    recipe = EvaRecipe(EvaNetwork(TINY), QUICK)
    state = make_state(recipe, 0.41)
    source = slices()
    batch = scan_batch(source, 0.5 * source - 0.3)
    generator = recipe.networks()["generator"]

    def error():
        with torch.no_grad():
            return (METHOD.towards(generator.eval(), TINY, 0)(source) - batch.images[1]).abs().mean().item()

    before = error()
    for _ in range(15):
        generator.train()
        recipe.step(batch, state)
    assert error() < 0.8 * before
