"""What a character costs by the kind of text that it stands in, relative to prose: the shipped detector.

Run: ``python -m benchmarks.texts``. CPU seconds of the whole process, so that a busy machine does not decide.
Prose is clean and does not repeat itself; what has no white space, marks alone or a foreign script is what
somebody sends who wants to keep a machine busy.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import string
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.measure import Claim, report
from benchmarks.prose import PROSE
from guardrail import Guard

ROUNDS = 5
SIZE = 6000
MAX_RATIO = 3.0
"""What a character of any kind of text may cost, in units of a character of prose."""


def kinds() -> dict[str, str]:
    """A text of each kind."""
    drawn = random.Random(7)

    def of(alphabet: str, size: int = SIZE) -> str:
        return "".join(drawn.choice(alphabet) for _ in range(size))

    def words(alphabet: str, length: int) -> str:
        return " ".join(of(alphabet, length) for _ in range(SIZE // (length + 1)))

    rows = [{"id": i, "ok": i % 2 == 0, "value": drawn.random(), "tags": [i, None, {}]} for i in range(100)]
    urls = (f"https://host{i}.example/{drawn.randbytes(6).hex()}?page={i}" for i in range(130))
    marked = (letter + of("".join(map(chr, range(0x300, 0x36F))), 6) for letter in PROSE[: SIZE // 7])
    strokes = (f"{drawn.choice('lcqhvz')}{drawn.uniform(-5, 5):.1f}" for _ in range(SIZE // 5))
    dumped = (f"{16 * i:08x}  {drawn.randbytes(16).hex(' ')}" for i in range(SIZE // 58))
    groups = (f"{drawn.randbytes(16).hex(':', 2)}" for _ in range(SIZE // 40))
    ideographs = "".join(map(chr, range(0x4E00, 0x5E00)))
    names = PROSE.replace(".", "").replace(",", "").split()
    queries = (
        f"https://host{i}.example/?{drawn.choice(names)}={drawn.randint(0, 999)}&q={drawn.choice(names)}"
        for i in range(SIZE // 45)
    )
    paths = ("/".join(["/usr", *drawn.choices(names, k=4), f"{i}.txt"]) for i in range(SIZE // 35))
    lines = drawn.randbytes(SIZE * 3 // 4)
    uuencoded = (binascii.b2a_uu(lines[i : i + 45]).decode() for i in range(0, len(lines), 45))
    statement = (
        "function {a}({b},{c}){{return {b}.{d}?{c}[{b}.{d}]||{{}}:{b}.map(e=>e.{d}*{n})}}var {a}{n}={a}({n});"
    )
    scripts = (
        statement.format(**dict(zip("abcd", drawn.choices(string.ascii_lowercase, k=4), strict=True)), n=i)
        for i in range(SIZE // 90)
    )
    bold = {ord(c): 0x1D41A + i for i, c in enumerate(string.ascii_lowercase)}
    bold |= {ord(c): 0x1D400 + i for i, c in enumerate(string.ascii_uppercase)}
    numbers = str.maketrans("aeiost", "431057")
    kana = "".join(map(chr, range(0x3041, 0x3094)))
    hangul = "".join(map(chr, range(0xAC00, 0xD7A4)))
    rude = ["idiot", "moron", "fool", "clown", "loser", "liar", "pig", "dog", "fraud", "coward"]
    insults = (
        f"{drawn.choice(names).capitalize()} {drawn.choice(names)}, you {drawn.choice(rude)} of a "
        f"{drawn.choice(rude)}."
        for _ in range(SIZE // 40)
    )
    subjects, moods, things = ("He", "She", "They"), ("poor", "dull", "dumb"), ("mess", "thing", "crap")
    grumbles = (
        f"{drawn.choice(subjects)} {drawn.choice(names)} what a {drawn.choice(moods)} {drawn.choice(names)} "
        f"that {drawn.choice(things)} {drawn.choice(names)} {i}."
        for i in range(SIZE // 45)
    )
    return {
        "prose": PROSE,
        "base64": base64.b64encode(drawn.randbytes(SIZE)).decode(),
        "hex": drawn.randbytes(SIZE // 2).hex(),
        "uuids": " ".join(
            f"{drawn.randbytes(4).hex()}-{drawn.randbytes(2).hex()}-{drawn.randbytes(6).hex()}"
            for _ in range(SIZE // 27)
        ),
        "paths of drawings": "".join(strokes),
        "hex dump": "\n".join(dumped),
        "IPv6 addresses": " ".join(groups),
        "percent escapes": "".join(f"%{byte:02X}" for byte in drawn.randbytes(SIZE // 3)),
        "minified JSON": json.dumps(rows, separators=(",", ":")),
        "one letter": "a" * 20_000,
        "random letters": of(string.ascii_lowercase),
        "letters of one word each": " ".join(of(string.ascii_lowercase, SIZE // 2)),
        "letters with dots": ".".join(of(string.ascii_lowercase, SIZE // 2)),
        "words of two letters": words("qxzjvk", 2),
        "one digit": "1" * 20_000,
        "digits": of(string.digits, 20_000),
        "brackets": "(" * 100_000,
        "dots": "." * 200_000,
        "marks": of(string.punctuation),
        "http://": "http://" * 8000,
        "URLs": " ".join(urls),
        "ideographs": of(ideographs),
        "ideographs with stops": "。".join(of(ideographs, 24) for _ in range(SIZE // 25)),
        "Cyrillic": words("абвгдежзиклмнопрстуфхцчшыэюя", 7),
        "accents": words("àéîõüçñ", 5),
        "emoji": of("😀😂🥰🚀🎉👍❤🔥"),
        "emoji apart": " ".join(of("😀😂🥰🚀🎉👍❤🔥", SIZE // 2)),
        "zalgo": "".join(marked),
        "code": Path(__file__).read_text(encoding="utf-8"),
        "uuencode": "".join(uuencoded),
        "ASCII85": base64.a85encode(drawn.randbytes(SIZE * 4 // 5)).decode(),
        "minified JavaScript": "".join(scripts),
        "URL queries": " ".join(queries),
        "paths": "\n".join(paths),
        "letters on lines": "\n".join(of(string.ascii_lowercase, SIZE // 2)),
        "letters in code blocks": "".join(f"```\n{c}\n```\n" for c in of(string.ascii_lowercase, SIZE // 10)),
        "words of three letters": words("qxzjvk", 3),
        "spaced prose": " ".join(PROSE.replace(" ", "")),
        "bold prose": PROSE.translate(bold),
        "prose with digits for letters": PROSE.translate(numbers),
        "capitals": PROSE.upper(),
        "joined prose": "\n".join("".join(c for c in line if c.isalpha()) for line in PROSE.split(". ")),
        "Japanese": "".join(of(kana, 18) + "。" for _ in range(SIZE // 19)),
        "Hangul": " ".join(of(hangul, 4) + "." * (i % 5 == 0) for i in range(SIZE // 5)),
        "insults": " ".join(insults),
        "grumbling": " ".join(grumbles),
        "backticks": "`" * SIZE,
        "line breaks": "\n" * 100_000,
        "spaces": " " * 1_000_000,
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Prints CPU microseconds per character, and the ratio to prose, for each kind of text."""
    guard = Guard(rewriter=None)
    guard.check("The models are loaded by this sentence.")
    texts = kinds()
    prose = texts.pop("prose")
    seconds: dict[str, list[float]] = {kind: [] for kind in texts}
    ratios: dict[str, list[float]] = {kind: [] for kind in texts}
    for _ in range(ROUNDS):
        for kind, text in texts.items():  # prose alongside each: the machine is not equally fast all the time
            unit = cpu_seconds(lambda: guard.check(prose)) / len(prose)
            each = cpu_seconds(lambda text=text: guard.check(text)) / len(text)  # type: ignore[misc]  # bound now
            seconds[kind].append(each)
            ratios[kind].append(each / unit)
    rows = [
        {
            "kind": kind,
            "characters": len(text),
            "CPU microseconds a character": 1e6 * median(seconds[kind]),
            "ratio to prose": median(ratios[kind]),
        }
        for kind, text in texts.items()
    ]
    highest = max(map(median, ratios.values()))
    claim = f"a character of any of {len(rows)} kinds costs at most {MAX_RATIO:g} times one of prose"
    report("texts", rows, [Claim(claim, highest, highest <= MAX_RATIO)])


if __name__ == "__main__":
    main()
