"""A name becomes a local directory of checkpoint files: the bundled model, a directory, or a Hugging Face hub id.

What the files mean is for checkpoint/, model/weights.py and processing/. Cache, resume and locks are
huggingface_hub's; this file decides what is fetched, where progress is shown, and what a failure means.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import CheckpointError, ModelNotFoundError

BUNDLED = "nano"
# Never pickles, which run the code of whoever wrote them.
PROCESSOR_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
MODEL_FILES = (*PROCESSOR_FILES, "model*.safetensors")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_BUNDLED_DIRECTORY = Path(__file__).parent / "assets" / BUNDLED
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BUNDLED_CURE = f"Or use the bundled model: '{BUNDLED}'."


def resolve(
    name_or_path: str | Path | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    patterns: Sequence[str] = MODEL_FILES,
    endpoint: str | None = None,
) -> Path:
    """The local directory of a checkpoint, downloaded first when it is a hub id and not in the cache.

    name_or_path: None or "nano" is the bundled model; an existing directory is taken as it is; "owner/name" is looked
    up on the hub. revision: branch, tag or commit. local_files_only: use the cache, touch no network.
    token: sent to the hub; True takes the one stored by `hf auth login`. patterns: which files are wanted.
    endpoint: another hub than HF_ENDPOINT names.
    Raises ModelNotFoundError when there is no such checkpoint, CheckpointError when it can't be downloaded or used.
    """
    if name_or_path is None:
        return _bundled()
    path = Path(name_or_path).expanduser()
    if path.is_dir() and str(name_or_path):
        return path
    if str(name_or_path) == BUNDLED:
        return _bundled()
    if path.is_file():
        raise ModelNotFoundError(f"{path} is a file. Give the directory of the checkpoint, the one with config.json.")
    if isinstance(name_or_path, Path) or not _HUB_ID.fullmatch(name_or_path) or name_or_path.startswith("."):
        raise ModelNotFoundError(
            f"There is no directory {path}, and {str(name_or_path)!r} is not a hub id of the form 'owner/name'. "
            + _BUNDLED_CURE
        )
    directory = _download(
        name_or_path,
        revision=revision,
        local_files_only=local_files_only,
        token=token,
        cache_dir=cache_dir,
        allow_patterns=list(patterns),
        endpoint=endpoint,
    )
    wants_weights = any(pattern.endswith(".safetensors") for pattern in patterns)
    if wants_weights and not any(directory.glob("*.safetensors")):
        raise CheckpointError(_explain_no_safetensors(name_or_path, revision, cache_dir))
    return directory


def copy_processor_files(source: Path, target: Path) -> None:
    """Put the small files that lie beside the weights of a checkpoint beside others; config.json is the caller's."""
    for pattern in PROCESSOR_FILES:
        for file in source.glob(pattern):
            if file.name != "config.json" and not file.name.endswith(".index.json"):
                shutil.copyfile(file, target / file.name)


