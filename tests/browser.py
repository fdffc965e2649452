"""A headless Chromium for tests of HTML pages: what a person would see, and what the page does.

Debian: `apt-get install chromium chromium-driver`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PHONE_WIDTH = 360
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
)


def programs() -> tuple[str, str] | None:
    """Paths of Chromium and of its driver; None where either is absent."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """A running Chromium with an empty profile, and what it did since a page was opened."""

    def __init__(self, binary: str, driver: str, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a local file in a window of that size, a phone's if it is that narrow."""
        metrics = {
            "width": width,
            "height": height,
            "deviceScaleFactor": 2 if width < 600 else 1,
            "mobile": width < 600,
        }
        media = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},  # a click waits for no scrolling
        ]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        self.driver.get("about:blank")
        self.console_messages()
        self.network_requests()
        self.driver.get(page.resolve().as_uri())

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def find(self, selector: str) -> WebElement:
        """The first element that a CSS selector finds."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def shown(self, selector: str) -> list[WebElement]:
        """The elements that a CSS selector finds and a person can see."""
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [element for element in found if element.is_displayed()]

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that JavaScript returns; elements can be arguments."""
        return self.driver.execute_script(script, *arguments)

    def wait_until(self, script: str, *arguments: Any, seconds: float = 60) -> Any:
        """Wait until JavaScript returns something true; returns that."""
        return WebDriverWait(self.driver, seconds, 0.05).until(
            lambda driver: driver.execute_script(script, *arguments)
        )

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window: above 0 it scrolls sideways."""
        return self.run(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def console_messages(self) -> list[str]:
        """Warnings and errors since `open`, or since this was asked last."""
        messages = self.driver.get_log("browser")
        return [m["message"] for m in messages if m["level"] in ("WARNING", "SEVERE")]

    def network_requests(self) -> list[str]:
        """Addresses asked for that are neither the file itself nor inside it."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        urls = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("file:", "data:", "about:"))]
