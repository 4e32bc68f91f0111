"""Files as part of a page that needs no others."""

import base64


def data_uri(content: bytes, media_type: str) -> str:
    """The content of a file as an address, such as that of an image of a page; media_type: `image/png` …"""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
