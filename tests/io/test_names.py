import pytest

from nuclei.io.names import check_name

HOSTILE = [
    "", "-rf", ".hidden", "..", "a/b", "a\\b", "a b", "a\nb", "a\n", "`id`", "$(id)", "a;b", "a'b", 'a"b', "a&b",
    "a|b", "a>b", "a=b", "a:b", "a%b", "a#b", "<img>", "ä", "٣", "a\0b", "x" * 101,
]  # fmt: skip


@pytest.mark.parametrize("name", ["unet_lite0", "1_plain", "fold_0.safetensors", "a-b", "_x", "x" * 100])
def test_letters_digits_and_three_signs_make_a_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_a_shell_path_or_page_could_misread_is_refused(name):
    with pytest.raises(ValueError, match="is not a valid name"):
        check_name(name)
