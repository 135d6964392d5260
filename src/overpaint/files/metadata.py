"""Pictures as bytes, with what is known about them inside: infotext, other text items, EXIF, colour profile, recipe.

STORE of the specification. Reading takes files from strangers: every text is bounded, and anything that cannot be read
is a PictureError.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from overpaint.deep import deep_of
from overpaint.deep_files import deep_pieces
from overpaint.deep_pixels import DeepPixels
from overpaint.errors import PictureError, SettingError
from overpaint.files.exif_comment import EXIF_IFD, USER_COMMENT, exif_comment
from overpaint.files.formats import FILE_FORMATS, KINDS, OF_PILLOW, fitting_profile, in_srgb, storable
from overpaint.files.novelai import infotext_of_novelai
from overpaint.heic import HEAD, heic_bytes, heic_header, is_heic
from overpaint.named_files import check_regular

Source = Image.Image | Path | str | bytes

INFOTEXT_ITEM = "parameters"
RECIPE_ITEM = "overpaint"
RECIPE_SUFFIX = ".overpaint.json"

_GPS_IFD = 0x8825
_XMP_TAG, _XMP_ITEM = 0x02BC, "XML:com.adobe.xmp"
# The pixels are upright already and may have another size; a TIFF's own layout is not the result's.
_STALE_EXIF = (0x0112, 0x0100, 0x0101, *range(0x00FE, 0x0100), *range(0x0102, 0x0107), 0x0111, *range(0x0115, 0x0118))
_STALE_EXIF += (0x011C, 0x013D, 0x0140, *range(0x0142, 0x0146), 0x014A, 0x0152, 0x0153, 0x015B, 0x8773, _XMP_TAG)
_STALE_EXIF_IFD = (0x9286, 0x927C, 0xA002, 0xA003, 0xA005)  # offsets inside a maker note would point astray
_JPEG_EXIF_LIMIT = 65_000

_LARGE = 8_000_000  # pixels
_READ_LIMIT = 1 << 20  # characters of one text
RECIPE_LIMIT = 1 << 26
_LOAD_LIMIT = 100_000_000  # pixels that are decoded only to find text behind them
_IGNORED_ITEMS = frozenset(
    {"dpi", "exif", "loop", "background", "timestamp", "duration", "progressive", "progression"}
    | {"icc_profile", "chromaticity", "photoshop", INFOTEXT_ITEM, RECIPE_ITEM}
)  # STORE-5, and every name that begins with jfif
_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, OverflowError, RuntimeError, MemoryError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Warning),  # a warning, where the program makes errors of them
)


def format_for(image: Image.Image, extension: str, infotext: str | None = None) -> str:
    """STORE-4: the extension under which this picture can be stored: "png" where the wished format is too small for it.

    A JPEG also holds only some 32,000 characters of infotext.
    """
    wished = extension.lower().removeprefix(".")
    kind = KINDS.get(wished)
    if kind is None:
        raise SettingError("samples_format", extension, f"choose one of {', '.join(KINDS)}")
    too_long = kind == "JPEG" and infotext is not None and len(_user_comment(infotext)) > _JPEG_EXIF_LIMIT - 200
    return "png" if too_long or max(image.size) > (FILE_FORMATS[kind].longest or max(image.size)) else wished


def encode_picture(
    image: Image.Image,
    extension: str,
    *,
    infotext: str | None = None,
    items: Mapping[str, str] | None = None,
    exif: bytes | None = None,
    icc: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    recipe: Mapping[str, object] | None = None,
    quality: int = 80,
    lossless: bool = False,
    background: str | None = None,
) -> bytes:
    """The picture as a file of the format that `format_for` says, with all that the format can carry.

    `exif`, `icc`, `xmp` and `dpi` are the source's; `items` and `recipe` have a place in PNG only. `background` shows
    through where the format holds no transparency; without one, that is dropped.
    """
    contents: dict[str, Any] = {"infotext": infotext, "items": items, "exif": exif, "icc": icc, "xmp": xmp, "dpi": dpi}
    contents |= {"recipe": recipe, "quality": quality, "lossless": lossless, "background": background}
    return whole(picture_content(image, extension, contents))


Content = bytes | Iterable[bytes]
"""What a file is to hold; in pieces where it is large."""


def whole(content: Content) -> bytes:
    return content if isinstance(content, bytes) else b"".join(content)


def picture_content(image: Image.Image, extension: str, contents: Mapping[str, Any]) -> Content:
    """The same, in pieces where the whole would take much room; `contents` are what `encode_picture` takes."""
    kind = KINDS[format_for(image, extension, contents["infotext"])]
    deep = _held_deep(image, kind)
    if deep is not None:
        return deep_pieces(deep, kind, _options_for(deep.mode, kind, contents))
    data = io.BytesIO()
    write_picture(image, data, kind, contents)
    return data.getvalue()


def write_picture(
    image: Image.Image,
    fp: Any,
    kind: str,
    contents: Mapping[str, Any],
    format: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> None:
    """To a file or a path, in this format; `params` are Pillow's own, and go before what the contents say."""
    if (deep := _held_deep(image, kind)) is not None:
        _write(fp, deep_pieces(deep, kind, _options_for(deep.mode, kind, contents)))
        return
    told, deep = dict(contents), deep_of(image)
    if kind == "HEIF" and deep is not None and not deep.is_cmyk:  # of the others, it alone has more than 8 bits
        told.pop("background")
        options = {**_options_for("RGB", kind, contents), **(params or {})}
        _write(fp, [heic_bytes(image, options)])
        return
    shown, told["icc"] = in_srgb(image if deep is None else deep.rounded(), kind, told["icc"])
    picture = storable(shown, kind, told.pop("background"))
    options = {**save_options(picture, kind, **told), **(params or {})}
    if kind == "HEIF":
        _write(fp, [heic_bytes(picture, options)])
    else:
        picture.save(fp, format or kind, **options)


