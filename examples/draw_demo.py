"""Draw the picture and the video that `make demo` asks about: python examples/draw_demo.py [DIRECTORY]"""

import sys
from pathlib import Path

import av

from smolvlm.scenes import draw, render_clip

FRAMES_A_SECOND = 8


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    draw("scene", seed=2026, index=1, split="test").pictures[0].save(directory / "picture.png")
    clip = render_clip(seed=2026, index=25, split="test", fps=FRAMES_A_SECOND)
    with av.open(str(directory / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_A_SECOND, options={"crf": "12"})
        stream.width, stream.height = clip.frames[0].size
        stream.pix_fmt = "yuv420p"
        for picture in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "src/smolvlm/assets/demo"))
