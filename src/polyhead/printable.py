"""Text of a stranger's file on a terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return a text in which every control character but the line break is written out: a terminal would obey it."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)