def resolve_adapter(
    name_or_path: str | Path,
    *,
    local_files_only: bool = False,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """The local directory of an adapter: a directory, or a hub id, whose newest version is downloaded.

    token, cache_dir, endpoint: as of `resolve`. Raises ModelNotFoundError, CheckpointError.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() and str(name_or_path):
        return path
    try:
        return resolve(
            name_or_path,
            local_files_only=local_files_only,
            token=token,
            cache_dir=cache_dir,
            patterns=ADAPTER_FILES,
            endpoint=endpoint,
        )
    except CheckpointError as error:
        raise type(error)(f"The adapter can't be found: {str(error).replace(_BUNDLED_CURE, '').rstrip()}") from error


def _bundled() -> Path:
    if not (_BUNDLED_DIRECTORY / "config.json").is_file():
        raise ModelNotFoundError(
            f"The bundled model is not part of this installation: {_BUNDLED_DIRECTORY} has no config.json. "
            "Install the package again, or name a directory or hub id."
        )
    return _BUNDLED_DIRECTORY


def _download(hub_id: str, **options: Any) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        # A checkpoint's files lie at the top of its repository; folders hold other formats, or reach out of it.
        directory = huggingface_hub.snapshot_download(
            hub_id, ignore_patterns=["*/*"], library_name="smolvlm", tqdm_class=_terminal_bar(), **options
        )
    except (OSError, errors.HTTPError, errors.HFValidationError) as error:
        where = options["endpoint"] or huggingface_hub.constants.ENDPOINT
        kind, message = _explain(error, hub_id, options["revision"], options["local_files_only"], where)
        raise kind(message) from error
    return Path(directory)


def _terminal_bar() -> type:
    """huggingface_hub's progress bar, silent when nobody watches (one of its bars doesn't look by itself)."""
    from huggingface_hub.utils import tqdm

    class TerminalBar(tqdm):
        def __init__(self, *args: object, **options: object) -> None:
            silent = not sys.stderr.isatty()
            super().__init__(*args, **{**options, "disable": silent or options.get("disable")})

    return TerminalBar


def _explain(
    error: Exception, hub_id: str, revision: str | None, local_files_only: bool, where: str
) -> tuple[type[CheckpointError], str]:
    """What a failure of huggingface_hub means for the user, and the cure."""
    from huggingface_hub import errors

    what = repr(hub_id) + (f" at revision {revision!r}" if revision else "")
    offline = _cure_for_offline(local_files_only, where)
    match error:
        case errors.GatedRepoError():
            cure = "accept its conditions on its page, then pass token= or run `hf auth login`"
            return CheckpointError, f"{what} on {where} is gated: {cure}."
        case errors.RepositoryNotFoundError():
            return ModelNotFoundError, (
                f"There is no directory {hub_id!r}, and {where} has no model {what} that you may see. Check the "
                f"spelling; if it is private, pass token= or run `hf auth login`. {_BUNDLED_CURE}"
            )
        case errors.RevisionNotFoundError():
            return ModelNotFoundError, (
                f"{where} has {hub_id!r}, but no branch, tag or commit {revision!r} of it. "
                "Leave revision= out for the newest."
            )
        case errors.IncompleteSnapshotError():
            return ModelNotFoundError, (
                f"The cache holds only a part of {what}: an earlier download was cut, or fetched only some files. "
                + offline
            )
        case errors.LocalEntryNotFoundError() if isinstance(error.__cause__, errors.HfHubHTTPError):
            return _explain(error.__cause__, hub_id, revision, local_files_only, where)
        case errors.LocalEntryNotFoundError():
            return ModelNotFoundError, f"There is no directory {hub_id!r} and no {what} in the cache. {offline}"
        case errors.LocalTokenNotFoundError():
            return CheckpointError, "token=True takes the stored token, and there is none: run `hf auth login`."
        case errors.HfHubHTTPError():
            status = error.response.status_code
            cure = "check the token" if status in (401, 403) else "try again later; finished files are kept"
            return CheckpointError, f"{where} answered the request for {what} with status {status}: {cure}."
        case errors.HFValidationError():
            return ModelNotFoundError, f"{hub_id!r} is neither a directory nor a hub id: {error}. {_BUNDLED_CURE}"
    return CheckpointError, (
        f"The download of {what} from {where} broke off ({type(error).__name__}: {error}). "
        "Run the same again: finished files are kept."
    )


def _cure_for_offline(local_files_only: bool, where: str) -> str:
    from huggingface_hub import constants

    if local_files_only:
        return "local_files_only=True forbids the download: leave it out once, with a network."
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set and forbids the download: unset it once, with a network."
    return f"{where} can't be reached: check the network, then try again. {_BUNDLED_CURE}"


def _explain_no_safetensors(hub_id: str, revision: str | None, cache_dir: str | Path | None) -> str:
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = huggingface_hub.get_cached_repo_tree(hub_id, revision=revision, cache_dir=cache_dir)
    except CachedRepoTreeNotFoundError:
        tree = []
    names = sorted(file.path for file in tree)
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles:
        return (
            f"{hub_id!r} has its weights only as {pickles[0]}. That is a pickle, which runs the code of whoever wrote "
            "it, and is not fetched. Ask for a revision with model.safetensors, or convert it."
        )
    return f"{hub_id!r} has no model.safetensors. It holds {', '.join(names[:8]) or 'no known files'}."
