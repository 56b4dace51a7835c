"""The links of `tests/netns`, for programs that others wrote to look at our frames."""

from irlstack.lab.fixtures import need_root  # noqa: F401 - a fixture
from tests.netns.conftest import _root, answerer, build_peer, make_pair, pair  # noqa: F401 - fixtures
