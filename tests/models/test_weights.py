from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from breakhis_search.errors import WeightsError
from breakhis_search.models import weights as weights_module
from breakhis_search.models.architectures import ARCHITECTURES, Architecture
from breakhis_search.models.weights import find_local_weights, matches_weights_name, resolve_weights

BACKBONES = {name: a.backbone for name, a in ARCHITECTURES.items() if a.backbone is not None}

NAMES = {
    "mobilenet_1_0_224_tf_no_top.h5": "mobilenet",
    "MobileNet.weights.h5": "mobilenet",
    "densenet121_notop.h5": "densenet121",
    "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5": "densenet121",
    "densenet121-imagenet.keras": "densenet121",
    "efficientnetv2-b0_notop.h5": "efficientnetv2b0",
    "efficientnetb0_notop.h5": "efficientnetb0",
    "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5": "resnet50v2",
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5": "vgg16",
    "weights_mobilenet_v3_large_224_1.0_float_no_top.h5": "mobilenetv3large",
    "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5": "mobilenetv3large",
    "convnext_tiny_notop.h5": "convnexttiny",
    # of networks that are not ours
    "mobilenet_7_5_224_tf_no_top.h5": None,
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5": None,
    "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5": None,
    "weights_mobilenet_v3_large_minimalistic_224_1.0_float_no_top_v2.h5": None,
    "weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5": None,
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5": None,
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5": None,
    "densenet121_notop.txt": None,
}


def write_legacy_weights(path: Path, *layers: str) -> Path:
    """A file in the layout that keras.applications publishes, one weight a layer."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = list(layers)
        for layer in layers:
            group = file.create_group(layer)
            group.attrs["weight_names"] = ["kernel"]
            group["kernel"] = [1.0]
    return path


@pytest.mark.parametrize(("filename", "architecture"), NAMES.items())
def test_weights_name_matches_exactly_its_architecture(filename: str, architecture: str | None):
    matches = [name for name, b in BACKBONES.items() if matches_weights_name(filename, b)]
    assert matches == ([architecture] if architecture else [])


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_weights_name_matches_the_file_keras_publishes(backbone):
    assert matches_weights_name(backbone.weights_url.rsplit("/", maxsplit=1)[-1], backbone)


@pytest.mark.parametrize("architecture", ["small_cnn", "keras_tuner.applications:HyperResNet"])
def test_resolve_of_what_has_no_pretrained_weights_gives_none(architecture: str, tmp_path: Path):
    resolved = resolve_weights(architecture, source="imagenet", weights_dir=tmp_path)
    assert (resolved.origin, resolved.path, resolved.sha256) == ("none", None, None)


def test_resolve_from_source_none_gives_none_without_looking(tmp_path: Path):
    resolved = resolve_weights("vgg16", source="none", weights_dir=tmp_path / "missing")
    assert resolved.origin == "none"


@pytest.mark.parametrize("architecture", ["mobilenet", "densenet121"])
def test_resolve_finds_the_real_files(architecture: str, real_weights: Path):
    resolved = resolve_weights(architecture, source="imagenet", weights_dir=real_weights)
    assert resolved.origin == "file"
    assert resolved.path.name.startswith(architecture)
    assert resolved.sha256 == hashlib.sha256(resolved.path.read_bytes()).hexdigest()


def test_find_local_weights_gives_the_file_of_the_folder(tmp_path: Path):
    path = write_legacy_weights(tmp_path / "vgg16_notop.h5", "block1_conv1")
    assert find_local_weights("vgg16", weights_dir=tmp_path) == path


def test_find_local_weights_of_a_small_cnn_gives_none(tmp_path: Path):
    assert find_local_weights("small_cnn", weights_dir=tmp_path) is None


def test_find_local_weights_in_a_folder_without_them_is_an_error(tmp_path: Path):
    with pytest.raises(WeightsError, match="no weights file for vgg16"):
        find_local_weights("vgg16", weights_dir=tmp_path)


def test_resolve_in_a_missing_folder_says_so(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"folder does not exist.*nowhere.*--weights-dir"):
        resolve_weights("vgg16", source="imagenet", weights_dir=tmp_path / "nowhere")


def test_resolve_without_a_matching_file_names_the_one_looked_for(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    message = "no weights file for efficientnetb0.*efficientnetb0_notop.h5; received notes.txt"
    with pytest.raises(WeightsError, match=message):
        resolve_weights("efficientnetb0", source="imagenet", weights_dir=tmp_path)


def test_resolve_with_two_matching_files_refuses_to_choose(tmp_path: Path):
    for name in ("vgg16_notop.h5", "vgg16.weights.h5"):
        write_legacy_weights(tmp_path / name, "block1_conv1")
    with pytest.raises(WeightsError, match=r"received vgg16.weights.h5, vgg16_notop.h5"):
        resolve_weights("vgg16", source="imagenet", weights_dir=tmp_path)


def test_resolve_refuses_a_file_with_the_top(tmp_path: Path):
    write_legacy_weights(tmp_path / "vgg16.h5", "block1_conv1", "fc1", "predictions")
    with pytest.raises(WeightsError, match=r"classification top.*weights of fc1, predictions"):
        resolve_weights("vgg16", source="imagenet", weights_dir=tmp_path)


def test_resolve_refuses_a_file_that_is_cut_off(tmp_path: Path, real_weights: Path):
    whole = next(real_weights.glob("mobilenet*.h5")).read_bytes()
    (tmp_path / "mobilenet_notop.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"cannot be read as Keras weights.*truncated"):
        resolve_weights("mobilenet", source="imagenet", weights_dir=tmp_path)


@pytest.mark.parametrize("name", ["vgg16_notop.h5", "vgg16.keras"])
def test_resolve_refuses_a_file_that_is_something_else(name: str, tmp_path: Path):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match="cannot be read as Keras weights"):
        resolve_weights("vgg16", source="imagenet", weights_dir=tmp_path)


def test_resolve_refuses_hdf5_that_is_no_keras_file(tmp_path: Path):
    with h5py.File(tmp_path / "vgg16.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(WeightsError, match="it lists no layers"):
        resolve_weights("vgg16", source="imagenet", weights_dir=tmp_path)


def test_resolve_accepts_a_keras_archive(tmp_path: Path):
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file.create_group("layers")
    with zipfile.ZipFile(tmp_path / "vgg16.keras", "w") as archive:
        archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
    resolved = resolve_weights("vgg16", source="imagenet", weights_dir=tmp_path)
    assert resolved.path == tmp_path / "vgg16.keras"


def serve_from(monkeypatch: pytest.MonkeyPatch, base_url: str, **changes: object) -> None:
    """Let vgg16 be downloaded from ``base_url``."""
    monkeypatch.setenv("no_proxy", "*")
    backbone = replace(BACKBONES["vgg16"], weights_url=f"{base_url}/vgg16_notop.h5", **changes)
    vgg16 = Architecture("vgg16", "transfer", backbone)
    monkeypatch.setattr(weights_module, "get_architecture", lambda _: vgg16)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Say nothing."""

    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}", folder
        http_server.shutdown()
        thread.join()