def _write(fp: Any, pieces: Iterable[bytes]) -> None:
    """To a file or a path."""
    with nullcontext(fp) if hasattr(fp, "write") else Path(fp).open("wb") as file:
        file.writelines(pieces)


def _held_deep(image: Image.Image, kind: str) -> DeepPixels | None:
    """The picture's samples of 16 bits, if this format holds them."""
    deep = deep_of(image)
    return deep if deep is not None and FILE_FORMATS[kind].holds_deep(deep.mode) else None


def _options_for(mode: str, kind: str, contents: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in contents.items() if name != "background"}
    return save_options(Image.new(mode, (1, 1)), kind, **told)


def save_options(
    picture: Image.Image,
    kind: str,
    *,
    infotext: str | None = None,
    items: Mapping[str, str] | None = None,
    exif: bytes | None = None,
    icc: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    recipe: Mapping[str, object] | None = None,
    quality: int = 80,
    lossless: bool = False,
) -> dict[str, Any]:
    """What Pillow has to be told to write the picture with all that a format can carry."""
    options: dict[str, Any] = {"icc_profile": fitting_profile(icc, picture.mode), "dpi": dpi}
    if kind == "PNG":
        options |= {"pnginfo": _text_chunks(infotext, items or {}, recipe, xmp), "exif": _exif(None, exif, None)}
        options["compress_type"] = _packing(picture)
    elif kind == "GIF":
        options = {"comment": (infotext or "").encode("utf-8", "replace")}
    elif kind == "BMP":
        options = {"dpi": dpi}
    elif kind == "TIFF":  # NOTE: not packed. The library that packs them leaves most of the EXIF out.
        options["exif"] = _exif(infotext, exif, None, xmp)
    else:
        limit = _JPEG_EXIF_LIMIT if kind == "JPEG" else None
        options |= {"quality": min(max(int(quality), 1), 100), "exif": _exif(infotext, exif, limit)}
        options["xmp"] = xmp if xmp and (limit is None or len(xmp) <= limit) else None
    if kind == "WEBP":
        options |= {"lossless": lossless, "exact": lossless}  # exact: the colours of what is transparent, too
    return {key: value for key, value in options.items() if value is not None}


def _packing(picture: Image.Image) -> int | None:
    """How zlib looks for what repeats. The usual way takes half a minute for a camera's picture, and gains nothing."""
    return zlib.Z_RLE if picture.width * picture.height > _LARGE else None


def _text_chunks(
    infotext: str | None, items: Mapping[str, str], recipe: Mapping[str, object] | None, xmp: bytes | None
) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    if xmp:
        chunks.add_itxt(_XMP_ITEM, xmp.decode("utf-8", "replace"))
    texts = {**items, INFOTEXT_ITEM: infotext} if infotext is not None else items
    for key, value in texts.items():
        # A keyword has 1 to 79 Latin-1 bytes.
        keyword = key.replace("\0", "").encode("latin-1", "replace").decode("latin-1").strip()[:79] or "item"
        chunks.add_text(keyword, _whole_characters(value))
    if recipe is not None:
        # NOTE: not compressed. Readers refuse a compressed text of more than 1 MiB, and the picture with it.
        chunks.add_itxt(RECIPE_ITEM, recipe_text(recipe))
    return chunks


def _whole_characters(text: str) -> str:
    """Halves of characters joined where both are there, replaced where not: no encoding takes them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _user_comment(infotext: str) -> bytes:
    """STORE-2."""
    return b"UNICODE\0" + _whole_characters(infotext).encode("utf-16-be")


def _exif(infotext: str | None, carried: bytes | None, limit: int | None, xmp: bytes | None = None) -> bytes | None:
    """The source's EXIF without what is no longer true, with the infotext as its comment; without room, only that."""
    for source in (carried, None):
        exif = _carried_exif(source)
        if infotext is not None:
            exif.get_ifd(EXIF_IFD)[USER_COMMENT] = _user_comment(infotext)
        if xmp:
            exif[_XMP_TAG] = xmp
        data = exif.tobytes()
        if limit is None or len(data) <= limit:
            break
    return data if infotext is not None or len(exif) > 0 else None


