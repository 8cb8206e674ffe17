"""Data sets for training: files and the hub -> samples in one form -> a mixture in a fixed order -> ids and tiles.

    sources.py                        what a user names -> numbered samples
      tables.py, offsets.py           JSON, JSON lines, tar shards, folders of captioned files
      arrow.py, stream.py             parquet; the hub as a stream
      formats.py                      which format a row has: conversations.py, clips.py
      placing.py, roots.py            which picture goes where; nothing outside one folder is opened
    listing.py                        a file that lists sources -> these; the shares of kinds among them
    mixture.py, order.py              several sources in an order that follows from a seed
    encode.py                         a sample -> ids, what is learned of them, tiles
    inspect.py, page.py, tokens.py    what is in a data set: numbers; a page to look at

No torch.
"""

from .encode import Encoded, Encoder, Pair
from .formats import FORMATS
from .listing import read_mixture, read_sources, shares
from .mixture import Mixture, Step, Steps, Tally, read
from .sample import Passed, Place, Sample, Skipped
from .sources import DataSet, Source

__all__ = [
    "FORMATS",
    "DataSet",
    "Encoded",
    "Encoder",
    "Mixture",
    "Pair",
    "Passed",
    "Place",
    "Sample",
    "Skipped",
    "Source",
    "Step",
    "Steps",
    "Tally",
    "read",
    "read_mixture",
    "read_sources",
    "shares",
]