def test_download_goes_to_the_keras_cache_and_is_used_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[str, Path]
):
    url, folder = server
    served = write_legacy_weights(folder / "vgg16_notop.h5", "block1_conv1")
    md5 = hashlib.md5(served.read_bytes()).hexdigest()  # noqa: S324 - Keras publishes MD5
    serve_from(monkeypatch, url, weights_hash=md5)
    assert find_local_weights("vgg16", weights_dir=None, keras_home=tmp_path) is None
    first = resolve_weights("vgg16", source="imagenet", weights_dir=None, keras_home=tmp_path)
    served.unlink()
    again = resolve_weights("vgg16", source="imagenet", weights_dir=None, keras_home=tmp_path)
    assert first == again
    assert find_local_weights("vgg16", weights_dir=None, keras_home=tmp_path) == first.path
    assert first.origin == "imagenet"
    assert first.path == tmp_path / "models" / "vgg16_notop.h5"
    assert list(first.path.parent.iterdir()) == [first.path]


def test_download_of_another_content_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[str, Path]
):
    url, folder = server
    write_legacy_weights(folder / "vgg16_notop.h5", "block1_conv1")
    serve_from(monkeypatch, url)
    with pytest.raises(WeightsError, match=r"not the file Keras published.*delete it"):
        resolve_weights("vgg16", source="imagenet", weights_dir=None, keras_home=tmp_path)


def test_download_that_the_server_refuses_names_the_remedies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[str, Path]
):
    serve_from(monkeypatch, server[0])
    message = "cannot be downloaded.*404.*--weights-dir.*model.weights=none.*search what needs none"
    with pytest.raises(WeightsError, match=message):
        resolve_weights("vgg16", source="imagenet", weights_dir=None, keras_home=tmp_path)


def test_download_from_a_closed_port_fails_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    serve_from(monkeypatch, f"http://127.0.0.1:{port}")
    with pytest.raises(WeightsError, match=r"vgg16 cannot be downloaded.*refused"):
        resolve_weights("vgg16", source="imagenet", weights_dir=None, keras_home=tmp_path)
    assert not (tmp_path / "models").exists()


def test_download_from_a_silent_server_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(weights_module, "DOWNLOAD_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve_from(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(WeightsError, match=r"vgg16 cannot be downloaded.*timed out"):
            resolve_weights("vgg16", source="imagenet", weights_dir=None, keras_home=tmp_path)


def test_download_that_breaks_off_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def answer_half(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve_from(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=answer_half, args=(listener,))
        thread.start()
        with pytest.raises(WeightsError, match="IncompleteRead"):
            resolve_weights("vgg16", source="imagenet", weights_dir=None, keras_home=tmp_path)
        thread.join()
    assert list((tmp_path / "models").iterdir()) == []
