"""Text as a terminal may be given it. Needs nothing: it is at hand before anything heavy is loaded."""


def printable(text: str, keep_lines: bool = False) -> str:
    """The text with everything that could steer a terminal (escape codes, line breaks, marks of
    direction, lone surrogates) as Python escapes; keep_lines leaves line feeds as they are."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or (keep_lines and c == "\n") else c.encode("unicode_escape").decode("ascii")
        for c in text
    )
