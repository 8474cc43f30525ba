"""What tests do with a page in a browser."""


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def choose(browser, selector, value):
    browser.execute_script(
        "const s = document.querySelector(arguments[0]); s.value = arguments[1]; "
        "s.dispatchEvent(new Event('change'));",
        selector,
        value,
    )


def click(browser, element):
    browser.execute_script("arguments[0].click()", element)


def column(browser, selector):
    return [element.get_attribute("textContent").strip() for element in find(browser, selector)]


def widen(browser, width):
    """Loads the page anew in a window of `width` pixels, below 500 that of a phone."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.refresh()
