"""What a legend shows of a class, whatever its name."""


def legend_entry(text: str) -> str:
    r"""Return the text so that matplotlib shows it as it is.

    It leaves what begins with an underscore out of a legend, and sets what is between dollar signs
    as mathematics.

    Examples
    --------
    >>> from skdiscovery.plotting.legend import legend_entry
    >>> legend_entry("__label__1 (5)"), legend_entry("$10-$20 (5)")
    (' __label__1 (5)', '\\$10-\\$20 (5)')
    """
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
