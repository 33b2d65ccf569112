"""Where the pretrained weights of an architecture come from, settled before a study starts.

Files that ``keras.applications`` would download are fetched here to the place where it keeps them,
so that no Keras is imported, and so that a closed network is one error within seconds: Keras' own
download has no time-out. A file is fully checked against its backbone when that is built.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from breakhis_search.errors import WeightsError
from breakhis_search.models.architectures import Backbone, get_architecture

DOWNLOAD_TIMEOUT_S = 10.0
"""How long the download server may stay silent before it counts as unreachable."""

_SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras")
_QUALIFIERS = "(weights|imagenet|1k|tfdimorderingtfkernels|tf|224|notop|v2)*"

_TOP_LAYERS = frozenset(
    {
        "predictions",
        "fc1",
        "fc2",
        "fc1000",
        "preds",
        "conv_preds",
        "conv_2",
        "logits",
        "convnext_tiny_head_dense",
    }
)
"""Weighted layers, in small letters, that only the tops of ``keras.applications`` have."""


@dataclass(frozen=True)
class ResolvedWeights:
    """The weights an architecture starts from.

    Attributes:
        architecture: Whose they are.
        origin: ``none`` (random), ``file`` (from the weights folder) or ``imagenet`` (from Keras'
            own download or its cache).
        path: The file, unless ``none``.
        sha256: Its digest in hexadecimal, unless ``none``.
    """

    architecture: str
    origin: Literal["none", "file", "imagenet"]
    path: Path | None = None
    sha256: str | None = None


def resolve_weights(
    architecture: str,
    *,
    source: Literal["imagenet", "none"],
    weights_dir: Path | None,
    keras_home: Path | None = None,
) -> ResolvedWeights:
    """Return the weights to start from, with the file on disk and checked.

    Only transfer architectures have any. With a ``weights_dir`` they must lie in it; without one
    they come from Keras' cache, or are downloaded into it now.

    Args:
        architecture: A name of ``models.architectures``.
        source: ``imagenet``, or ``none`` for a random start.
        weights_dir: A folder that holds the files, searched without its subfolders.
        keras_home: Keras' own folder, ``~/.keras`` unless given.

    Raises:
        WeightsError: The folder, the file in it or the download cannot be used.
        ConfigError: The architecture is not known.

    >>> resolve_weights("small_cnn", source="imagenet", weights_dir=None).origin
    'none'
    """
    backbone = get_architecture(architecture).backbone
    if backbone is None or source == "none":
        return ResolvedWeights(architecture, "none")
    path = find_local_weights(architecture, weights_dir=weights_dir, keras_home=keras_home)
    if path is None:
        path = _fetch(architecture, backbone, _place_in_keras_cache(backbone, keras_home))
    origin: Literal["file", "imagenet"] = "imagenet" if weights_dir is None else "file"
    return ResolvedWeights(architecture, origin, path, _digest(path, "sha256"))


def find_local_weights(
    architecture: str, *, weights_dir: Path | None, keras_home: Path | None = None
) -> Path | None:
    """Return the checked weights file that is used with no download, or ``None``.

    ``None`` means that the architecture has no pretrained weights, or that none was given and
    Keras' cache does not hold them yet.

    Raises:
        WeightsError: A ``weights_dir`` was given and does not hold exactly one file for it, or the
            file that would be used is broken.
        ConfigError: The architecture is not known.
    """
    backbone = get_architecture(architecture).backbone
    if backbone is None:
        return None
    if weights_dir is not None:
        path = _find_in_folder(architecture, backbone, weights_dir).resolve()
        _check_weights_file(path)
        return path
    path = _place_in_keras_cache(backbone, keras_home)
    if not path.is_file():
        return None
    _check_published_file(path, backbone)
    return path


def matches_weights_name(filename: str, backbone: Backbone) -> bool:
    """Tell whether a file of this name may hold the weights of a backbone.

    >>> mobilenet = get_architecture("mobilenet").backbone
    >>> matches_weights_name("mobilenet_1_0_224_tf_no_top.h5", mobilenet)
    True
    >>> matches_weights_name("weights_mobilenet_v3_large_224_1.0_float_no_top.h5", mobilenet)
    False
    """
    suffix = next((s for s in _SUFFIXES if filename.lower().endswith(s)), None)
    if suffix is None:
        return False
    letters = re.sub("[^a-z0-9]", "", filename.lower().removesuffix(suffix))
    return re.fullmatch(f"(weights)?{backbone.weights_names}{_QUALIFIERS}", letters) is not None


def require_weights_folder(folder: Path) -> None:
    """Refuse a folder of weights that is not there, also where nobody would look into it.

    Raises:
        WeightsError: It does not exist.
    """
    if not folder.is_dir():
        raise WeightsError(
            "the weights folder does not exist",
            expected="a folder that holds weights files",
            received=str(folder),
            remedy="correct --weights-dir, or leave it out to let Keras download the weights",
        )


_OTHERS = "search what needs none: --set 'space.model/architecture=[small_cnn]'"


def _find_in_folder(architecture: str, backbone: Backbone, folder: Path) -> Path:
    usual_name = backbone.weights_url.rsplit("/", maxsplit=1)[-1]
    require_weights_folder(folder)
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    matches = [name for name in names if matches_weights_name(name, backbone)]
    if len(matches) == 1:
        return folder / matches[0]
    if matches:
        raise WeightsError(
            f"several weights files for {architecture} are in {folder}",
            expected="one",
            received=", ".join(matches),
            remedy="leave only the one to be used there",
        )
    raise WeightsError(
        f"no weights file for {architecture} is in {folder}",
        expected=f"a file such as {usual_name}",
        received=", ".join(names[:10]) or "an empty folder",
        remedy=f"put {usual_name} (from {backbone.weights_url}) there; or --set model.weights=none "
        f"to start from random weights; or {_OTHERS}",
    )


def _place_in_keras_cache(backbone: Backbone, keras_home: Path | None) -> Path:
    home = keras_home or Path.home() / ".keras"
    return home / "models" / backbone.weights_url.rsplit("/", maxsplit=1)[-1]


def _fetch(architecture: str, backbone: Backbone, target: Path) -> Path:
    try:
        _download(backbone.weights_url, target)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"the ImageNet weights of {architecture} cannot be downloaded",
            expected=f"an answer from {backbone.weights_url}",
            received=f"{type(error).__name__}: {error}",
            remedy=f"put {target.name} into a folder and give it as --weights-dir; or --set "
            f"model.weights=none to start from random weights; or {_OTHERS}",
        ) from error
    _check_published_file(target, backbone)
    return target


def _download(url: str, target: Path) -> None:
    """Put the file at ``url`` at ``target``, wholly or not at all."""
    with _open_url(url, timeout_s=DOWNLOAD_TIMEOUT_S) as response:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            part = Path(folder) / target.name
            with part.open("wb") as file:
                shutil.copyfileobj(response, file)
            length = response.headers.get("Content-Length")
            if length is not None and part.stat().st_size != int(length):
                raise http.client.IncompleteRead(b"", int(length) - part.stat().st_size)
            part.replace(target)


def _open_url(url: str, *, timeout_s: float) -> Any:
    """Open a URL within a time that also bounds the look-up of its host's name.

    Raises:
        OSError: It cannot be reached in that time.
    """
    outcome: list[Any] = []

    def open_it() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=timeout_s))  # noqa: S310 - our URLs
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            outcome.append(error)
        except (OSError, http.client.HTTPException) as error:
            outcome.append(error)

    # urlopen's own time-out does not cover name resolution, which a broken network makes hang.
    thread = threading.Thread(target=open_it, daemon=True)
    thread.start()
    thread.join(2 * timeout_s)
    if not outcome:
        raise TimeoutError(f"no answer within {2 * timeout_s:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _check_published_file(path: Path, backbone: Backbone) -> None:
    """Raise unless a file in Keras' cache is the one Keras published."""
    expected = backbone.weights_hash
    received = _digest(path, "sha256" if expected and len(expected) == 64 else "md5")
    if expected is not None and received != expected:
        raise WeightsError(
            f"{path} is not the file Keras published",
            expected=f"hash {expected}",
            received=f"hash {received}",
            remedy="delete it, so that it is downloaded again; or give --weights-dir to use it",
        )
    _check_weights_file(path)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _check_weights_file(path: Path) -> None:
    """Raise unless ``path`` is a readable Keras weights file without a classification top."""
    try:
        top = _top_layers(path)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path} cannot be read as Keras weights",
            expected="an HDF5 file of layers, or a .keras archive",
            received=" ".join(str(error).split()) or type(error).__name__,
            remedy="fetch it again; it may be cut off, or a pointer instead of the file",
        ) from error
    if top:
        raise WeightsError(
            f"{path} holds the classification top",
            expected="a file saved without it (include_top=False, often named …_notop.h5)",
            received=f"weights of {', '.join(top)}",
            remedy="use the file without the top",
        )


def _top_layers(path: Path) -> list[str]:
    """Names of the layers in a weights file that belong to the top of a classifier."""
    import h5py

    if path.suffix == ".keras":
        with (
            zipfile.ZipFile(path) as archive,
            archive.open("model.weights.h5") as member,
            h5py.File(member, "r") as file,
        ):
            return _top_names(file)
    with h5py.File(path, "r") as file:
        return _top_names(file)


def _top_names(file: Any) -> list[str]:
    if "layers" in file:  # Keras 3 names groups by class, so a top shows only when it is loaded
        return []
    root = file.get("model_weights", file)
    if "layer_names" not in root.attrs:
        raise KeyError("it lists no layers")
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in root.attrs["layer_names"]]
    weighted = [name for name in names if len(root[name].attrs["weight_names"])]
    return [name for name in weighted if name.lower() in _TOP_LAYERS]
