import ast
import tomllib
from pathlib import Path

import pytest

from nuclei.config import Config
from nuclei.config_files import parse_config, read_config

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nuclei"
CONFIGS = sorted(ROOT.glob("configs/**/*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_named_after_its_file(path):
    assert read_config(path).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_holds_only_what_differs_from_the_defaults_or_from_what_it_extends(path):
    own = tomllib.loads(path.read_text())
    extended = own.pop("extends", None)
    common = read_config(path.parent / extended) if extended else Config(name="default")
    for section, values in own.items():
        for key, value in values.items():
            assert value != common.model_dump()[section][key], f"{path.name}: {section}.{key} changes nothing"


def test_a_config_that_extends_another_has_its_lines_and_else_the_other_ones(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "ground.toml").write_text("[model]\nwidth = 8\ndepth = 2\n[training]\nsteps = 7")
    (tmp_path / "middle.toml").write_text('extends = "ground.toml"\n[model]\ndepth = 3')
    (tmp_path / "inner/top.toml").write_text('extends = "../middle.toml"\n[training]\nseed = 5')
    config = read_config(tmp_path / "inner/top.toml")
    assert config.name == "top"
    assert (config.model.width, config.model.depth) == (8, 3)
    assert (config.training.steps, config.training.seed) == (7, 5)


@pytest.mark.parametrize(
    ("extended", "said"),
    [
        ('"mine.toml"', "extend each other in a circle"),
        ('"gruond.toml"', r"gruond\.toml: no such config; did you mean ground"),
        ("3", "extends = 3; give the path"),
        ('"ground.toml"', r"mine\.toml \(extends .*ground\.toml\): unknown key model\.widht"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path, extended, said):
    (tmp_path / "ground.toml").write_text("[model]\nwidht = 8")
    (tmp_path / "mine.toml").write_text(f"extends = {extended}")
    with pytest.raises(ValueError, match=said):
        read_config(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[model]\nwidht = 3", ["model.widht", "did you mean width?"]),
        ("[modle]\nwidth = 3", ["modle", "did you mean model?"]),
        ('[model]\nskip = "ad"', ["model.skip = 'ad'", "did you mean add?"]),
        ('[training]\nsteps = "many"', ["training.steps = 'many'", "integer"]),
        ("[training]\ncrop = 100", ["training.crop = 100", "multiple of 32"]),
        ('[intensity]\nwindow = "level"', ["window_level and window_width, such as 40 and 400"]),
        ("[intensity]\nwindow_level = 40", ['window_level would do nothing: window is "percentile"']),
        ('[intensity]\nwindow = "none"\nlow_percentile = 2', ["low_percentile would do nothing"]),
        ('[model]\nattention_place = "encoder"', ["attention_place would do nothing"]),
        ("[prediction]\nflips = 2\nvary_flips = true", ["vary_flips would do nothing: one zoom"]),
        ("[loss]\nfocal_gamma = 1", ["focal_gamma would do nothing: focal is 0"]),
        ("[loss]\ntversky_beta = 0.5", ["tversky_beta would do nothing: tversky is 0"]),
        ("[loss]\ncross_entropy = 0\nborder_weight = 2\nsmall_weight = 1", ["border_weight and small_weight would"]),
        ("[loss]\ndice = 0\ncross_entropy = 0", ["all terms have weight 0"]),
        ('name = "other"', ["`name` is the file's own name"]),
        ("[model", ["not valid TOML"]),
    ],
)
def test_an_error_names_file_key_value_and_remedy(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.toml") as caught:
        read_config(path)
    for part in said:
        assert part in str(caught.value)


def test_every_key_is_read_somewhere():
    read = {
        node.attr
        for path in SOURCE.rglob("*.py")
        if path.name != "config.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    for name, section in Config.model_fields.items():
        assert name in read
        unread = set(getattr(section.annotation, "model_fields", ())) - read
        assert not unread, f"nothing looks at {name}.{unread}"


def test_a_missing_config_is_answered_with_the_nearest_one(tmp_path):
    (tmp_path / "unet.toml").touch()
    with pytest.raises(ValueError, match=r"did you mean unet\?"):
        read_config(tmp_path / "unte.toml")


def test_a_config_survives_the_checkpoint():
    config = read_config(CONFIGS[0])
    assert parse_config(config.model_dump(), "checkpoint") == config
