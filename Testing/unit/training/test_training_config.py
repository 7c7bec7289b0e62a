"""The training configuration: files, presets, overrides, checks."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_cases import CONFIG, config_for

from MedXlateCore.config import parse_toml, to_toml
from MedXlateCore.errors import MedXlateError, UsageError
from MedXlateCore.training.config import config_from_mapping, list_presets, load_config
from MedXlateCore.training.length import steps_of


def refused(*overrides: str) -> MedXlateError:
    with pytest.raises(MedXlateError) as caught:
        config_for(Path("cases.csv"), *overrides)
    return caught.value


def test_all_presets_load_and_say_what_they_need():
    assert {"tlp-paper", "tlp-code", "tlp-tiny", "tlp-tiny-one-source"} <= set(list_presets())
    for name in list_presets():
        config = load_config(preset=name, table=Path("cases.csv"))
        assert config.data.table.endswith("cases.csv")
        assert config.package.citation


def test_the_code_preset_has_the_published_constants():
    config = load_config(preset="tlp-code")
    assert config.data.sources == ("T1", "T2")
    assert config.data.slices == (27, 127)
    assert (config.training.batch_size, config.training.epochs) == (20, 80)
    assert config.grid.crop.size == (160, 192, None)
    assert config.grid.crop.offset_voxels == (0, 10, 0)
    assert not config.grid.crop.grow
    assert config.architecture().dim == 48
    assert not config.recipe_config().fpg_per_sample


def test_the_paper_preset_differs_in_the_prompt():
    assert load_config(preset="tlp-paper").architecture().prompt_encoding == "binary"
    assert load_config(preset="tlp-paper").recipe_config().fpg_t_edema == 5


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError) as caught:
        load_config(preset="tlp-tyni")
    assert caught.value.code == "MX-USE-042"
    assert "'tlp-tiny'" in caught.value.fix


def test_neither_or_both_of_file_and_preset_are_refused():
    for path, preset in ((None, None), (Path("a.toml"), "tlp-tiny")):
        with pytest.raises(UsageError) as caught:
            load_config(path, preset)
        assert caught.value.code == "MX-USE-049"


def test_an_unknown_key_of_the_recipe_names_the_nearest():
    error = refused("recipe.l1_wieght=3")
    assert error.code == "MX-USE-040"
    assert "'l1_weight'" in error.fix


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("training.batch_size=0", "MX-USE-042"),
        ("training.ema_decay=1.0", "MX-USE-042"),
        ("training.precision='fp32'", "MX-USE-042"),
        ("training.epochs=3.0", "MX-USE-046"),
        ("training.minutes=3.0", "MX-USE-046"),
        ("training.minutes=-1.0", "MX-USE-042"),
        ("data.sources=['T1', 'T1']", "MX-USE-047"),
        ("data.target=T1", "MX-USE-047"),
        ("data.target=T3", "MX-USE-010"),
        ("data.sources=['T1', 'FLAIR']", "MX-USE-048"),
        ("data.sources=['T1']", "MX-TRN-013"),
        ("data.slices=[5, 5]", "MX-USE-042"),
        ("data.labels={ edema = [2] }", "MX-ROI-032"),
        ("model.method=tpl", "MX-MOD-001"),
        ("model.preset=huge", "MX-MOD-003"),
        ("model.config.dim=7", "MX-MOD-005"),
        ("intensity.T1.kind=zscore", None),
        ("grid.crop.kind=box", "MX-USE-042"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_before_anything_runs(override: str, code: str | None):
    assert code in (None, refused(override).code)


def test_modalities_may_be_written_in_any_usual_way():
    config = config_for(Path("c.csv"), "data.sources=['t1n', 'T2w']", "data.target=T1Gd")
    assert config.modalities == ("T1", "T2", "T1ce")


def test_an_override_of_steps_takes_the_place_of_epochs():
    config = load_config(preset="tlp-code", overrides=["training.steps=5"])
    assert (config.training.steps, config.training.epochs) == (5, None)


def test_epochs_become_steps():
    training = load_config(preset="tlp-code").training
    assert steps_of(training, n_slices=85_000) == 80 * 4250
    assert steps_of(training, n_slices=85_000, devices=2) == 80 * 2125
    assert steps_of(training, n_slices=1) == 4


def test_slice_sizes_become_multiples_of_what_the_network_needs():
    config = config_for(Path("c.csv"), "grid.size_multiple=[6, 1, 2]")
    assert config.grid.size_multiple == (6, 2, 2)


def test_paths_start_at_the_folder_of_the_configuration(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(CONFIG.replace('target = "T1ce"', 'target = "T1ce", table = "cases.csv", cache = "../c"'))
    config = load_config(path)
    assert config.data.table == str(tmp_path / "cases.csv")
    assert Path(config.data.cache or "").resolve() == (tmp_path / "../c").resolve()


def test_the_effective_configuration_reads_back_to_the_same():
    config = config_for(Path("c.csv"), "recipe.l1_weight=10", "model.config.dim=16", "grid.spacing_mm=[1.5, 'none', 2]")
    again = config_from_mapping(parse_toml(to_toml(config.to_mapping()).encode(), "effective"))
    assert again == config
    assert again.identity() == config.identity()


def test_identity_changes_with_what_decides_the_weights_only():
    base = config_for(Path("c.csv")).identity()
    for same in ("training.accelerator=cuda", "training.checkpoint_every=7", "data.workers=3", "package.version='2.0'"):
        assert config_for(Path("d.csv"), same).identity() == base
    for other in ("training.seed=1", "recipe.l1_weight=10", "intensity.T1.kind=percentile", "data.target=FLAIR"):
        overrides = ("intensity.FLAIR={ kind = 'minmax' }",) if "FLAIR" in other else ()
        assert config_for(Path("c.csv"), *overrides, other).identity() != base


def test_an_unnamed_model_is_named_after_its_task():
    assert config_for(Path("c.csv")).package.name == "tlp-tiny-t1-t2-to-t1ce"
