"""Package: the files of a delivered product, in a folder or an archive that is never unpacked."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from geoseg.errors import InputError
from geoseg.readers.places import local_path

MOST_FILES = 20_000
"""A product has some hundred files; a folder of more is not one."""

LARGEST_METADATA = 64 * 2**20
"""Bytes of a metadata file that are read at most."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What a product consists of, by names relative to its root."""

    root: str
    """Folder or archive."""
    names: tuple[str, ...]
    """Files with forward slashes, sorted."""

    @property
    def archive(self) -> str | None:
        """The archive's file, None for a folder."""
        return self.root if self.root.lower().endswith(ARCHIVES) else None

    @property
    def title(self) -> str:
        """For messages: the product's own name."""
        return Path(self.root).name

    def raster(self, name: str) -> str:
        """What GDAL opens for a file of the package."""
        if self.archive is None:
            return str(Path(self.root) / name)
        kind = "vsizip" if self.root.lower().endswith(".zip") else "vsitar"
        return f"/{kind}/{{{self.root}}}/{name.removeprefix('./')}"

    def read(self, name: str) -> bytes:
        """A metadata file. Raises InputError."""
        try:
            if self.archive is None:
                with (Path(self.root) / name).open("rb") as file:
                    data = file.read(LARGEST_METADATA + 1)
            elif self.root.lower().endswith(".zip"):
                with zipfile.ZipFile(self.root) as archive, archive.open(name) as file:
                    data = file.read(LARGEST_METADATA + 1)
            else:
                with tarfile.open(self.root) as bundle:
                    member = bundle.extractfile(name)
                    data = b"" if member is None else member.read(LARGEST_METADATA + 1)
        except (
            OSError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            tarfile.TarError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise InputError(f"cannot read {name} of {self.root!r}: {error}; fetch the product again") from error
        if len(data) > LARGEST_METADATA:
            raise InputError(f"{name} of {self.root!r} is larger than 64 MB and no metadata; fetch the product again")
        return data

    def xml(self, name: str) -> ElementTree.Element:
        """A metadata file in XML. Raises InputError."""
        try:
            return ElementTree.fromstring(self.read(name))
        except ElementTree.ParseError as error:
            raise InputError(
                f"{name} of {self.root!r} is no well-formed XML ({error}); fetch the product again"
            ) from error


def package(path: str) -> Package | None:
    """The folder or archive at `path`; None where there is neither. Raises InputError for an archive that is broken."""
    local = local_path(path)
    if local is None:
        return None
    if local.is_dir():
        return Package(root=str(local.absolute()), names=tuple(sorted(_files(local))))
    if not path.lower().endswith(ARCHIVES):
        return None
    try:
        if path.lower().endswith(".zip"):
            with zipfile.ZipFile(local) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
        else:
            with tarfile.open(local) as bundle:
                names = [member.name for member in bundle if member.isfile()]
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise InputError(f"{path!r} is no whole archive ({error}); fetch it again") from error
    return Package(root=str(local.absolute()), names=tuple(sorted(names)))


def _files(folder: Path) -> Iterator[str]:
    for count, path in enumerate(folder.rglob("*")):
        if count >= MOST_FILES:
            raise InputError(
                f"{str(folder)!r} holds more than {MOST_FILES:,} files and is no single product; give the product's own folder"
            )
        if path.is_file():
            yield PurePosixPath(path.relative_to(folder)).as_posix()


def local_name(element: ElementTree.Element) -> str:
    """An element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def texts(root: ElementTree.Element, name: str) -> list[str]:
    """The texts of all elements of that name, in any namespace."""
    return [(e.text or "").strip() for e in root.iter() if local_name(e) == name and (e.text or "").strip()]