def _carried_exif(carried: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    if not carried:
        return exif
    try:
        exif.load(carried)
        for tag in _STALE_EXIF:
            exif.pop(tag, None)
        for tag in _STALE_EXIF_IFD:
            exif.get_ifd(EXIF_IFD).pop(tag, None)
        if _GPS_IFD in exif:
            exif.get_ifd(_GPS_IFD)
        exif.tobytes()
    except Exception:  # whatever is wrong with a stranger's EXIF: the picture is worth more
        return Image.Exif()
    return exif


def recipe_text(recipe: Mapping[str, object]) -> str:
    """The recipe as it is written: the same recipe is the same text."""
    return json.dumps(recipe, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def recipe_path(picture: Path) -> Path:
    """Where the recipe of a picture lies that cannot hold it itself."""
    return picture.with_name(picture.name + RECIPE_SUFFIX)


def read_recipe(source: Source) -> dict[str, Any] | None:
    """The recipe inside a picture, or beside it; None if it has none."""
    with _opened(source) as image:
        text = _items_of(image, source, RECIPE_ITEM).get(RECIPE_ITEM)
    if text is None and isinstance(source, Path | str) and recipe_path(Path(source)).is_file():
        path = recipe_path(Path(source))
        if path.stat().st_size > RECIPE_LIMIT:
            raise PictureError(f"{path}: a recipe of more than {RECIPE_LIMIT >> 20} MiB is not read; give the true one")
        text = path.read_text(encoding="utf-8", errors="replace")
    return None if text is None else recipe_of(text, _name_of(source))


def recipe_of(text: str, name: str) -> dict[str, Any]:
    """The table that a recipe's text is; `name` is that of the file in an error."""
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict):
        raise PictureError(f"{name}: its recipe is not a JSON object; save the picture again")
    return recipe


def read_infotext(source: Source) -> tuple[str | None, dict[str, object]]:
    """STORE-5: the infotext of a picture, and its other items."""
    with _opened(source) as image:
        raw = _items_of(image, source, INFOTEXT_ITEM)
        items = _other_items(raw)
        infotext = raw.get(INFOTEXT_ITEM)
        if image.format == "GIF":
            infotext = items.get("comment")
        comment = exif_comment(image.getexif().tobytes() if image.format == "TIFF" else raw.get("exif"))
        if comment:
            infotext = comment
        if items.get("Software") == "NovelAI":
            infotext = infotext_of_novelai(items, image.size) or infotext
    if infotext is not None and len(str(infotext)) > _READ_LIMIT:
        raise PictureError(f"{_name_of(source)}: its infotext is longer than {_READ_LIMIT} characters; shorten it")
    return (None if infotext is None else str(infotext)), items


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    if isinstance(source, Image.Image):
        yield source
        return
    if not isinstance(source, bytes):
        check_regular(source)
    try:
        with _unread(source) as image:
            yield image
    except PictureError:
        raise
    except _UNREADABLE as error:
        raise PictureError(f"{_name_of(source)}: cannot be read ({error}); give a whole picture") from error


def _unread(source: Path | str | bytes) -> Image.Image:
    start = source[:HEAD] if isinstance(source, bytes) else _first_bytes(Path(source))
    if is_heic(start):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return heic_header(data, _name_of(source))
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=OF_PILLOW)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _items_of(image: Image.Image, source: Source, wanted: str) -> dict[Any, Any]:
    """What the file says of itself. A PNG may say it behind its pixels; damaged pixels do not take the rest along."""
    is_unread_png = image.format == "PNG" and not isinstance(source, Image.Image)
    if is_unread_png and image.width * image.height <= _LOAD_LIMIT:
        try:
            image.load()
        except _UNREADABLE:
            if wanted not in image.info:
                raise
    return dict(image.info)


def _name_of(source: Source) -> str:
    return str(source) if isinstance(source, Path | str) else "picture"


def _other_items(raw: Mapping[Any, Any]) -> dict[str, object]:
    items: dict[str, object] = {}
    for key, value in raw.items():
        if not isinstance(key, str) or key in _IGNORED_ITEMS or key.startswith("jfif"):
            continue
        if isinstance(value, bytes):
            value = _text_or_none(value)
        if isinstance(value, str) and len(value) <= _READ_LIMIT:
            items[key] = str(value)
        elif isinstance(value, bool | int | float):
            items[key] = value
    return items


def _text_or_none(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
