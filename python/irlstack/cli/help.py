"""How `--help` looks: its paragraphs flow, wherever the docstrings they come from have their line breaks."""

from typing import Any

from attrs import evolve
from cyclopts.help import DefaultFormatter, HelpPanel
from cyclopts.help.inline_text import InlineText
from rich.console import Console, ConsoleOptions
from rich.text import Text


class Flowing(DefaultFormatter):
    """The parser's own look, less the line breaks inside of paragraphs."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Prints a panel."""
        entries = [evolve(entry, description=_flowing(entry.description)) for entry in panel.entries]
        super().__call__(console, options, panel.copy(entries=entries))

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Prints what a command does."""
        super().render_description(console, options, _flowing(description))


def _flowing(text: Any) -> Any:
    """The same with one line for each paragraph, to be wrapped where the screen ends."""
    if not isinstance(text, InlineText) or not isinstance(text.primary_renderable, Text):
        return text
    paragraphs = text.primary_renderable.plain.split("\n\n")
    end = text.primary_renderable.plain[len(text.primary_renderable.plain.rstrip("\n")) :]
    lines = "\n\n".join(" ".join(each.split()) for each in paragraphs).rstrip("\n")
    flowing = InlineText(Text(lines + end), force_empty_end=text.force_empty_end)
    for each in text.texts:
        flowing.append(each)
    return flowing
