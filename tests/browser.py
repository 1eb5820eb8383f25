"""A real browser for tests of pages: headless Chromium that reaches nothing but files."""

import contextlib
import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = os.environ.get("KLDIV_TEST_BROWSER") or next(
    filter(None, map(shutil.which, NAMES)), None
)
MISSING = "needs a browser: apt-get install chromium"


class Visit:
    """A page that was opened, and what went wrong on the way."""

    def __init__(self, page):
        self.page = page
        self.said = []
        self.asked = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path):
        self.url = path.as_uri()
        self.page.goto(self.url)
        return self

    def check(self):
        """The page asked for itself only, and had nothing to complain of."""
        assert self.asked == [self.url]
        assert self.said == []

    def overflow(self):
        """By how many pixels the page is wider than the screen."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )


@contextlib.contextmanager
def chromium():
    """A function that opens a page: of a path, at a width, in a colour scheme."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        try:

            def visit(path, width=1280, height=900, scheme="light", **options):
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    offline=True,
                    **options,
                )
                return Visit(context.new_page()).open(path)

            yield visit
        finally:
            browser.close()
