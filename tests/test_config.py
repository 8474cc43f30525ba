import tomllib
from pathlib import Path

import pytest
from config_reads import SECTIONS, settings_read

from nuclei.config import Config
from nuclei.config_files import parse_config, read_config, read_title
from nuclei.errors import UserError

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nuclei"
CONFIGS = sorted(ROOT.glob("configs/**/*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_named_after_its_file(path):
    assert read_config(path).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_holds_only_what_differs_from_the_defaults_or_from_the_config_it_extends(path):
    own = tomllib.loads(path.read_text())
    extended = own.pop("extends", None)
    common = read_config(path.parent / extended) if extended else Config(name="default")
    for section, values in own.items():
        for key, value in values.items():
            assert value != common.model_dump()[section][key], f"{path.name}: {section}.{key} changes nothing"


def test_a_config_that_extends_another_has_the_settings_of_both_and_its_own_first(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "base.toml").write_text("[model]\nwidth = 8\ndepth = 2\n[training]\nsteps = 7")
    (tmp_path / "middle.toml").write_text('extends = "base.toml"\n[model]\ndepth = 3')
    (tmp_path / "inner/top.toml").write_text('extends = "../middle.toml"\n[training]\nseed = 5')
    config = read_config(tmp_path / "inner/top.toml")
    assert config.name == "top"
    assert (config.model.width, config.model.depth) == (8, 3)
    assert (config.training.steps, config.training.seed) == (7, 5)


@pytest.mark.parametrize(
    ("extended", "said"),
    [
        ('"mine.toml"', "extend each other in a circle"),
        ('"bsae.toml"', r"bsae\.toml: no such config; did you mean base"),
        ("3", "extends = 3; give the path"),
        ('"base.toml"', r"mine\.toml \(extends .*base\.toml\): unknown key model\.widht"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path, extended, said):
    (tmp_path / "base.toml").write_text("[model]\nwidht = 8")
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
        ("[intensity]\nwindow_level = 40", ['window_level would have no effect: window is "percentile"']),
        ('[intensity]\nwindow = "none"\nlow_percentile = 2', ["low_percentile would have no effect"]),
        ('[model]\nattention_place = "encoder"', ["attention_place would have no effect"]),
        ("[prediction]\nflips = 2\nvary_flips = true", ["vary_flips would have no effect: there is one scale"]),
        ("[loss]\nfocal_gamma = 1", ["focal_gamma would have no effect: focal is 0"]),
        ("[loss]\ntversky_beta = 0.5", ["tversky_beta would have no effect: tversky is 0"]),
        (
            "[loss]\ncross_entropy = 0\nborder_weight = 2\nsmall_weight = 1",
            ["border_weight and small_weight would"],
        ),
        ("[loss]\ndice = 0\ncross_entropy = 0", ["all terms have weight 0"]),
        ('name = "other"', ["the name is that of the file, mine; delete the key"]),
        ("[model", ["not valid TOML"]),
        ("a = " + "[\n" * 100_000, ["not valid TOML: nested too deeply"]),
        (
            "a" + ".a" * 100_000 + " = 1",
            ["no config: it may have at most 262,144 characters and 1,000 in a line"],
        ),
        ("[model]\nwidth = 1_000_000_000", ["model.width = 1000000000", "less than or equal to 1024"]),
        ("[model]\nwidth = 0x" + "f" * 900, ["model.width = 5", "less than or equal to 1024"]),
        (f"[prediction]\nscales = {[1.0] * 100}", ["prediction.scales", "at most 16 items"]),
        ("[prediction]\nscales = [1e9]", ["prediction.scales.0 = 1000000000.0", "less than or equal to 16"]),
        ("[training]\nlearning_rate = inf", ["training.learning_rate = inf", "finite number"]),
        ('[training]\nstart = "`id`"', ["training.start", "'`id`' is not a valid name"]),
        ('[training.external]\n"../x" = 1', ["training.external", "'../x' is not a valid name"]),
        ("[training]\nseed = -1", ["training.seed = -1", "greater than or equal to 0"]),
    ],
)
def test_an_error_names_file_key_value_and_remedy(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.toml") as caught:
        read_config(path)
    for part in said:
        assert part in str(caught.value)
    assert all(len(line) < 500 for line in str(caught.value).splitlines())


@pytest.fixture(scope="module")
def read_settings():
    files = [path for path in [*SOURCE.rglob("*.py"), *ROOT.glob("scripts/*.py")] if path.name != "config.py"]
    return set().union(*map(settings_read, files))


@pytest.mark.parametrize(
    ("section", "key"), [(name, key) for name, kind in SECTIONS.items() for key in kind.model_fields]
)
def test_every_setting_is_read_from_its_section(read_settings, section, key):
    assert (section, key) in read_settings, f"nothing reads {section}.{key}"


READS = """
class Training:
    def __init__(self, config: Config, loss: LossConfig, image):
        self.config, self.loss = config.training, loss
        print(image.width)

    def step(self):
        return self.config.seed + self.loss.dice + self.other.focal

def unrelated(config):
    return config.crop
"""


def test_an_attribute_of_another_object_is_no_read_setting(tmp_path):
    (tmp_path / "reads.py").write_text(READS)
    assert settings_read(tmp_path / "reads.py") == {("training", "seed"), ("loss", "dice")}


def test_a_missing_config_is_answered_with_the_nearest_one(tmp_path):
    (tmp_path / "unet.toml").touch()
    with pytest.raises(ValueError, match=r"did you mean unet\?"):
        read_config(tmp_path / "unte.toml")


def test_the_name_of_a_file_that_is_no_safe_name_is_refused(tmp_path):
    (tmp_path / "a b.toml").touch()
    with pytest.raises(UserError, match=r"a b\.toml: name = 'a b': .* is not a valid name"):
        read_config(tmp_path / "a b.toml")


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "base.toml").write_text("# Base.\n[model]\nwidth = 8", encoding="utf-8-sig")
    (tmp_path / "mine.toml").write_text('extends = "base.toml"', encoding="utf-8-sig")
    assert read_config(tmp_path / "mine.toml").model.width == 8
    assert read_title(tmp_path / "base.toml") == "Base"


def test_another_encoding_is_named_with_the_remedy(tmp_path):
    (tmp_path / "mine.toml").write_text("[model]", encoding="utf-16")
    with pytest.raises(UserError, match=r"mine\.toml: not valid TOML: no text in UTF-8; save it as UTF-8"):
        read_config(tmp_path / "mine.toml")


@pytest.mark.parametrize("key", ["width", "unknown"])
def test_a_deeply_nested_or_endless_value_of_a_checkpoint_is_refused_in_a_short_line(key):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value in (nested, 16**50_000, "x" * 10**6):
        with pytest.raises(UserError, match=f"card.json: .*model.{key}") as caught:
            parse_config({"name": "a", "model": {key: value}}, "card.json")
        assert len(str(caught.value)) < 500


def test_a_config_survives_the_checkpoint():
    config = read_config(CONFIGS[0])
    assert parse_config(config.model_dump(), "checkpoint") == config
