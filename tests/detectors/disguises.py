"""Ways to hide a text from a filter and not from readers, by kind."""

from __future__ import annotations

import html
from collections.abc import Callable
from urllib.parse import quote

LEET = str.maketrans("aeiost", "4310$7")
CYRILLIC = str.maketrans("aceiopsxy", "асеіорѕху")
GREEK = str.maketrans("aeionptuv", "αειοηρτυν")
OTHERS = str.maketrans("aeiostuc", "ꓮҽⲓօꮪꓔսⅽ")
TURNED = str.maketrans("abcdefghijklmnopqrstuvwxyz'", "ɐqɔpǝɟƃɥᴉɾʞlɯuodbɹsʇnʌʍxʎz,")
SMALL_CAPITALS = str.maketrans("abcdefghijklmnoprtuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ")


def moved(text: str, first: int) -> str:
    """Letters moved to another alphabet in Unicode that begins at a code point."""
    return "".join(chr(ord(c) - ord("a") + first) if "a" <= c <= "z" else c for c in text)


def vowels(text: str, sign: str) -> str:
    return "".join(sign if c in "aeiou" else c for c in text)


KINDS: dict[str, Callable[[str], str]] = {
    "camel case": lambda text: "".join(word.capitalize() for word in text.split()),
    "hashtag": lambda text: "#" + "".join(word.capitalize() for word in text.split()),
    "joined": lambda text: text.replace(" ", ""),
    "upside down": lambda text: text.translate(TURNED)[::-1],
    "turned letters in order": lambda text: text.translate(TURNED),
    "backwards": lambda text: text[::-1],
    "words backwards": lambda text: " ".join(word[::-1] for word in text.split()),
    "per cent": lambda text: "".join(f"%{ord(c):02x}" for c in text),
    "per cent, words": lambda text: " ".join(
        "".join(f"%{ord(c):02X}" for c in word) for word in text.split()
    ),
    "decimal entities": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "hexadecimal entities": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "escapes": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "leet": lambda text: text.translate(LEET),
    "spaced": lambda text: "  ".join(" ".join(word) for word in text.split()),
    "spaced throughout": lambda text: " ".join(text.replace(" ", "")),
    "dotted": lambda text: " ".join(".".join(word) for word in text.split()),
    "zero width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: "\u00ad".join(text),
    "combining marks": lambda text: "".join(c + "\u0336\u0321\u035c" for c in text),
    "circled": lambda text: moved(text, 0x24D0),
    "mathematical bold": lambda text: moved(text, 0x1D41A),
    "mathematical script": lambda text: moved(text, 0x1D4EA),
    "fraktur": lambda text: moved(text, 0x1D586),
    "double-struck": lambda text: moved(text, 0x1D552),
    "full width": lambda text: moved(text, 0xFF41),
    "regional indicators": lambda text: "\u200b".join(moved(text, 0x1F1E6)),
    "negative squares": lambda text: moved(text, 0x1F170),
    "small capitals": lambda text: text.translate(SMALL_CAPITALS),
    "Cyrillic": lambda text: text.translate(CYRILLIC),
    "Greek": lambda text: text.translate(GREEK),
    "other scripts": lambda text: text.translate(OTHERS),
    "accents": lambda text: text.translate(str.maketrans("aeiouy", "äéïôùý")),
    "stretched": lambda text: "".join(c * 4 if c in "aeiou" else c for c in text),
    "mixed": lambda text: html.escape(quote(text[:4])) + text[4:].translate(CYRILLIC),
}
