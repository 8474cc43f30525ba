"""Error messages for names that are not known, with the nearest known one."""

import difflib


def explain_unknown(key: str, value: str, known: list[str]) -> str:
    """Message for an unknown `model.<key>`, with up to three similar names."""
    close = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known here: {', '.join(known)}"
    return f"model.{key} = {value!r} is not known; {hint}"
