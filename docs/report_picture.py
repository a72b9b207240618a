"""Photograph a slide of the report of a finished ``proportion-ssl demo``; needs Selenium and Chromium.

python docs/report_picture.py segmentation/report.html docs/_static/report.jpg
"""

import argparse
import base64
import io
import shutil
from pathlib import Path

from PIL import Image
from selenium import webdriver

FLAGS = ("--headless", "--disable-gpu", "--no-sandbox", "--hide-scrollbars")
SHOW = """
const part = document.querySelector(arguments[0]), done = arguments[1];
part.style.contentVisibility = 'visible';
part.scrollIntoView();
Promise.all([...part.querySelectorAll('img')].map(image => image.decode())).then(() => {
    const box = part.getBoundingClientRect();
    done([box.x + scrollX, box.y + scrollY, box.width, box.height]);
});
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--part", default="#s1", help="CSS selector of what is shown")
    options = parser.parse_args()
    settings = webdriver.ChromeOptions()
    settings.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, "--window-size=1000,900"):
        settings.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=settings, service=service) as browser:
        browser.get(options.report.resolve().as_uri())
        x, y, width, height = browser.execute_async_script(SHOW, options.part)
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        shot = browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"])))
    image.convert("RGB").save(options.picture, quality=70, optimize=True)


if __name__ == "__main__":
    main()
