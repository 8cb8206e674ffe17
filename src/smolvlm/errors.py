"""Every error a user of smolvlm can meet. Each message says what was given, what is allowed, what to do.

SmolVLMError
├── InputError (ValueError)          something the caller passed can't be used
│   ├── MediaError                   a picture or video that can't be opened or decoded
│   │   ├── ImageError
│   │   ├── VideoError
│   │   └── FetchError               a URL that is refused, or whose download failed
│   │       └── HostError            a host that is unknown, or not of the open internet
│   ├── PromptError                  placeholders, media and messages don't fit together
│   ├── ContextLengthError           more tokens than the model holds
│   ├── MemoryBudgetError            more memory than is free, or than was set aside for tokens
│   ├── ConfigError                  a configuration or recipe with wrong or unknown keys
│   └── DataError                    training data that can't be read, or can't be learned from
├── CheckpointError                  files of a model that are missing, damaged or don't fit
│   └── ModelNotFoundError (OSError) no such directory or hub id
├── TrainingError                    a run that can't go on: a loss that is no number, a full disk
├── BusyError                        too many requests are waiting
├── ClosedError                      a server that is shutting down takes no more requests
└── MissingDependencyError (ImportError)
"""


class SmolVLMError(Exception):
    """Base class: `except SmolVLMError` catches everything the library raises on purpose."""


class InputError(SmolVLMError, ValueError):
    """An argument that can't be used. Also a ValueError, as the reference raises."""


class MediaError(InputError):
    """A picture or video that can't be used."""


class ImageError(MediaError):
    """A picture that can't be opened, is damaged, too large, or of a refused format."""


class VideoError(MediaError):
    """A video that can't be opened, has no picture track, or can't be sampled."""


class FetchError(MediaError):
    """A URL that is refused by the guard, or a download that failed."""


class HostError(FetchError):
    """A host that is unknown, or whose address is not for everybody to reach. Its message names both."""


class PromptError(InputError):
    """Messages, placeholders and media that don't fit together."""


class ContextLengthError(InputError):
    """The prompt needs more tokens than the model holds."""


class MemoryBudgetError(InputError):
    """The request or the model needs more memory than is free, or than was set aside for all requests together."""


class ConfigError(InputError):
    """A configuration or recipe with a wrong value or an unknown key."""


class DataError(InputError):
    """Training data that can't be read or whose format isn't known, or too many samples that can't be used."""


class CheckpointError(SmolVLMError):
    """A checkpoint whose files are missing, damaged or don't fit the model."""


class ModelNotFoundError(CheckpointError, OSError):
    """No checkpoint under this directory or hub id. Also an OSError, as the reference raises."""


class TrainingError(SmolVLMError):
    """A training run that can't go on; what it saved last is intact."""


class BusyError(SmolVLMError):
    """Too many requests are waiting already; the same one may pass later."""


class ClosedError(SmolVLMError):
    """The server is shutting down: it takes no more requests, and cut off what it could not finish."""


class MissingDependencyError(SmolVLMError, ImportError):
    """An optional package is needed; the message names the command that installs it."""
