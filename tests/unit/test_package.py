"""The package as a whole."""

import irlstack as irl


def test_the_extension_and_the_package_are_of_one_version() -> None:
    assert irl.__version__ == irl._core.__version__
