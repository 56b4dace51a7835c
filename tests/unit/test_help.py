"""`--help` of every command reads well on a screen of 80 columns."""

import re
from collections import Counter
from collections.abc import Iterator
from io import StringIO

import pytest
from cyclopts import App
from rich.cells import cell_len
from rich.console import Console

from irlstack.cli import app, console
from tests.conftest import Command

COLUMNS = 80
WIDE = 1000
FRAME = re.compile(r"[╭╮╰╯│─]")


def commands(of: App, *names: str) -> Iterator[tuple[str, ...]]:
    """The words that lead to each command there is, also to those that only hold others."""
    yield names
    for name in of:
        if not name.startswith("-"):
            yield from commands(of[name], *names, name)


ALL = sorted(commands(app))


def helped(names: tuple[str, ...], columns: int = COLUMNS) -> list[str]:
    screen = StringIO()
    app.help_print(list(names), console=Console(width=columns, file=screen, color_system=None))
    return screen.getvalue().splitlines()


def words(lines: list[str]) -> Counter[str]:
    """What is there to be read, whatever line it is on."""
    return Counter(FRAME.sub(" ", "\n".join(lines)).split())


def test_every_command_is_looked_at() -> None:
    assert {("scan",), ("exchange",), ("lab", "up"), ("bench", "tcp"), ()} <= set(ALL)
    assert len(ALL) >= 20


def test_the_command_line_shows_it(command: Command) -> None:
    done = command("lab", "up", "--help")
    assert (done.status, done.out.splitlines()) == (0, helped(("lab", "up")))


@pytest.mark.parametrize("names", [each for each in ALL if each], ids=" ".join)
def test_every_choice_is_named_in_the_sentence(names: tuple[str, ...]) -> None:
    """They are not listed again behind it."""
    of = app
    for name in names:
        of = of[name]
    if of.default_command is None:
        return
    lines = helped(names, WIDE)
    for argument in of.assemble_argument_collection():
        if choices := argument.get_choices(force=True):
            said = next(line for line in lines if argument.name in line.split())
            assert [each for each in choices if each not in said] == [], argument.name


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_no_line_is_too_long_and_no_word_is_cut(names: tuple[str, ...]) -> None:
    narrow = helped(names)
    assert max(map(cell_len, narrow)) <= COLUMNS
    assert words(narrow) == words(helped(names, WIDE))
    assert not any("…" in line for line in narrow)


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_each_name_has_a_sentence_that_takes_one_line_where_there_is_room(names: tuple[str, ...]) -> None:
    """So no docstring's line break is one on the screen."""
    lines = helped(names, WIDE)
    assert lines[0].startswith("Usage: irlstack")
    assert re.search(r"[.:]$", lines[2].strip()), "it says what it does"
    entries = [line.strip("│ ") for line in lines if line.startswith("│")]
    assert [each for each in entries if not re.search(r"\S {2,}\S.*[.\])]$", each)] == []


def test_what_is_said_is_said_word_for_word(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("in use by aa:ab:17:d9:75:64", "fd00:ab:cd::1 [red]", "2001:db8:100::"):
        console.say(text)
        console.complain(text)
        assert capsys.readouterr().err == f"{text}\nirlstack: {text}\n"
