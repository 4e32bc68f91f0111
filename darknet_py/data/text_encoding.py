"""Text files that are not UTF-8: names and lists written by editors of other times and places."""

from __future__ import annotations

import codecs

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def decode_any(content: bytes) -> tuple[str, str]:
    """Decodes text of an unknown encoding.

    Args:
        content: The bytes of the file.

    Returns:
        The text without byte order mark, and the encoding where it had to be guessed, else "".
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace"), ""
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError:
        encoding = _guess(content)
        return content.decode(encoding, "replace"), encoding


def _guess(content: bytes) -> str:
    """By the bytes that start a character: Chinese, Japanese and Cyrillic keep to different ranges of them."""
    high = [byte for byte in content if byte >= 0x80]
    for encoding, first, last in (("gb18030", 0xA1, 0xD7), ("shift_jis", 0x81, 0x9F)):
        leads = _lead_bytes(content, encoding)
        if leads and sum(first <= lead <= last for lead in leads) > len(leads) / 2:
            return encoding
    letters = sum(byte >= 0x80 or chr(byte).isalpha() for byte in content)
    cyrillic = sum(byte >= 0xC0 for byte in high)
    return "cp1251" if cyrillic > letters / 2 else "cp1252"


def _lead_bytes(content: bytes, encoding: str) -> list[int]:
    """The first bytes of all characters of two bytes; none where the content is not text of this encoding.

    Characters whose second byte is ASCII do not count: `é` and the letter after it look like one.
    """
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return []
    pairs = [pair for pair in (char.encode(encoding) for char in text if not char.isascii()) if len(pair) > 1]
    leads = [pair[0] for pair in pairs if pair[1] >= 0x80 or encoding == "shift_jis"]
    return leads if len(leads) > len(pairs) / 2 else []
