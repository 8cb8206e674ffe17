"""THE HALL: one object that answers questions about pictures and videos; every front door holds it.

    vlm = smolvlm.load()
    vlm.ask("What is this?", images=["cat.jpg"]).text

loading.py makes it, vlm.py is it, requests.py reads what callers pass, answers.py is the text coming out, chat.py keeps
a conversation.
"""

from .answers import AnswerStream
from .chat import Chat
from .loading import best_device, choose_runtime, default_dtype, load, preview, preview_memory
from .vlm import VLM

__all__ = [
    "VLM",
    "AnswerStream",
    "Chat",
    "best_device",
    "choose_runtime",
    "default_dtype",
    "load",
    "preview",
    "preview_memory",
]
