"""Sizes of files as text."""


def size_text(size: int) -> str:
    """Bytes in kB below a megabyte, else in MB."""
    return f"{size / 1e3:,.0f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"
