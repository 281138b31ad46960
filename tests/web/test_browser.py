"""The page in a real browser, served by a real process: what a visitor sees, gets and cannot do."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import rasterio

from mmovseg.data.miniearth import load_miniearth, render
from mmovseg.data.miniearth.export import write_scene
from mmovseg.testing.fakes import write_raster

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,1000"
)
_START_S, _ANSWER_S = 300, 120  # generous: the machine may be busy with other things


def missing() -> str | None:
    """Return why a browser cannot be driven here, or None."""
    lacking = [name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None]
    lacking += [name for name, path in (("chromium", CHROMIUM), ("chromedriver", CHROMEDRIVER)) if path is None]
    return f"needs {', '.join(lacking)}, not found here" if lacking else None


pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


class Trap:
    """A web proxy that answers nobody and counts who tried."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.calls = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            connection.settimeout(2)
            try:
                self.calls.append(connection.recv(300))
            except OSError:
                self.calls.append(b"")
            connection.close()


class Server:
    """`tools/serve_demo.py` on a free port, with a folder for everything temporary and a trap in place of a network."""

    def __init__(self, folder: Path, *options: str):
        self.temporary, self.log_file = folder / "temporary", folder / "log.txt"
        self.temporary.mkdir()
        self.trap = Trap()
        environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        environment |= {name: self.trap.address for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
        environment |= {"no_proxy": "127.0.0.1", "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SHARE": "True"}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "tools/serve_demo.py", "--port", "0", "--device", "cpu", *options],
                cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.address = self._wait()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def _wait(self) -> str:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            found = re.search(r"open (http://\S+) in a browser", self.log)
            if found:
                return found[1]
            assert self.process.poll() is None, self.log
            time.sleep(0.2)
        raise AssertionError(f"the page did not start: {self.log}")

    def close(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"), "--max-upload-mb", "1", "--max-pixels", "60000")
    yield server
    if server.process.poll() is None:
        server.process.kill()


class Visitor:
    """Somebody who looks at the page."""

    def __init__(self, driver, address: str, downloads: Path):
        self.driver, self.address, self.downloads = driver, address, downloads

    def open(self):
        self.driver.get(self.address)
        self.wait(lambda: self.picture("prediction"), "the first map")
        return self

    def wait(self, condition, what: str):
        end = time.monotonic() + _ANSWER_S
        while time.monotonic() < end:
            try:
                found = condition()
            except self.stale as error:
                found = None if error else None
            if found:
                return found
            time.sleep(0.1)
        self.driver.save_screenshot(str(self.downloads / "failed.png"))
        raise AssertionError(f"waited in vain for {what}; the page says: {self.text()[:2000]}")

    @property
    def stale(self):
        from selenium.common.exceptions import StaleElementReferenceException

        return StaleElementReferenceException

    def find(self, selector: str):
        return self.driver.find_elements("css selector", selector)

    def text(self) -> str:
        return self.find("body")[0].text

    def picture(self, name: str) -> str | None:
        """Return the address of a picture that is there and has pixels."""
        images = self.find(f"#view-{name} img")
        return images[0].get_attribute("src") if images and images[0].get_property("naturalWidth") else None

    def pictures(self) -> dict[str, str | None]:
        return {name: self.picture(name) for name in ("optical", "sar", "overlay", "prediction")}

    def legend(self) -> dict[str, float]:
        return {
            row.get_attribute("data-name"): float(row.get_attribute("data-percent"))
            for row in self.find("#legend tbody tr")
        }

    def message(self) -> str:
        found = self.find("#status .message")
        return found[0].text if found else ""

    def error(self) -> str:
        found = self.find("#status .message.error")
        return found[0].text if found else ""

    def type_classes(self, names: str):
        from selenium.webdriver.common.keys import Keys

        field = self.find("#classes textarea")[0]
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(names)

    def press(self):
        self.find("#run")[0].click()

    def choose(self, where: str, label: str):
        self.wait(lambda: [item.click() or True for item in self.find(f"#{where} label") if label in item.text], label)

    def upload(self, role: str, path: Path):
        self.find(f"#{role}-file input[type=file]")[0].send_keys(str(path))
        self.wait(lambda: path.stem in self.find(f"#{role}-file")[0].text, f"{path.name} to arrive")

    def download(self) -> Path:
        for old in self.downloads.glob("*.tif"):
            old.unlink()
        self.find("#download")[0].click()
        found = self.wait(lambda: list(self.downloads.glob("*.tif")), "the download")
        return found[0]

    def requests(self) -> list[str]:
        """Return every address that the page has asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [item["params"] for item in messages if item["method"] == "Network.requestWillBeSent"]
        return [item["request"]["url"] for item in sent if not item.get("documentURL", "").startswith("chrome:")]


@pytest.fixture(scope="module")
def visitor(server, tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    downloads = tmp_path_factory.mktemp("downloads")
    options = Options()
    options.binary_location = CHROMIUM
    for flag in [*_FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.set_page_load_timeout(_ANSWER_S)
    yield Visitor(driver, server.address, downloads)
    driver.quit()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    world = load_miniearth("test", num_scenes=3, size=64)[2]["world"]
    scene = render(world["domain"], world["row"], world["col"], 96, 128, seed=0)
    paths = [folder / f"{name}.tif" for name in ("place_optical", "place_sar", "label")]
    write_scene(scene, *paths)
    return paths[0], paths[1], scene


def test_scene_cloud_and_names_change_pictures_and_legend(visitor):
    from selenium.webdriver.common.keys import Keys

    visitor.open()
    assert "knows nothing else" in visitor.text()
    first, legend = visitor.pictures(), visitor.legend()
    assert all(first.values()) and len(set(first.values())) == 4
    assert list(legend) == ["bareland", "rangeland", "farmland", "forest", "city", "road", "water"]
    assert sum(legend.values()) == pytest.approx(100, abs=0.5)

    visitor.find("#scene input")[0].click()
    options = visitor.wait(lambda: visitor.find("[role=option]"), "the list of scenes")
    assert len(options) == 16
    options[3].click()
    visitor.wait(lambda: "Scene 4:" in visitor.message(), "scene 4")
    second = visitor.wait(lambda: _all_new(visitor.pictures(), first), "new pictures")
    shares = visitor.legend()
    assert shares != legend

    visitor.find("#cover input[type=range]")[0].send_keys(Keys.END)
    visitor.wait(lambda: "clouds hide 100 %" in visitor.message(), "full cloud cover")
    third = visitor.wait(lambda: visitor.picture("optical") != second["optical"] and visitor.pictures(), "clouds")
    assert third["sar"] == second["sar"]  # the same pixels have the same name: SAR sees no cloud
    assert third["optical"] != second["optical"] and third["overlay"] != second["overlay"]
    assert visitor.legend() != shares

    visitor.type_classes("water, city, <i>forest</i>")
    visitor.press()
    visitor.wait(lambda: list(visitor.legend()) == ["water", "city", "<i>forest</i>"], "the new legend")
    assert visitor.picture("prediction") != third["prediction"]
    assert visitor.find("#legend i") == []  # a name is text, not part of the page

    before = visitor.picture("overlay")
    visitor.choose("modality", "SAR only")
    visitor.press()
    visitor.wait(lambda: "the SAR image only" in visitor.message(), "the answer of SAR")
    assert visitor.wait(lambda: visitor.picture("overlay") != before, "the map over SAR")


def test_the_map_of_a_scene_is_downloaded_as_geotiff(visitor):
    visitor.open()
    legend = visitor.legend()
    with rasterio.open(visitor.download()) as file:
        labels = file.read(1)
        assert file.driver == "GTiff" and file.crs.to_epsg() == 32632 and file.shape == (128, 128)
        assert file.transform.a == 2.5 and file.nodata == 255
        names = {value: file.tags(1)[f"CLASS_{value}"] for value in range(7)}
        assert len({file.colormap(1)[value] for value in names}) == 7
    shares = {name: 100 * (labels == value).mean() for value, name in names.items()}
    assert shares == pytest.approx(legend, abs=0.06)


def test_mistakes_are_told_in_a_sentence(visitor):
    visitor.open()
    for names, sentence in (
        ("water, water", "The list of classes names the class 'water' more than once"),
        ("water", "'water' alone would win everywhere"),
    ):
        visitor.type_classes(names)
        visitor.press()
        visitor.wait(lambda sentence=sentence: sentence in visitor.error(), sentence)
    visitor.wait(lambda: not any(visitor.pictures().values()), "the old answer to go")
    assert visitor.legend() == {} and not visitor.find("#download")[0].is_enabled()
    assert "Traceback" not in visitor.text()


def test_a_pair_is_uploaded_mapped_and_downloaded(visitor, pair):
    optical, sar, scene = pair
    visitor.open()
    old = visitor.pictures()
    visitor.choose("source", "Your own rasters")
    visitor.wait(lambda: visitor.find("#optical-file input[type=file]"), "the fields for files")
    visitor.upload("optical", optical)
    visitor.upload("sar", sar)
    visitor.press()
    visitor.wait(lambda: "Your raster; 128 x 96 pixels, EPSG:32632" in visitor.message(), "the map of the upload")
    visitor.wait(lambda: _all_new(visitor.pictures(), old), "new pictures")
    with rasterio.open(optical) as given, rasterio.open(visitor.download()) as file:
        labels = file.read(1)
        assert (file.crs, file.transform, file.shape) == (given.crs, given.transform, given.shape)
        assert file.tags(1)["CLASS_6"] == "water" and file.colormap(1)[6][3] == 255
    assert (labels == scene.label).mean() > 0.6
    assert visitor.legend()["forest"] == pytest.approx(100 * (labels == 3).mean(), abs=0.06)


def test_files_that_are_refused_are_told_in_a_sentence(visitor, tmp_path):
    vrt = tmp_path / "looks_like.tif"
    vrt.write_text('<VRTDataset rasterXSize="9" rasterYSize="9"></VRTDataset>')
    large = write_raster(tmp_path / "large.png", np.zeros((300, 300, 3), np.uint8))
    cut = write_raster(tmp_path / "cut.tif", np.random.default_rng(0).integers(0, 255, (90, 90, 3)).astype(np.uint8))
    cut.write_bytes(cut.read_bytes()[:9000])
    for path, sentence in (
        (vrt, "The optical file 'looks_like.tif' is no GeoTIFF, PNG or JPEG; this page reads nothing else"),
        (large, "has 300 x 300 = 0.1 million pixels; this page takes 0.06 million"),
        (cut, "The optical file 'cut.tif' is damaged or cut off"),
    ):
        visitor.open()
        visitor.choose("source", "Your own rasters")
        visitor.wait(lambda: visitor.find("#optical-file input[type=file]"), "the fields for files")
        visitor.upload("optical", path)
        visitor.press()
        visitor.wait(lambda sentence=sentence: sentence in visitor.error(), sentence)
        assert not any(visitor.pictures().values()) and "Traceback" not in visitor.text()


def test_a_file_that_is_too_large_does_not_arrive(visitor, server, tmp_path):
    path = tmp_path / "heavy.tif"
    path.write_bytes(b"II*\0" + bytes(1_500_000))
    visitor.open()
    visitor.choose("source", "Your own rasters")
    visitor.wait(lambda: visitor.find("#optical-file input[type=file]"), "the fields for files")
    visitor.find("#optical-file input[type=file]")[0].send_keys(str(path))
    visitor.wait(lambda: re.search("maximum allowed size|too large", visitor.text()), "the refusal")
    assert [file for file in server.temporary.rglob("*") if file.is_file() and file.stat().st_size > 1_000_000] == []


def test_no_request_leaves_this_machine(visitor, server):
    visitor.requests()
    visitor.open()
    visitor.press()
    time.sleep(2)
    asked = visitor.requests()
    hosts = {urlsplit(url).hostname for url in asked if urlsplit(url).scheme not in ("data", "blob", "chrome")}
    assert len(asked) > 5 and hosts == {"127.0.0.1"}
    complaints = [entry for entry in visitor.driver.get_log("browser") if "Content Security Policy" in entry["message"]]
    assert complaints == []  # nothing on the page even tried
    assert server.trap.calls == []


def test_ctrl_c_ends_it_and_leaves_nothing(server):
    assert any(server.temporary.iterdir())
    assert server.close() == 0
    assert server.log.rstrip().endswith("the page is closed")
    assert "Traceback" not in server.log and list(server.temporary.glob("mmovseg-page-*")) == []


def _all_new(now: dict[str, str | None], old: dict[str, str | None]) -> dict[str, str | None] | None:
    return now if all(now[name] and now[name] != old[name] for name in now) else None
