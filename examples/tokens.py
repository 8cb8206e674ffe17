"""What pictures and videos would cost, before anything runs: python examples/tokens.py [PICTURE ...]"""

import sys
from pathlib import Path

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

pictures = sys.argv[1:] or [DEMO / "picture.png"]
vlm = smolvlm.load()
for detail in ("low", "auto", "high"):
    report = vlm.tokens("Describe this.", images=pictures, videos=[DEMO / "video.mp4"], detail=detail)
    print(f"detail={detail!r}: {report.total} tokens, {report.left} of {report.context} left for the answer")
    for media in report.media:
        print(f"    {Path(media.source).name}: tiles {media.tiles}, tokens {media.tokens}")
