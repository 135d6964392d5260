"""Which checkpoint a command paints with: the one that is named, that of a folder, or that of an earlier picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from overpaint.cli.options import GivenOptions
from overpaint.cli.output import note
from overpaint.errors import CheckpointError, RequestError

if TYPE_CHECKING:
    from overpaint.models.hashes import CheckpointFile
    from overpaint.settings import Settings


_OLD_DIGITS = 8


def model_asked_for(asked: GivenOptions, settings: Settings) -> str | None:
    """The model that is named, else the only one of the folder of models; None means the built-in one."""
    named = asked.text("model") or settings.sd_model_checkpoint
    if named or not settings.models_dir:
        return named or None
    found = list(checkpoints_in(settings))
    if len(found) == 1:
        return str(found[0].path)
    from overpaint.hints import listed

    if not found:
        note(f"warning: {settings.models_dir} holds no checkpoint, so overpaint-mini paints, the built-in one")
        return None
    names = listed((each.name for each in found), 12)
    raise RequestError("--model", None, f"name one of the {len(found)} models of {settings.models_dir}: {names}")


def check_is_checkpoint(path: Path) -> None:
    """Refuse what the first bytes, or the names of the tensors, show to be something else."""
    from overpaint.cli.info import use_of
    from overpaint.models.header import safetensors_shapes
    from overpaint.models.other_kinds import account_of_other

    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(9)
    is_safetensors = head[8:] == b"{" and not head.startswith(b"PK")
    if not is_safetensors and not head.startswith((b"PK", b"\x80", b"GGUF")):
        raise CheckpointError(
            f"{path.name}: it is no model file; give one in .safetensors, .ckpt or .gguf, or a folder"
        )
    if not is_safetensors or path.suffix != ".safetensors":
        return
    account = account_of_other(path, *safetensors_shapes(path))
    if account is not None:
        named = None if account.get("problems") else use_of(path, account["kind"])
        use = f"; use it as {named}" if named else ""
        raise CheckpointError(f"{path.name}: it is no checkpoint but of the kind {account['kind']}{use}")


def checkpoints_in(settings: Settings) -> Iterator[CheckpointFile]:
    """The checkpoints of the models folder; what a header shows to be something else is left out."""
    from overpaint.models.families import UNET_PREFIX
    from overpaint.models.find import model_folders
    from overpaint.models.hashes import list_checkpoints, user_hash_cache
    from overpaint.models.header import safetensors_shapes
    from overpaint.models.transformer_shapes import transformer_part

    for each in list_checkpoints(model_folders(settings), cache=user_hash_cache()):
        if each.path.suffix == ".safetensors" and each.path.is_file():
            try:
                shapes, _ = safetensors_shapes(each.path)
            except CheckpointError:
                shapes = {}
            is_unet = any(key.startswith((UNET_PREFIX, "down_blocks.", "input_blocks.")) for key in shapes)
            if shapes and not is_unet and transformer_part(shapes) is None:
                continue
        yield each


def model_painted_with(name: str, digest: str, settings: Settings) -> str | None:
    """The checkpoint that an earlier picture was painted with, by its hash or, where it has none, by its name.

    One of another content is refused, and so is one that is not there.
    """
    if not name and not digest:
        return None
    known = list(_known(settings))
    found = _by_hash(known, name, digest) if digest else next((each for each in known if _is_called(each, name)), None)
    if found is not None:
        return str(found.path)
    titled = " ".join(each for each in (name, f"[{digest}]" if digest else "") if each)
    namesake = next((each for each in known if _is_called(each, name)), None)
    other = f"{namesake.path} is another file of that name; " if namesake is not None else ""
    place = f"it is not in {settings.models_dir}" if settings.models_dir else "--models FOLDER says where to look"
    remedy = f"{other}{place}; name it with --model, or give --any-model to paint with another one"
    raise CheckpointError(f"the picture was painted with {titled}: {remedy}")


def _known(settings: Settings) -> Iterator[CheckpointFile]:
    from overpaint.models.built_in import built_in_files
    from overpaint.models.find import find_checkpoint, model_folders
    from overpaint.models.hashes import list_checkpoints, user_hash_cache

    yield from built_in_files()
    named = settings.sd_model_checkpoint
    single = find_checkpoint(named, settings) if named and Path(named).exists() else None
    yield from list_checkpoints(model_folders(settings), single, user_hash_cache())


def _is_called(file: CheckpointFile, name: str) -> bool:
    return bool(name) and name in (file.name, file.name_for_extra, file.model_name)


def _by_hash(known: list[CheckpointFile], name: str, digest: str) -> CheckpointFile | None:
    """Hashes that are remembered first, then files of that name, then all others: each is read once, ever."""
    from overpaint.models.hashes import old_hash, sha256_of, user_hash_cache

    remembered = next((each for each in known if each.sha256 and each.sha256.startswith(digest)), None)
    if remembered is not None:
        return remembered
    unread = [each for each in known if each.sha256 is None and not each.is_folder and each.path.is_file()]
    unread.sort(key=lambda each: not _is_called(each, name))
    for number, each in enumerate(unread):
        if number == 0 and not _is_called(each, name):
            note(f"looking for the model [{digest}] among {len(unread)} files that were never hashed")
        if sha256_of(each.path, user_hash_cache()).startswith(digest):
            return each
    if len(digest) == _OLD_DIGITS:  # infotexts of 2022
        return next((each for each in known if old_hash(each.path) == digest), None)
    return None
